"""Self-training: which guesses are learned, that a run goes on with the same ones, and that a loss is undone."""

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stopped_training import Stopped, assert_resumed_equals_whole
from tiny_training import RECIPE, rows, write_jsonl
from torch.nn import functional as F

from murmura.runtime.errors import SetupError
from murmura.training.compute.state_file import CannotResume
from murmura.training.fit import loop
from murmura.training.fit.check_data import check_data
from murmura.training.fit.loop import fit
from murmura.training.fit.rows.soft_targets import Held
from murmura.training.fit.self_training import phase
from murmura.training.fit.self_training.guesses import choose_balanced, choose_threshold
from murmura.training.fit.steps.gradient import measure_losses
from murmura.training.model.network import logits_of
from murmura.training.recipe.last_phase import with_self_training
from murmura.training.recipe.recipe import load_recipe
from murmura.training.run_folders.run_folder import RunFolder

WriteRecipe = Callable[..., Path]
INTENT = {"intent": RECIPE["tasks"]["intent"]}
SHORT: dict[str, Any] = {"tasks": INTENT, "trackers": [], "few_rows": 0, "probe": False, "precision": "fp32"}
SETTINGS = {"texts": "unlabelled.jsonl", "precision": 0.2, "per_label": 8, "epochs": 0.2}


@pytest.fixture
def folder(data: Path, tmp_path: Path) -> Path:
    """A folder with training rows and further texts."""
    for name in ("train.jsonl", "test.jsonl"):
        (tmp_path / name).write_bytes((data / name).read_bytes())
    write_jsonl(tmp_path / "unlabelled.jsonl", [{"text": f"{row['text']} {at}"} for at, row in enumerate(rows(60, 9))])
    return tmp_path


def test_the_threshold_is_the_lowest_that_keeps_the_precision() -> None:
    scores = np.linspace(0.99, 0.01, 40)
    right = np.arange(40) < 18
    threshold = choose_threshold(scores, right, 0.9)
    assert threshold is not None
    assert (scores >= threshold).sum() == 20
    assert right[scores >= threshold].mean() == 0.9
    assert choose_threshold(scores, np.arange(40) % 2 == 0, 0.9) is None
    assert choose_threshold(np.full(40, 0.5), right, 0.9) is None, "equal scores stand on one side"
    assert choose_threshold(scores[:9], np.ones(9, bool), 0.9) is None, "nine rows say nothing"
    assert choose_threshold(scores, np.ones(40, bool), 0.9) == pytest.approx(0.005)


def test_beside_a_frozen_encoder_the_head_alone_learns_the_guesses(
    folder: Path, base: Path, write_recipe: WriteRecipe
) -> None:
    keys = {**SHORT, "encoder": str(base), "freeze": "encoder", "budget": {"steps": 3, "evaluations": 1}}
    found = {}
    for name, more in (("plain", {}), ("taught", {"self_training": {**SETTINGS, "precision": 0.01}})):
        record = fit(write_recipe(name, **keys, **more), folder, folder / name, quiet=True)
        found[name] = RunFolder(folder / name).weights()
        assert record.trained is not None
        assert record.trained.encoder == 0
    assert record.phases[-1].steps > 0
    changed = {name for name, array in found["plain"].items() if not np.array_equal(array, found["taught"][name])}
    assert changed == {"heads.intent.weight", "heads.intent.bias"}


@pytest.mark.parametrize("freeze", ["encoder", 2])
def test_guesses_that_reach_nothing_that_ships_are_refused_in_the_check_and_in_the_training(
    few: Path, base: Path, tmp_path: Path, write_recipe: WriteRecipe, freeze: Any
) -> None:
    write_jsonl(few / "unlabelled.jsonl", [{"text": f"{row['text']} {at}"} for at, row in enumerate(rows(20, 9))])
    keys = {**SHORT, "few_rows": 20, "probe": True, "encoder": str(base), "self_training": SETTINGS}
    path = write_recipe(**keys, freeze=freeze)
    message = r"tiny\.yaml:\d+: self_training: has no effect: the encoder stays as it is, and the head of intent, which has few rows"
    (problem,) = check_data(load_recipe(path), few).problems
    assert re.search(message, problem)
    with pytest.raises(SetupError, match=message):
        fit(path, few, tmp_path / "run", quiet=True)
    assert check_data(load_recipe(write_recipe(**keys, freeze=1)), few).problems == []
    named = {"intent": {**INTENT["intent"], "validation": "test.jsonl"}}
    assert check_data(load_recipe(write_recipe(**{**keys, "tasks": named}, freeze=freeze)), few).problems == []


