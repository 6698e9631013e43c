from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime
import pytest
from tiny_model import TASKS, random_weights, tiny_encoder

from murmura.runtime.errors import ModelRefused
from murmura.runtime.model.feeds import padded_feeds, ragged_feeds
from murmura.runtime.model.folders.weights import check_weights
from murmura.runtime.model.graph.bert import Bert
from murmura.runtime.model.graph.build import ARCHITECTURES, build_graph, describe_model, write_graph
from murmura.runtime.model.onnx_session import Session, open_session
from murmura.schemas.manifest import ModelManifest

ENCODER = tiny_encoder(hidden=32, layers=3, heads=4)
WEIGHTS = random_weights(ENCODER)
MANIFEST = ModelManifest(name="desk", version=4, encoder=ENCODER, tasks=list(TASKS), recipe="ab" * 32, files=[])
SEQUENCE_TASKS = [t.name for t in TASKS if t.kind != "tagging"]


@pytest.fixture(scope="module")
def ragged() -> Session:
    return open_session(build_graph(ENCODER, TASKS, WEIGHTS, "ragged"), "cpu")


@pytest.fixture(scope="module")
def padded() -> Session:
    return open_session(build_graph(ENCODER, TASKS, WEIGHTS, "padded"), "cpu")


def rows(*lengths: int, seed: int = 1) -> list[np.ndarray[Any, Any]]:
    random = np.random.default_rng(seed)
    return [random.integers(0, ENCODER.vocab_size, n) for n in lengths]


def feed(texts: list[np.ndarray[Any, Any]], form: str = "ragged") -> Mapping[str, Any]:
    lengths = np.array([len(t) for t in texts])
    starts = np.concatenate([[0], np.cumsum(lengths)])
    return (ragged_feeds if form == "ragged" else padded_feeds)(np.concatenate(texts), lengths, starts)


def bert_by_hand(ids: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """BERT written out in float64 for one text: the textbook's formulas, none of the graph's tricks."""
    w = {name: value.astype(np.float64) for name, value in WEIGHTS.items()}
    size = ENCODER.hidden_size // ENCODER.heads

    def norm(x: Any, name: str) -> Any:
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + ENCODER.layer_norm_eps)
        return x * w[name + ".weight"] + w[name + ".bias"]

    def linear(x: Any, name: str) -> Any:
        return x @ w[name + ".weight"].T + w[name + ".bias"]

    def gelu(x: Any) -> Any:
        from math import erf

        return x * 0.5 * (1 + np.vectorize(erf)(x / np.sqrt(2)))

    x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.position_embeddings.weight"][: len(ids)]
    x = norm(x, "embeddings.LayerNorm")
    for i in range(ENCODER.layers):
        layer = f"encoder.layer.{i}."
        q, k, v = (linear(x, f"{layer}attention.self.{p}") for p in ("query", "key", "value"))
        parts = []
        for h in range(ENCODER.heads):
            cut = slice(h * size, (h + 1) * size)
            scores = np.exp(q[:, cut] @ k[:, cut].T / np.sqrt(size))
            parts.append(scores / scores.sum(-1, keepdims=True) @ v[:, cut])
        x = norm(
            x + linear(np.concatenate(parts, -1), layer + "attention.output.dense"),
            layer + "attention.output.LayerNorm",
        )
        inner = gelu(linear(x, layer + "intermediate.dense"))
        x = norm(x + linear(inner, layer + "output.dense"), layer + "output.LayerNorm")
    return {t.name: linear(x if t.kind == "tagging" else x.mean(0), f"heads.{t.name}") for t in TASKS}


def test_the_ragged_graph_computes_bert(ragged: Session) -> None:
    texts = rows(7, 1, 19)
    got = ragged.run(feed(texts))
    bounds = np.cumsum([0, *map(len, texts)])
    for row, ids in enumerate(texts):
        want = bert_by_hand(ids)
        for task in TASKS:
            value = got[task.name][bounds[row] : bounds[row + 1]] if task.kind == "tagging" else got[task.name][row]
            np.testing.assert_allclose(value, want[task.name], atol=2e-5)


def test_ragged_and_padded_agree(ragged: Session, padded: Session) -> None:
    texts = rows(5, 2, 33, 12)
    one, other = ragged.run(feed(texts)), padded.run(feed(texts, "padded"))
    real = np.arange(33) < np.array([[5], [2], [33], [12]])
    for task in TASKS:
        want = other[task.name][real] if task.kind == "tagging" else other[task.name]
        np.testing.assert_allclose(one[task.name], want, atol=2e-6)


