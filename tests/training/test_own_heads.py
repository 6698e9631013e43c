"""A kind with a head of its own form, in the network and in the graph: fewer logits than labels, a layer between, shared weights."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from installed_package import installed
from tiny_training import rows, write_jsonl

from murmura.runtime.errors import ModelRefused
from murmura.runtime.model.deltas.delta import assemble
from murmura.runtime.model.folders.weights import check_weights
from murmura.runtime.model.model import Model
from murmura.schemas.manifest import TaskSpec
from murmura.training.evaluate.evaluate import evaluate
from murmura.training.export.export import export
from murmura.training.fit.loop import fit
from murmura.training.run_folders.run_folder import RunFolder

SERVING = """
import numpy as np
import spox.opset.ai.onnx.v20 as op

from murmura.runtime.model.decoding import sigmoid
from murmura.runtime.model.kinds.classification import Classification, ClassificationDecoder

class Decoder(ClassificationDecoder):
    def scores(self, logits):
        reached = sigmoid(logits.astype(np.float64))
        edge = np.ones((len(logits), 1))
        return np.maximum(np.hstack([edge, reached]) - np.hstack([reached, 0 * edge]), 0)

class Levels(Classification):
    name = "levels"
    training = "levels.training:Levels"

    def width(self, task):
        return len(task.labels) - 1

    def head_shapes(self, task, encoder):
        hidden = encoder.hidden_size
        return {"inner.weight": (hidden, hidden), "inner.bias": (hidden,), "weight": (1, hidden), "cuts": (self.width(task),)}

    def build_head(self, graph, states, task):
        name = f"heads.{task.name}"
        inner = op.tanh(graph.linear(states, f"{name}.inner"))
        score = op.matmul(inner, graph.add(f"{name}.weight", np.ascontiguousarray(graph.weight(f"{name}.weight").T)))
        return op.add(score, graph.add(f"{name}.cuts", graph.weight(f"{name}.cuts")))

    def make_decoder(self, task):
        return Decoder(task)

    def to_scores(self, logits):
        return sigmoid(logits)

    def to_decisions(self, logits):
        return (logits > 0).sum(-1)
"""
TRAINING = """
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from murmura.training.kinds.classification import Classification
from murmura.training.kinds.kind import TIE, Chosen

class Head(nn.Module):
    def __init__(self, width, labels):
        super().__init__()
        self.inner = nn.Linear(width, width)
        self.weight = nn.Parameter(torch.randn(1, width) * 0.1)
        self.cuts = nn.Parameter(torch.linspace(1, -1, labels - 1))

    def forward(self, states):
        return torch.tanh(self.inner(states)) @ self.weight.T + self.cuts

class Levels(Classification):
    name = "levels"

    def head(self, width, labels):
        return Head(width, labels)

    def loss(self, logits, target, smoothing, texts=None):
        reached = torch.arange(logits.shape[1], device=logits.device) < target[:, None]
        return F.binary_cross_entropy_with_logits(logits, reached.to(logits.dtype))

    def metrics(self, logits, targets, task):
        right = [(each > 0).sum() == target for each, target in zip(logits, targets, strict=True)]
        return {"main": float(np.mean(right))}

    def calibrate(self, rows):
        return Chosen()

    def decide_alike(self, one, other):
        return bool((((one > 0) == (other > 0)) | (np.abs(one) < TIE)).all())
"""
LABELS = ["lost", "other", "transfer"]


@pytest.fixture(scope="module", autouse=True)
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    place = tmp_path_factory.mktemp("package")
    folder = place / "levels"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "serving.py").write_text(SERVING)
    (folder / "training.py").write_text(TRAINING)
    points = {"murmura.kinds": {"levels": "levels.serving:Levels"}}
    with installed("levels", place, points, place / "installed"):
        yield


@pytest.fixture
def run(base: Path, tmp_path: Path, write_recipe: Callable[..., Path]) -> Path:
    write_jsonl(tmp_path / "train.jsonl", rows(240, 1))
    tasks = {
        "intent": {"kind": "levels", "train": "train.jsonl"},
        "places": {"kind": "tagging", "train": "train.jsonl"},
    }
    budget = {"epochs": 6, "evaluations": 1}
    fit(write_recipe(encoder=str(base), tasks=tasks, budget=budget), tmp_path, tmp_path / "run", quiet=True)
    return tmp_path / "run"


def test_a_head_of_its_own_form_is_exported_with_parity_and_served_whole_and_as_a_delta(
    run: Path, base: Path, tmp_path: Path
) -> None:
    export(run, tmp_path / "whole", graphs=("ragged", "padded"))
    export(run, tmp_path / "delta", delta=True)
    assemble(tmp_path / "delta", base, tmp_path / "assembled")
    data = rows(60, 7)
    texts = [row["text"] for row in data]
    folders = [("whole", "ragged"), ("whole", "padded"), ("assembled", "ragged")]
    answers = [
        [each["intent"]["label"] for each in Model.load(tmp_path / folder, device="cpu", graph=form).predict(texts)]
        for folder, form in folders
    ]
    assert answers[0] == answers[1] == answers[2]
    assert np.mean([label == row["label"] for label, row in zip(answers[0], data, strict=True)]) > 0.6
    weights = RunFolder(run).weights()
    assert weights["heads.intent.weight"].shape == (1, 32)
    assert weights["heads.intent.cuts"].shape == (2,)


def test_answers_of_fewer_logits_than_labels_are_scored_as_they_are_served(run: Path, tmp_path: Path) -> None:
    export(run, tmp_path / "model")
    data = rows(60, 7)
    write_jsonl(tmp_path / "test.jsonl", data)
    recipe = (tmp_path / "model" / "recipe.yaml").read_text()
    (tmp_path / "scored.yaml").write_text(
        recipe.replace("train: train.jsonl", "train: train.jsonl\n    test: test.jsonl")
    )
    figures = evaluate(tmp_path / "model", tmp_path, recipe=tmp_path / "scored.yaml")["intent"]["test"].figures
    served = Model.load(tmp_path / "model", device="cpu").predict([row["text"] for row in data], ["intent"])
    right = np.mean([each["intent"]["label"] == row["label"] for each, row in zip(served, data, strict=True)])
    assert figures["accuracy"] == figures["served"] == right
    assert right > 0.6


def test_weights_that_do_not_have_the_form_of_the_kinds_head_are_refused(run: Path) -> None:
    record, weights = RunFolder(run).record(), RunFolder(run).weights()
    levels = TaskSpec(name="intent", kind="levels", labels=[*LABELS, "loan"])
    with pytest.raises(
        ModelRefused, match=r"weight heads\.intent\.cuts has shape \(2,\), the manifest asks for \(3,\)"
    ):
        check_weights(record.encoder, [levels], weights)
    plain = levels.model_copy(update={"kind": "classification"})
    with pytest.raises(ModelRefused, match=r"weight heads\.intent\.weight has shape \(1, 32\), the manifest asks for"):
        check_weights(record.encoder, [plain], weights)