def test_of_each_label_the_surest_are_learned_and_no_more_than_of_the_others() -> None:
    scores = np.array([0.9, 0.99, 0.95, 0.7, 0.8, 0.3])
    assert choose_balanced(scores, [0, 0, 0, 1, 1, 1], 0.5, 2) == [1, 2, 3, 4]
    assert choose_balanced(scores, [0, 0, 0, 1, 1, 1], 0.999, 2) == []


@pytest.mark.parametrize("step", [3, 5], ids=["before", "in its second step"])
def test_it_is_a_phase_whose_outcome_is_said_and_an_interrupted_one_goes_on_to_the_same_bytes(
    folder: Path, write_recipe: WriteRecipe, step: int
) -> None:
    path = write_recipe(self_training=SETTINGS, save_minutes=0, budget={"steps": 3, "evaluations": 1}, **SHORT)

    def change_texts(run: Path) -> None:
        texts = (folder / "unlabelled.jsonl").read_text()
        others = [{"text": "quite another text"}, *[{"text": f"one more {n}"} for n in range(30)]]
        write_jsonl(folder / "unlabelled.jsonl", others)
        with pytest.raises(CannotResume):
            fit(path, folder, run, quiet=True, resume=True)
        (folder / "unlabelled.jsonl").write_text(texts)

    whole = assert_resumed_equals_whole(path, folder, folder, step=step, meanwhile=change_texts).whole
    assert [each.name for each in whole.phases] == ["labelled", "self_training"]
    assert set(whole.data_files) == {"train.jsonl", "test.jsonl", "unlabelled.jsonl"}
    note = whole.data["intent"].notes[-1]
    assert note.startswith("self-training: ")
    assert " of 60 texts with guesses of " in note
    assert note.endswith((": kept", ": not kept"))
    assert "points [" in note


@pytest.mark.parametrize("save_minutes", [0, 5])
def test_what_validation_is_worse_with_is_undone_and_again_after_a_kill_meanwhile(
    folder: Path, write_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch, save_minutes: int
) -> None:
    budget = {"steps": 12, "evaluations": 1}
    plain = write_recipe("plain", budget={"evaluations": 1}, **{**SHORT, "phases": [{"name": "labelled", "steps": 12}]})
    fit(plain, folder, folder / "plain", quiet=True)
    guess = phase._add

    def mislead(part: Any, ids: Any, logits: Any) -> Any:
        return guess(part, ids, 50 * np.roll(logits, 1, axis=1))  # each text is learned as another label

    monkeypatch.setattr(phase, "_add", mislead)
    wrong = {**SETTINGS, "per_label": 60, "weight": 50.0, "epochs": 1}
    path = write_recipe("misled", self_training=wrong, budget=budget, save_minutes=save_minutes, **SHORT)
    record = fit(path, folder, folder / "misled", quiet=True)
    assert record.data["intent"].notes[-1].endswith(": not kept")
    assert record.validation["intent"] == record.phases[0].validation["intent"]
    a, b = (RunFolder(folder / name).weights() for name in ("plain", "misled"))
    assert all(np.array_equal(a[name], b[name]) for name in a)

    def stop(*given: Any) -> None:
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(phase, "note_outcome", stop)  # the weights are back, and nothing has been written of it
        with pytest.raises(Stopped):
            fit(path, folder, folder / "killed", quiet=True)
    resumed = fit(path, folder, folder / "killed", quiet=True, resume=True)
    assert resumed.model_dump(exclude={"cpu_seconds"}) == record.model_dump(exclude={"cpu_seconds"})
    assert not list((folder / "killed").glob("phase-*"))