def test_another_architecture_is_one_class_for_both_layouts(ragged: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    class NormedTwice(Bert):
        def layer(self, x: Any, name: str) -> Any:
            return self._parameters.norm(super().layer(x, name), "embeddings.LayerNorm", 1e-3)

    monkeypatch.setitem(ARCHITECTURES, "bert", NormedTwice)
    texts = rows(5, 2, 33, 12)
    sessions = {form: open_session(build_graph(ENCODER, TASKS, WEIGHTS, form), "cpu") for form in ("ragged", "padded")}
    one, other = (session.run(feed(texts, form)) for form, session in sessions.items())
    for name in SEQUENCE_TASKS:
        np.testing.assert_allclose(one[name], other[name], atol=2e-6)
        assert not np.allclose(one[name], ragged.run(feed(texts))[name], atol=1e-2)


@pytest.mark.parametrize("form", ["ragged", "padded"])
def test_an_answer_does_not_depend_on_its_batch(form: str, request: pytest.FixtureRequest) -> None:
    session: Session = request.getfixturevalue(form)
    texts = rows(4, 40, 9, 1, 17, 17, 3)
    together = session.run(feed(texts, form))
    for row, ids in enumerate(texts):
        alone = session.run(feed([ids], form))
        for name in SEQUENCE_TASKS:
            np.testing.assert_allclose(alone[name][0], together[name][row], atol=1e-6)


def test_neighbours_order_does_not_matter(ragged: Session) -> None:
    texts = rows(4, 21, 9)
    forward, backward = ragged.run(feed(texts)), ragged.run(feed(texts[::-1]))
    for name in SEQUENCE_TASKS:
        np.testing.assert_allclose(forward[name], backward[name][::-1], atol=1e-6)


@pytest.mark.parametrize("form", ["ragged", "padded"])
def test_a_row_of_padding_alone_gives_finite_numbers(form: str, request: pytest.FixtureRequest) -> None:
    texts = [*rows(6), np.array([], np.int64)]
    answers = request.getfixturevalue(form).run(feed(texts, form))
    assert all(np.isfinite(value).all() for value in answers.values())


def test_large_scores_do_not_let_padding_in() -> None:
    loud = {k: v * (30 if ".query." in k or ".key." in k else 1) for k, v in WEIGHTS.items()}
    session = open_session(build_graph(ENCODER, TASKS, loud), "cpu")
    texts = rows(4, 40, 9)
    together = session.run(feed(texts))
    for row, ids in enumerate(texts):
        for name in SEQUENCE_TASKS:
            np.testing.assert_allclose(session.run(feed([ids]))[name][0], together[name][row], atol=1e-6)


def test_segment_embeddings_are_added_when_the_checkpoint_has_them(ragged: Session) -> None:
    types = np.random.default_rng(3).normal(0, 1, (2, ENCODER.hidden_size)).astype(np.float32)
    moved = WEIGHTS | {
        "embeddings.token_type_embeddings.weight": types,
        "embeddings.position_embeddings.weight": WEIGHTS["embeddings.position_embeddings.weight"] - types[0],
    }
    with_types = open_session(build_graph(ENCODER, TASKS, moved), "cpu")
    texts = rows(5, 8)
    for name, value in with_types.run(feed(texts)).items():
        np.testing.assert_allclose(value, ragged.run(feed(texts))[name], atol=1e-5)


def test_the_same_weights_give_the_same_bytes_built_or_written(tmp_path: Path) -> None:
    write_graph(tmp_path / "m.onnx", MANIFEST, WEIGHTS)
    assert build_graph(ENCODER, TASKS, WEIGHTS, metadata=describe_model(MANIFEST)) == (tmp_path / "m.onnx").read_bytes()


def test_a_graph_says_of_which_model_version_and_recipe_it_is(tmp_path: Path) -> None:
    write_graph(tmp_path / "m.onnx", MANIFEST, WEIGHTS)
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map == {
        "murmura.name": "desk",
        "murmura.version": "4",
        "murmura.recipe": "ab" * 32,
    }
    without = MANIFEST.model_copy(update={"recipe": None})
    assert describe_model(without).keys() == {"murmura.name", "murmura.version"}


@pytest.mark.parametrize("form", ["ragged", "padded"])
def test_the_file_is_sound_to_onnx_and_names_its_weights(form: Literal["ragged", "padded"]) -> None:
    import onnx

    model = onnx.load_model_from_string(build_graph(ENCODER, TASKS, WEIGHTS, form))
    onnx.checker.check_model(model, full_check=True)
    names = {tensor.name for tensor in model.graph.initializer}
    assert {"embeddings.word_embeddings.weight", "heads.intent.bias", "encoder.layer.2.output.dense.weight"} <= names


def test_a_missing_weight_is_named() -> None:
    weights = {k: v for k, v in WEIGHTS.items() if k != "encoder.layer.1.output.dense.bias"}
    with pytest.raises(ModelRefused, match=r"encoder\.layer\.1\.output\.dense\.bias is missing"):
        check_weights(ENCODER, TASKS, weights)


def test_a_weight_of_the_wrong_shape_is_named_with_both_shapes() -> None:
    weights = WEIGHTS | {"heads.intent.weight": np.zeros((5, 32), np.float32)}
    with pytest.raises(ModelRefused, match=r"heads\.intent\.weight has shape \(5, 32\).*\(4, 32\)"):
        build_graph(ENCODER, TASKS, weights)
