"""A model that learns more: heads get new labels, and what was answered before is held on to."""

import json
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_training import PLACES, RECIPE, rows, write_jsonl
from torch import nn

from murmura.runtime.errors import SetupError
from murmura.runtime.model.model import Model
from murmura.training.export.export import export
from murmura.training.fit.loop import fit
from murmura.training.fit.rows.encoding import Part
from murmura.training.fit.rows.soft_targets import Held, mixed_loss, soft_targets
from murmura.training.fit.setup import prepare
from murmura.training.fit.start.grow import RANDOM, begin_row, carry_over
from murmura.training.fit.start.hold import hold_answers
from murmura.training.kinds.classification import Classification
from murmura.training.kinds.kind import EncodedTexts
from murmura.training.kinds.registry import KINDS
from murmura.training.recipe.recipe import Hold, load_recipe
from murmura.training.run_folders.run_folder import RunFolder

TEXTS = [f"i want a loan to see {place} {end}" for place in PLACES for end in ("", "today", "please", "and back")]
OLD = ["lost", "other", "transfer"]


@pytest.fixture(scope="module")
def model(run: Path, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    export(run, folder)
    return folder


@pytest.fixture
def growing(model: Path, tmp_path: Path, write_recipe: Callable[..., Path]) -> Callable[..., Path]:
    """A recipe that goes on from a model of ours: `loan` is new to intent, and the other tasks have no labels at all."""

    def recipe(**changes) -> Path:
        new = [{"text": text, "label": "loan"} for text in TEXTS]
        old = [row["text"] for row in write_rows(tmp_path)]
        write_jsonl(tmp_path / "loan.jsonl", new)
        task = {
            "labels": [*OLD, "loan"],
            "out_of_scope": "other",
            "train": ["loan.jsonl", {"path": "own.jsonl", "soft": "all"}],
            "validation": ["loan.jsonl", "own.jsonl"],
        }
        assert old
        budget = {"epochs": 6, "evaluations": 1}
        return write_recipe(**{"encoder": str(model), "tasks": {"intent": task}, "budget": budget} | changes)

    def write_rows(folder: Path):
        made = rows(60, 5)
        write_jsonl(folder / "own.jsonl", [{"text": r["text"], "label": r["label"]} for r in made])
        return made

    return recipe


def test_a_head_grows_by_a_label_and_its_old_rows_go_on(growing, model: Path, tmp_path: Path):
    run = prepare(load_recipe(growing()), tmp_path, RunFolder(tmp_path / "run"))
    assert run.grown == {"intent": {"loan": "class mean"}}
    before = run.checkpoint.weights["heads.intent.weight"]
    assert np.array_equal(run.model.heads[0].weight.detach().numpy()[:3], before)


def test_a_head_of_another_kind_does_not_go_on_though_its_labels_are_the_same(growing, model: Path, tmp_path: Path):
    task = {"kind": "multi_label", "labels": OLD, "train": "own.jsonl"}
    recipe = growing(tasks={"intent": task})
    rows = [json.loads(line) for line in (tmp_path / "own.jsonl").read_text().splitlines()]
    write_jsonl(tmp_path / "own.jsonl", [{**row, "label": [row["label"]]} for row in rows])
    run = prepare(load_recipe(recipe), tmp_path, RunFolder(tmp_path / "run"))
    before = run.checkpoint.weights["heads.intent.weight"]
    assert before.shape == run.model.heads[0].weight.shape
    assert not np.array_equal(run.model.heads[0].weight.detach().numpy(), before)


def test_the_row_of_a_new_label_begins_where_most_of_its_texts_lie(growing, tmp_path: Path):
    from murmura.training.model.network import logits_of

    run = prepare(load_recipe(growing()), tmp_path, RunFolder(tmp_path / "run"))
    logits = np.stack(logits_of(run.model, 0, run.validation[0].ids, device="cpu", bf16=False))
    new = np.array([row.labels[0] == "loan" for row in run.tasks[0].validation])
    assert logits[new, 3].mean() > logits[~new, 3].mean() + 0.5


def test_the_new_label_is_learned_and_the_old_answers_are_kept(growing, model: Path, tmp_path: Path):
    from tiny_training import rows

    fit(growing(optimiser={"encoder_lr": 1e-3, "head_lr": 1e-2}), tmp_path, tmp_path / "run", quiet=True)
    export(tmp_path / "run", tmp_path / "grown")
    old, new = Model.load(model), Model.load(tmp_path / "grown")
    texts = [row["text"] for row in rows(60, 77)]
    first = [output["intent"]["alternatives"][0]["label"] for output in old.predict(texts, ["intent"])]
    second = [output["intent"]["alternatives"][0]["label"] for output in new.predict(texts, ["intent"])]
    assert np.mean([a == b for a, b in zip(first, second, strict=True)]) > 0.95
    asked = new.predict(["i want a loan to see paris soon"], ["intent"])
    assert asked[0]["intent"]["alternatives"][0]["label"] == "loan"


def test_soft_rows_without_a_model_of_ours_are_refused(growing, tmp_path: Path):
    with pytest.raises(SetupError, match="soft rows need an encoder that is a model of ours"):
        prepare(load_recipe(growing(encoder=RECIPE["encoder"])), tmp_path, RunFolder(tmp_path / "run"))


CLASSES = KINDS.get("classification")


def plain(kind: Any) -> Any:
    return lambda logits, target, texts: kind.loss(logits, target, 0.0)


@pytest.mark.parametrize("name", KINDS.names())
def test_the_answer_of_before_costs_least_and_new_labels_are_free_where_only_the_own_are_compared(name):
    kind, own = KINDS.get(name), np.array([True, True, False])
    shape = (2, 3) if kind.per_token else (3,)
    before = np.zeros(shape, np.float32) + np.array([2.0, -1.0, -1e4], np.float32)
    soft = soft_targets([Held(before, own)], 2)
    target = torch.tensor([[0, 0]]) if kind.per_token else torch.tensor([0])

    def loss(*logits: float) -> float:
        now = torch.zeros(1, *shape) + torch.tensor(logits)
        return mixed_loss(kind, now, target, soft, Hold(), plain(kind)).item()

    same = loss(2.0, -1.0, 0.0)
    assert loss(2.0, -1.0, 50.0) == pytest.approx(same)
    assert loss(1.0, 0.0, 0.0) > same


def test_a_batch_without_soft_rows_has_no_soft_targets():
    assert soft_targets([None, None], 4) is None


def test_a_held_row_counts_the_temperature_squared_and_its_weight():
    """weight * T^2 * KL(before / T, now / T), by hand; a quarter of the gradient would be lost without T^2."""
    before, now = np.array([2.0, -1.0, 0.5], np.float32), torch.tensor([[0.5, 0.0, 1.0]])
    soft = soft_targets([Held(before, np.array([True] * 3))], 3)
    for temperature, weight in ((1.0, 1.0), (2.0, 1.0), (2.0, 0.25)):
        was = torch.log_softmax(torch.from_numpy(before) / temperature, -1)
        is_ = torch.log_softmax(now[0] / temperature, -1)
        expected = weight * temperature**2 * float((was.exp() * (was - is_)).sum())
        hold = Hold(weight=weight, temperature=temperature)
        found = mixed_loss(CLASSES, now, torch.tensor([0]), soft, hold, plain(CLASSES))
        assert found.item() == pytest.approx(expected, rel=1e-5)


def test_of_several_labels_the_temperature_is_of_no_account():
    soft = soft_targets([Held(np.array([2.0, -1.0], np.float32), np.array([True] * 2))], 2)

    def loss(temperature: float) -> float:
        now = torch.tensor([[0.5, 0.0]])
        kind, hold = KINDS.get("multi_label"), Hold(temperature=temperature)
        return mixed_loss(kind, now, torch.zeros(1, 2), soft, hold, plain(kind)).item()

    assert loss(1.0) == loss(4.0)


def test_a_batch_is_the_mean_over_rows_with_a_label_as_they_count_and_held_rows_by_their_weight():
    before = np.array([2.0, -1.0], np.float32)
    soft = soft_targets([Held(before, np.array([True] * 2)), None], 2)
    now, target = torch.tensor([[0.0, 0.0], [1.0, -1.0]]), torch.tensor([0, 0])
    kind = KINDS.get("classification")

    def of_labels(logits: torch.Tensor, target: torch.Tensor, texts: object) -> torch.Tensor:
        return 5 * kind.loss(logits, target, 0.0)

    def both(weight: float) -> float:
        return mixed_loss(kind, now, target, soft, Hold(weight=weight), of_labels).item()

    hard = kind.loss(now[1:], target[1:], 0.0).item()
    held = (both(3.0) - both(1.0)) / 2
    assert both(1.0) == pytest.approx(held + 5 * hard / 2, rel=1e-5)


class Deep(Classification):
    """A classification whose head has a layer between."""

    def head(self, width: int, labels: int) -> nn.Module:
        parts = {"inner": nn.Linear(width, width), "middle": nn.Tanh(), "outer": nn.Linear(width, labels)}
        return nn.Sequential(OrderedDict(parts))


@pytest.fixture
def deep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KINDS, "_loaded", {"classification": Deep()})