def test_its_weight_is_that_of_guessed_texts_alone_and_the_others_are_held_as_the_recipe_says(
    folder: Path, write_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def look(run: Any, *given: Any, **keys: Any) -> Any:
        if run.standing.phase:
            seen.append(run)
            raise Stopped
        return learn(run, *given, **keys)

    learn = loop.compute_gradient
    monkeypatch.setattr(loop, "compute_gradient", look)
    tasks = {**INTENT, "places": RECIPE["tasks"]["places"]}
    keys = {**SHORT, "tasks": tasks, "hold": {"weight": 3.0}, "budget": {"steps": 3, "evaluations": 1}}
    with pytest.raises(Stopped):
        fit(write_recipe(self_training={**SETTINGS, "weight": 0.25}, **keys), folder, folder / "run", quiet=True)
    (run,) = seen
    intent, places = run.train
    guesses = [*intent.guessed]
    assert guesses
    assert not intent.held
    assert set(places.held) == {*range(len(places.ids))}
    with torch.no_grad():  # the network is that whose answers are held until it changes
        for parameter in run.model.encoder.encoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    soft = replace(run.train[0], held={1: Held(np.array([3, 0, -3], np.float32), np.ones(3, bool))})
    run.train[0] = soft  # a row marked `soft` beside a row with a label and a guess
    rows = [0, 1, guesses[0]]
    found = measure_losses(run, [(0, rows), (1, [0, 1])])
    now = torch.tensor(np.stack(logits_of(run.model, 0, [soft.ids[row] for row in rows], device="cpu", bf16=False)))
    guess = torch.tensor(soft.guessed[guesses[0]].logits)
    of_label = F.cross_entropy(now[0], torch.tensor(int(soft.targets[0])))
    of_soft = 3 * 4 * divergence(torch.tensor([3.0, 0, -3]) / 2, now[1] / 2)
    assert found[0] == pytest.approx(float(of_label + of_soft + 0.25 * divergence(guess, now[2])) / 3, rel=1e-4)
    texts = [places.ids[row] for row in (0, 1)]
    words = [
        (before, after)
        for row, answers in enumerate(logits_of(run.model, 1, texts, device="cpu", bf16=False))
        for before, after, target in zip(places.held[row].logits, answers, places.targets[row], strict=True)
        if target >= 0
    ]
    held = [divergence(torch.tensor(before) / 2, torch.tensor(after) / 2) for before, after in words]
    assert found[1] == pytest.approx(3 * 4 * float(torch.stack(held).mean()), rel=1e-4)
    assert found[1] > 1e-3


def divergence(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """KL(softmax(before) || softmax(after))."""
    return F.kl_div(after.log_softmax(-1), before.log_softmax(-1), reduction="sum", log_target=True)


def test_a_guess_in_a_step_that_is_not_finite_is_saved_with_its_text(
    folder: Path, write_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [json.loads(line)["text"] for line in (folder / "unlabelled.jsonl").read_text().splitlines()]
    learn = loop.compute_gradient

    def fail_in_the_last_phase(run: Any, *given: Any, **keys: Any) -> Any:
        found = learn(run, *given, **keys)
        return replace(found, norm=math.inf) if run.standing.phase else found

    monkeypatch.setattr(loop, "compute_gradient", fail_in_the_last_phase)
    path = write_recipe(self_training={**SETTINGS, "weight": 50.0}, budget={"steps": 3, "evaluations": 1}, **SHORT)
    with pytest.raises(SetupError, match="the gradient is inf"):
        fit(path, folder, folder / "run", quiet=True)
    rows = json.loads((folder / "run" / "failed_step.json").read_text())["rows"]["intent"]
    guessed = [row for row in rows if row["place"].endswith(" of 60 of self-training")]
    assert guessed
    assert [row["given"] for row in guessed] == [texts[int(row["place"].split()[1]) - 1] for row in guessed]


def test_without_a_sure_guess_nothing_is_learned_and_it_is_said(
    folder: Path, write_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(phase, "choose_threshold", lambda scores, right, precision: None)
    keys = {**SHORT, "budget": {"steps": 1, "evaluations": 1}}
    path = write_recipe(self_training=SETTINGS, **keys)
    record = fit(path, folder, folder / "run", quiet=True)
    assert "self-training: nothing is learned: " in record.data["intent"].notes[-1]
    assert record.steps == 1


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"self_training": {"texts": "a.txt", "task": "mood"}}, "self_training.task: no classification 'mood'"),
        ({"self_training": {"texts": "a.txt"}, "tasks": RECIPE["tasks"] | {"mood": INTENT["intent"]}}, "expected one"),
        ({"self_training": {"texts": "a.txt"}, "phases": [{"name": "self_training"}]}, "rename the other one"),
        ({"self_training": {"texts": "a.txt"}, "encoder": {"source": "models/a", "frozen": True}}, "is frozen"),
    ],
)
def test_a_mistake_is_one_line(write_recipe: WriteRecipe, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(SetupError, match=message):
        with_self_training(load_recipe(write_recipe(**{"tasks": INTENT, **keys})))


def test_texts_that_are_all_rows_are_refused(folder: Path, write_recipe: WriteRecipe) -> None:
    path = write_recipe(self_training={"texts": "train.jsonl"}, **SHORT)
    with pytest.raises(SetupError, match=r"self_training.texts: all \d+ texts are rows of intent"):
        fit(path, folder, folder / "run", quiet=True)
