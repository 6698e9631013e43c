"""The graphs of a decoder compute the textbook's decoder, and the model's graph gives them what they read."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from tiny_decoder import ENCODER, decode_by_hand, decoder_weights, reply_task
from tiny_model import TASKS, random_weights

from murmura.runtime.errors import ModelRefused
from murmura.runtime.model.feeds import padded_feeds, ragged_feeds
from murmura.runtime.model.graph.build import build_graph, write_graphs
from murmura.runtime.model.graph.decoder import build_memory, build_step
from murmura.runtime.model.onnx_session import Session, open_session
from murmura.schemas.manifest import ModelManifest

TASK = reply_task()
WEIGHTS = decoder_weights(ENCODER, TASK)
MASKED = np.float32(-1e4)
Floats = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def memory() -> Session:
    return open_session(build_memory(ENCODER, TASK, WEIGHTS, {}), "cpu")


@pytest.fixture(scope="module")
def step() -> Session:
    return open_session(build_step(ENCODER, TASK, WEIGHTS, {}, with_logits=True), "cpu")


def states(length: int, seed: int = 5) -> Floats:
    return np.random.default_rng(seed).normal(size=(length, ENCODER.hidden_size)).astype(np.float32)


def write_out(memory: Session, step: Session, hidden: Floats, pieces: list[int], reply: int, source: int) -> Floats:
    """The logits of every step of one reply of these pieces, in rows of these widths."""
    assert TASK.generation is not None
    layers, heads, size = TASK.generation.layers, ENCODER.heads, ENCODER.hidden_size // ENCODER.heads
    kept, length = memory.run({"hidden": hidden}), len(hidden)
    rows: dict[str, Any] = {}
    for i in range(layers):
        rows[f"reply_keys_{i}"] = np.zeros((2, heads, size, reply), np.float32)
        rows[f"reply_values_{i}"] = np.zeros((2, heads, reply, size), np.float32)
        rows[f"source_keys_{i}"] = np.zeros((2, heads, size, source), np.float32)
        rows[f"source_values_{i}"] = np.zeros((2, heads, source, size), np.float32)
        rows[f"source_keys_{i}"][0, :, :, :length] = kept["keys"][i].reshape(length, heads, size).transpose(1, 2, 0)
        rows[f"source_values_{i}"][0, :, :length] = kept["values"][i].reshape(length, heads, size).transpose(1, 0, 2)
    rows["reply_bias"], rows["source_bias"] = (np.full((2, 1, 1, width), MASKED) for width in (reply, source))
    rows["source_bias"][0, ..., :length] = 0
    forbidden = np.zeros((2, len(TASK.labels)), np.float32)
    found = []
    for at, piece in enumerate([len(TASK.labels), *pieces]):
        feeds = {"piece": np.array([piece, 0]), "position": np.array([at, 0]), "forbidden": forbidden}
        out = step.run(feeds | rows)
        found.append(out["logits"][0])
        for i in range(layers):
            rows[f"reply_keys_{i}"][0, :, :, at] = out[f"new_key_{i}"][0].reshape(heads, size)
            rows[f"reply_values_{i}"][0, :, at] = out[f"new_value_{i}"][0].reshape(heads, size)
        rows["reply_bias"][0, ..., at] = 0
    return np.array(found)


@pytest.mark.parametrize(("length", "reply", "source"), [(7, 12, 16), (1, 11, 1), (16, 40, 64)])
def test_steps_with_a_cache_compute_the_decoder(
    memory: Session, step: Session, length: int, reply: int, source: int
) -> None:
    pieces = [3, 9, 0, 5, 5, 16, 2, 8, 1, 4]
    want = decode_by_hand(WEIGHTS, TASK, states(length), pieces)
    np.testing.assert_allclose(write_out(memory, step, states(length), pieces, reply, source), want, atol=3e-5)


def test_a_forbidden_piece_is_not_chosen_and_has_no_share(step: Session) -> None:
    layers, heads, size, pieces = 2, ENCODER.heads, ENCODER.hidden_size // ENCODER.heads, len(TASK.labels)
    rows: dict[str, Any] = {}
    for i in range(layers):
        for what in ("reply", "source"):
            rows[f"{what}_keys_{i}"] = np.zeros((2, heads, size, 4), np.float32)
            rows[f"{what}_values_{i}"] = np.zeros((2, heads, 4, size), np.float32)
    biases = {name: np.zeros((2, 1, 1, 4), np.float32) for name in ("reply_bias", "source_bias")}
    forbidden = np.zeros((2, pieces), np.float32)
    feeds = rows | biases | {"piece": np.full(2, pieces), "position": np.zeros(2, np.int64), "forbidden": forbidden}
    best = int(step.run(feeds)["next"][1])
    forbidden[1, best] = MASKED
    out = step.run(feeds)
    logits = out["logits"][1].astype(np.float64)
    shares = np.exp(np.delete(logits, best))
    assert out["next"].tolist() == [best, int(np.argsort(logits)[-2])]
    np.testing.assert_allclose(out["log_probability"][1], np.log(shares.max() / shares.sum()), atol=1e-5)


@pytest.mark.parametrize("form", ["ragged", "padded"])
def test_the_graph_of_a_model_that_generates_gives_states_and_no_logits_of_that_task(form: Any) -> None:
    tasks = [*TASKS, TASK]
    weights = random_weights(ENCODER, tasks)
    session = open_session(build_graph(ENCODER, tasks, weights, form), "cpu")
    plain = open_session(build_graph(ENCODER, TASKS, weights, form), "cpu")
    assert session.outputs == (*plain.outputs, "hidden")
    ids, lengths = np.array([4, 9, 1, 1, 30]), np.array([3, 2])
    feeds = (ragged_feeds if form == "ragged" else padded_feeds)(ids, lengths, np.array([0, 3, 5]))
    found = session.run(feeds)
    assert found["hidden"].shape == ((5, 16) if form == "ragged" else (2, 3, 16))
    for name, value in plain.run(feeds).items():
        np.testing.assert_array_equal(found[name], value)


def test_a_model_may_do_nothing_but_generate() -> None:
    session = open_session(build_graph(ENCODER, [TASK], random_weights(ENCODER, [TASK])), "cpu")
    assert session.outputs == ("hidden",)


def test_all_graphs_are_sound_to_onnx_and_name_model_and_weights(tmp_path: Path) -> None:
    tasks = [*TASKS, TASK, reply_task(name="greeting", layers=1)]
    manifest = ModelManifest(name="desk", version=3, encoder=ENCODER, tasks=tasks, files=[])
    roles = write_graphs(tmp_path, manifest, random_weights(ENCODER, tasks), ("ragged", "padded"))
    assert roles == {
        "model.ragged.onnx": "graph:ragged",
        "model.padded.onnx": "graph:padded",
        "reply.memory.onnx": "graph:memory",
        "reply.step.onnx": "graph:step",
        "greeting.memory.onnx": "graph:memory",
        "greeting.step.onnx": "graph:step",
    }
    for path in roles:
        model = onnx.load(tmp_path / path)
        onnx.checker.check_model(model, full_check=True)
        assert {"murmura.name": "desk", "murmura.version": "3"}.items() <= {
            e.key: e.value for e in model.metadata_props
        }.items()
    names = {tensor.name for tensor in onnx.load(tmp_path / "reply.step.onnx").graph.initializer}
    assert {"heads.reply.embedding", "heads.reply.layers.1.cross.output.weight", "heads.reply.bias"} <= names


def test_a_decoder_of_other_sizes_than_the_manifest_says_is_refused() -> None:
    weights = random_weights(ENCODER, [TASK])
    with pytest.raises(
        ModelRefused, match=r"heads\.reply\.position has shape \(12, 16\), the manifest asks for \(20, 16\)"
    ):
        build_graph(ENCODER, [reply_task(max_tokens=20)], weights)
    with pytest.raises(ModelRefused, match=r"heads\.reply\.layers\.2\.self\.query\.weight is missing"):
        build_graph(ENCODER, [reply_task(layers=3)], weights)