@pytest.mark.usefixtures("deep")
def test_a_head_of_another_form_is_trained_restored_and_goes_on_with_its_layers(
    base: Path, tmp_path: Path, write_recipe: Callable[..., Path]
) -> None:
    write_jsonl(tmp_path / "few.jsonl", rows(30, 1))
    write_jsonl(tmp_path / "more.jsonl", [*rows(30, 1), *({"text": text, "label": "loan"} for text in TEXTS)])
    short = {"steps": 2, "evaluations": 1}
    tasks = {"intent": {"train": "few.jsonl"}}
    record = fit(write_recipe(encoder=str(base), tasks=tasks, budget=short), tmp_path, tmp_path / "run", quiet=True)
    assert record.data["intent"].probe is not None
    assert not record.data["intent"].probe.begins
    trained = RunFolder(tmp_path / "run").weights()
    run = prepare(
        load_recipe(write_recipe(encoder=str(base), tasks={"intent": {"train": "more.jsonl"}}, budget=short)),
        tmp_path,
        RunFolder(tmp_path / "other"),
    )
    (head,) = run.model.heads
    carry_over(head, run.tasks[0], record.tasks[0].labels, trained)
    assert np.array_equal(head.inner.weight.detach(), trained["heads.intent.inner.weight"])
    places = [run.tasks[0].labels.index(label) for label in record.tasks[0].labels]
    assert np.array_equal(head.outer.weight.detach()[places], trained["heads.intent.outer.weight"])
    assert begin_row(run.model, 0, run.tasks[0], run.train[0], "loan") == RANDOM


