"""Heads of other forms in the graphs: layers mixed, mean and maximum, a hidden layer."""

from math import erf
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file
from tiny_model import ENTITIES, INTENT, SENTIMENT, TASKS, TOPICS, random_weights, tiny_encoder, write_tiny_model

from murmura.runtime.errors import ModelRefused
from murmura.runtime.model.feeds import ragged_feeds
from murmura.runtime.model.folders.folder import check_tasks, read_manifest
from murmura.runtime.model.folders.weights import check_weights
from murmura.runtime.model.graph.build import build_graph
from murmura.runtime.model.model import Model
from murmura.runtime.model.onnx_session import open_session
from murmura.schemas.manifest import HeadForm, ModelManifest, TaskSpec

FORMED = (
    INTENT.model_copy(update={"head": HeadForm(layers="mix", pooling="mean_max", hidden=24)}),
    SENTIMENT.model_copy(update={"head": HeadForm(layers="concat", pooling="mean_max")}),
    TOPICS.model_copy(update={"head": HeadForm(layers="mix")}),
    ENTITIES.model_copy(update={"head": HeadForm(layers="mix", hidden=8)}),
    TaskSpec(name="last", kind="multi_label", labels=["a", "b"], head=HeadForm(hidden=8)),
    TaskSpec(name="tags", kind="tagging", labels=["O", "B-x", "I-x"], head=HeadForm(layers="concat")),
)
TEXTS = ["my card was lost in london", "hello", "please cancel order 12, thanks!", "transfer money " * 25, "why"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny"
    weights = random_weights(tiny_encoder(), FORMED)
    far = {name: np.full_like(array, 3.0) for name, array in weights.items() if name.endswith("deviation")}
    return write_tiny_model(path, tasks=FORMED, graphs=("ragged", "padded"), added=far)


def logits_of(model: Model, texts: list[str]) -> list[dict[str, NDArray[Any]]]:
    """Return the logits of each text by task, computed in one batch."""
    logits = model.run(model.encode(texts))
    return [
        {
            task.name: logits.values[task.name][
                slice(logits.starts[row], logits.starts[row + 1]) if task.kind == "tagging" else row
            ]
            for task in FORMED
        }
        for row in range(len(texts))
    ]


def test_an_answer_has_the_same_bits_alone_and_in_any_batch(folder: Path) -> None:
    model = Model.load(folder, device="cpu")
    together, backwards = logits_of(model, TEXTS), logits_of(model, TEXTS[::-1])[::-1]
    for text, row, other in zip(TEXTS, together, backwards, strict=True):
        (alone,) = logits_of(model, [text])
        assert all(np.array_equal(alone[name], row[name]) and np.array_equal(other[name], row[name]) for name in row)


def test_both_graphs_standardise_mix_pool_and_transform_the_outputs_of_the_layers(folder: Path) -> None:
    """Against the formulas in float64, on the states of an encoder that has no layers behind them."""
    weights, encoder = load_file(folder / "model.safetensors"), read_manifest(folder).encoder
    layers = [states_after(folder, count) for count in range(encoder.layers + 1)]
    for form in ("ragged", "padded"):
        found = logits_of(Model.load(folder, device="cpu", graph=form), TEXTS)
        for row, own in enumerate(zip(*layers, strict=True)):
            for task in FORMED:
                np.testing.assert_allclose(found[row][task.name], by_hand(task, own, weights), atol=1e-5)


def states_after(folder: Path, count: int) -> list[NDArray[Any]]:
    """Return each text's states [S, H] after `count` layers: of an encoder without the others, through an identity."""
    encoder = read_manifest(folder).encoder.model_copy(update={"layers": count})
    size = encoder.hidden_size
    task = TaskSpec(name="states", kind="tagging", labels=["O", *(f"B-{n}" for n in range(size - 1))])
    head = {"heads.states.weight": np.eye(size), "heads.states.bias": np.zeros(size)}
    graph = build_graph(encoder, [task], load_file(folder / "model.safetensors") | head)
    ids = [np.array(each.rows[0].ids) for each in Model.load(folder, device="cpu").encode(TEXTS)]
    lengths = np.array([len(each) for each in ids])
    starts = np.cumsum([0, *lengths])
    states = open_session(graph, "cpu").run(ragged_feeds(np.concatenate(ids), lengths, starts))["states"]
    return np.split(states, starts[1:-1])


def by_hand(task: TaskSpec, layers: tuple[NDArray[Any], ...], weights: dict[str, NDArray[Any]]) -> NDArray[Any]:
    own = {name.removeprefix(f"heads.{task.name}."): array.astype(np.float64) for name, array in weights.items()}
    assert task.head is not None
    read: list[Any] = [layer.astype(np.float64) for layer in layers]
    if task.kind != "tagging":
        maximal = task.head.pooling == "mean_max"
        read = [np.concatenate([each.mean(0), each.max(0)]) if maximal else each.mean(0) for each in read]
    mean, deviation = own["norm.mean"], own["norm.deviation"]
    standardised = read if task.head.layers != "last" else read[-1:]
    read = [(part - m) / d for part, m, d in zip(standardised, mean, deviation, strict=True)]
    x = np.concatenate(read, -1)
    if task.head.layers == "mix":
        shares = np.exp(own["mix.weight"]) / np.exp(own["mix.weight"]).sum() * own["mix.scale"]
        x = sum(share * each for share, each in zip(shares, read, strict=True))
    if task.head.hidden:
        x = x @ own["hidden.weight"].T + own["hidden.bias"]
        x = x * 0.5 * (1 + np.vectorize(erf)(x / np.sqrt(2)))
    return x @ own["weight"].T + own["bias"]


def test_a_form_that_a_kind_cannot_have_and_weights_of_another_form_are_refused() -> None:
    encoder = tiny_encoder()
    manifest = ModelManifest(name="desk", encoder=encoder, tasks=[ENTITIES], files=[])
    pooled = ENTITIES.model_copy(update={"head": HeadForm(pooling="mean_max")})
    with pytest.raises(ModelRefused, match="task entities: a task of kind tagging reads each token and pools none"):
        check_tasks(manifest.model_copy(update={"tasks": [pooled]}), "manifest.json")
    reply = TaskSpec(name="reply", kind="generation", labels=["{end}", "a"], head=HeadForm(hidden=8))
    with pytest.raises(ModelRefused, match="a task of kind generation has a head of its own form; leave `head` out"):
        check_tasks(manifest.model_copy(update={"tasks": [reply]}), "manifest.json")
    with pytest.raises(ModelRefused, match=r"weight heads\.intent\.norm\.mean is missing"):
        check_weights(encoder, FORMED[:1], random_weights(encoder, TASKS))