class Counting(nn.Module):
    """Answers with the sum of a text's tokens and the task's number, and notes what goes through the encoder."""

    per_token = (False, False, False)

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.read = nn.Parameter(torch.zeros(1)), 0

    def encode(self, ids, mask):
        self.read += len(ids)
        return EncodedTexts((ids * mask).float().unsqueeze(-1), mask)

    def answer(self, task, texts):
        return texts.states.sum(1).repeat(1, 2) + task


def test_what_several_tasks_hold_on_to_goes_through_the_encoder_once():
    texts = [np.array(ids, np.int32) for ids in ([1, 2], [3], [4, 5, 6])]
    marks = [("all", "own", None), ("own", None, "all"), (None, None, None)]
    tasks = [
        SimpleNamespace(name=name, labels=["a", "b"], train=[SimpleNamespace(soft=mark) for mark in soft])
        for name, soft in zip(("one", "two", "new"), marks, strict=True)
    ]
    parts = [Part(ids, []) for ids in (texts, texts[::-1], texts)]
    model = Counting()
    one, two, new = hold_answers(model, tasks, parts, {"one": ["a", "b"], "two": ["a"]})
    assert model.read == 3
    assert {row: held.logits.tolist() for row, held in one.items()} == {0: [3, 3], 1: [3, 3]}
    assert {row: (held.logits[0], held.logits[1] < -1e3) for row, held in two.items()} == {0: (16, True), 2: (4, True)}
    assert [held.compared.tolist() for held in two.values()] == [[True, False], [True, True]]
    assert new == {}
