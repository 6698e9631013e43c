"""The head of a task with few rows learns the rows that were held back, and is calibrated on scores without them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_few_rows import INTENT, PLAIN
from tiny_training import rows, write_jsonl

from murmura.training.export.export import export
from murmura.training.fit.check_data import check_data
from murmura.training.fit.finish.head_finish import _folds, _rows_of, refit_heads
from murmura.training.fit.loop import Progress, fit
from murmura.training.fit.probe.head_start import begin_heads
from murmura.training.fit.probe.probe import Frozen, probe_tasks
from murmura.training.fit.probe.regression import fit_regression
from murmura.training.fit.progress.validation import finished_specs
from murmura.training.fit.setup import Fitting
from murmura.training.prepare.label_names import name_rows
from murmura.training.prepare.tasks import originals
from murmura.training.recipe.recipe import load_recipe
from murmura.training.run_folders.run_folder import RunFolder

WriteRecipe = Callable[..., Path]


class Killed(BaseException):
    """Ends a run as a kill does: nothing catches it."""


def begun(run: Fitting) -> Fitting:
    """Return the run as it is after its last step, of none."""
    run.model.widen()
    begin_heads(run, probe_tasks(run))
    return run


def test_the_head_that_ships_learned_the_rows_held_back(few: Path, open_run: Callable[..., Fitting]) -> None:
    run = begun(open_run(few))
    parts = (run.tasks[0].train, name_rows(run.tasks[0]), run.tasks[0].validation)
    states = Frozen.of_run(run).embed(0, [row for part in parts for row in part])
    everything, _, _ = fit_regression(states, [row.labels[0] for part in parts for row in part])
    assert np.allclose(refit_heads(run).heads[0][0], everything, atol=1e-3)


def test_a_row_held_back_is_scored_without_what_its_own_label_teaches(
    few: Path, open_run: Callable[..., Fitting], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begun(open_run(few, tasks={"intent": {**INTENT, "validation_share": 0.4}}))
    validation = run.tasks[0].validation
    folds = [*_folds(validation, run.recipe.data_seed)]  # a label decides in which fold its rows lie
    monkeypatch.setattr("murmura.training.fit.finish.head_finish._folds", lambda examples, seed: folds)
    before = refit_heads(run)
    other = next(label for label in run.tasks[0].labels if label not in validation[0].labels)
    validation[0] = replace(validation[0], labels=(other,))
    after = refit_heads(run)
    changed = [not np.allclose(a, b) for a, b in zip(before.out_of_fold[0], after.out_of_fold[0], strict=True)]
    assert not changed[0]
    assert any(changed)
    assert not np.allclose(before.heads[0][0], after.heads[0][0])


def test_temperature_and_thresholds_are_chosen_on_the_scores_without(
    few: Path, open_run: Callable[..., Fitting]
) -> None:
    run = begun(open_run(few, tasks={"intent": {**INTENT, "validation_share": 0.4}}))
    index, rows_held_back = {label: at for at, label in enumerate(run.tasks[0].labels)}, run.tasks[0].validation
    sure_and_wrong = [np.eye(3)[(index[row.labels[0]] + 1) % 3] * 20 for row in rows_held_back]
    sure_and_right = [np.eye(3)[index[row.labels[0]]] * 20 for row in rows_held_back]
    temperatures = [
        finished_specs(run, {0: logits})[0].calibration.temperature for logits in (sure_and_right, sure_and_wrong)
    ]
    assert temperatures[0] < 1.1 < 2 < temperatures[1]


def test_rows_that_are_all_repeated_weigh_as_those_held_back(few: Path, open_run: Callable[..., Fitting]) -> None:
    often = {**INTENT, "train": {"path": "train.jsonl", "repeat": 4}}
    run = begun(open_run(few, tasks={"intent": often}))
    parts = (originals(run.tasks[0].train), name_rows(run.tasks[0]), run.tasks[0].validation)
    states = Frozen.of_run(run).embed(0, [row for part in parts for row in part])
    # Names are learned once in an epoch of rows that come four times.
    weights = np.concatenate([np.full(len(part), 0.25 if at == 1 else 1.0) for at, part in enumerate(parts)])
    expected, _, _ = fit_regression(states, [row.labels[0] for part in parts for row in part], weights)
    assert np.allclose(refit_heads(run).heads[0][0], expected, atol=0.02 * np.abs(expected).max())


def test_a_row_held_back_weighs_as_the_rows_of_its_file(few: Path, open_run: Callable[..., Fitting]) -> None:
    made = rows(30, 1)
    write_jsonl(few / "one.jsonl", made[:15])
    write_jsonl(few / "other.jsonl", made[15:])
    train = [{"path": "one.jsonl", "repeat": 5}, "other.jsonl"]
    run = begun(open_run(few, tasks={"intent": {**INTENT, "train": train, "validation_share": 0.4}}))
    data = run.tasks[0]
    weights = _rows_of(run, 0, data, data.validation).weights
    files = [Path(row.place.rpartition(":")[0]).name for row in data.validation]
    assert {round(float(w) * len(data.train) / len(originals(data.train)), 6) for w in weights} == {1.0, 5.0}
    assert {name for name, weight in zip(files, weights, strict=True) if weight > 1} == {"one.jsonl"}


@pytest.mark.parametrize("class_weights", [{"lost": 30.0, "other": 0.5}, "balanced"])
def test_rows_count_by_their_label_in_the_head_that_ships_and_in_the_scores_without(
    few: Path, open_run: Callable[..., Fitting], class_weights: Any
) -> None:
    made = rows(90, 1)
    unlike = [row for at, row in enumerate(made) if row["label"] == "lost" or at % 9 == 1 or at % 9 == 2]
    write_jsonl(few / "train.jsonl", unlike)
    tasks = {"intent": {**INTENT, "validation_share": 0.3}}
    plain = refit_heads(begun(open_run(few, tasks=tasks, few_rows=100)))
    run = begun(open_run(few, tasks={"intent": {**tasks["intent"], "class_weights": class_weights}}, few_rows=100))
    data, found = run.tasks[0], refit_heads(run)
    every = [row for part in (data.train, name_rows(data), data.validation) for row in part]
    by_label = dict(zip(data.labels, data.class_weights or (), strict=True))
    assert len(set(by_label.values())) > 1
    states = Frozen.of_run(run).embed(0, every)
    weights = np.array([by_label[row.labels[0]] for row in every])
    expected, _, _ = fit_regression(states, [row.labels[0] for row in every], weights)
    assert np.allclose(found.heads[0][0], expected, atol=0.02 * np.abs(expected).max())
    assert not np.allclose(found.heads[0][0], plain.heads[0][0], atol=0.02 * np.abs(expected).max())
    assert not np.allclose(found.out_of_fold[0], plain.out_of_fold[0], atol=0.05)


UNREACHED: dict[str, tuple[dict[str, Any], str]] = {
    "loss": (
        {"label_smoothing": 0.1, "tasks": {"intent": {**INTENT, "focal": 2.0, "class_weights": "balanced"}}},
        "`tasks.intent.focal`, `label_smoothing` act on the encoder alone",
    ),
    "rate": ({"optimiser": {"head_lr": 0.1, "encoder_lr": 1e-4}}, "`optimiser.head_lr` acts on the encoder alone"),
    "frozen": (
        {"freeze": "encoder", "dropout": 0.3, "optimiser": {"clip": 2.0}, "tasks": {"intent": {**INTENT, "epochs": 2}}},
        "`optimiser.clip`, `budget`, `dropout`, `tasks.intent.epochs` have no effect: the encoder stays as it is",
    ),
    "frozen by its number of layers": (
        {"freeze": 2, "dropout": 0.1},
        "`budget` has no effect: the encoder stays as it is",
    ),
    "frozen behind a pre-training": (
        {"freeze": "encoder", "pretrain": {"steps": 1}, "optimiser": {"clip": 2.0}, "budget": {}, "dropout": 0.1},
        "",
    ),
    "enough rows": ({"few_rows": 0, "label_smoothing": 0.1}, ""),
    "named rows to validate on": (
        {"label_smoothing": 0.1, "tasks": {"intent": {**INTENT, "validation": "test.jsonl"}}},
        "",
    ),
}
"""Keys of a recipe, and what is said of those that do not reach the head that ships."""


@pytest.mark.parametrize("case", UNREACHED)
def test_keys_that_do_not_reach_the_head_that_ships_are_said(
    base: Path, few: Path, write_recipe: WriteRecipe, case: str
) -> None:
    keys, said = UNREACHED[case]
    budget = {"evaluations": 2} if "epochs" in str(keys.get("tasks")) else PLAIN["budget"]
    recipe = write_recipe(**{"encoder": str(base), "tasks": {"intent": INTENT}, **PLAIN, "budget": budget, **keys})
    found = check_data(load_recipe(recipe), few)
    assert found.problems == []
    begins = (
        "note: few rows: the heads of intent are fitted once more by logistic regression after the last step, so that "
    )
    assert [note for note in found.notes if note.startswith("note: few rows")] == ([begins + said] if said else [])


def test_a_phase_that_trains_heads_alone_which_are_fitted_once_more_is_said_to_have_no_effect(
    base: Path, few: Path, write_recipe: WriteRecipe
) -> None:
    phases = [{"name": "whole", "steps": 1}, {"name": "head", "steps": 1, "freeze": "encoder"}]
    two = {"intent": INTENT, "places": {"kind": "tagging", "train": "train.jsonl"}}
    budget = {"evaluations": 1}
    for tasks, said in (({"intent": INTENT}, 1), (two, 0)):
        recipe = write_recipe(**{"encoder": str(base), **PLAIN, "budget": budget, "tasks": tasks}, phases=phases)
        notes = [
            note for note in check_data(load_recipe(recipe), few).notes if note.startswith("note: few rows: phase")
        ]
        assert notes == said * [
            "note: few rows: phase head has no effect: heads alone are trained, and those of intent are fitted once more by logistic "
            "regression after the last step"
        ]
    recipe = write_recipe(
        **{"encoder": str(base), **PLAIN, "budget": budget, "tasks": {"intent": INTENT}}, phases=phases[::-1]
    )
    assert not any(
        "phase head" in note for note in check_data(load_recipe(recipe), few).notes
    )  # the encoder learns by that head


def test_a_label_without_rows_is_never_the_most_likely_one(few: Path, open_run: Callable[..., Fitting]) -> None:
    labels = ["lost", "other", "transfer", "42"]
    run = begun(open_run(few, tasks={"intent": {**INTENT, "labels": labels}}))
    weight, bias = refit_heads(run).heads[0]
    logits = np.random.default_rng(0).normal(0, 3, (500, weight.shape[1])) @ weight.T + bias
    assert (logits.argmax(1) != 3).all()
    assert np.allclose(weight[3], weight[:3].mean(0), atol=1e-5)


def test_rows_that_the_recipe_names_for_validation_are_never_learned(
    few: Path, open_run: Callable[..., Fitting]
) -> None:
    named = {**INTENT, "validation": "test.jsonl"}
    run = open_run(few, tasks={"intent": named})
    run.model.widen()
    begin_heads(run, probe_tasks(run))
    assert refit_heads(run).heads == {}


def test_the_exported_model_has_the_head_that_learned_all_rows(
    few: Path, base: Path, tmp_path: Path, write_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def noted(run: Fitting) -> Any:
        seen.append(refit_heads(run))
        return seen[-1]

    monkeypatch.setattr("murmura.training.fit.loop.refit_heads", noted)
    recipe = write_recipe(encoder=str(base), tasks={"intent": INTENT}, **PLAIN)
    record = fit(recipe, few, tmp_path / "run", quiet=True)
    weights = RunFolder(tmp_path / "run").weights()
    assert np.array_equal(weights["heads.intent.weight"], seen[0].heads[0][0])
    assert record.tasks[0].calibration_rows == record.data["intent"].parts["validation"].rows
    assert not (tmp_path / "run" / "state.safetensors").exists()
    export(tmp_path / "run", tmp_path / "model")


def test_a_run_that_was_interrupted_ends_with_the_same_weights(
    few: Path, base: Path, tmp_path: Path, write_recipe: WriteRecipe
) -> None:
    def kill(progress: Progress) -> None:
        raise Killed

    budget = {"steps": 4, "evaluations": 2}
    recipe = write_recipe(encoder=str(base), tasks={"intent": INTENT}, **{**PLAIN, "budget": budget}, save_minutes=0)
    fit(recipe, few, tmp_path / "whole", quiet=True)
    with pytest.raises(Killed):
        fit(recipe, few, tmp_path / "killed", quiet=True, on_progress=kill)
    record = fit(recipe, few, tmp_path / "killed", quiet=True, resume=True)
    a, b = (RunFolder(tmp_path / name).weights() for name in ("whole", "killed"))
    assert record.steps == 4
    assert all(np.array_equal(a[name], b[name]) for name in a)


def test_a_run_killed_before_its_record_is_written_goes_on_behind_its_last_step(
    few: Path, base: Path, tmp_path: Path, write_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(*_: object) -> None:
        raise Killed

    recipe = write_recipe(encoder=str(base), tasks={"intent": INTENT}, **PLAIN, save_minutes=0)
    fit(recipe, few, tmp_path / "whole", quiet=True)
    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "save_record", kill)
        with pytest.raises(Killed):
            fit(recipe, few, tmp_path / "killed", quiet=True)
    monkeypatch.setattr("murmura.training.fit.loop.compute_gradient", kill)
    fit(recipe, few, tmp_path / "killed", quiet=True, resume=True)
    a, b = (RunFolder(tmp_path / name).weights() for name in ("whole", "killed"))
    assert all(np.array_equal(a[name], b[name]) for name in a)


def test_a_run_killed_between_its_record_and_its_weights_is_whole_when_it_is_read(
    few: Path, base: Path, tmp_path: Path, write_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write_recipe(encoder=str(base), tasks={"intent": INTENT}, **PLAIN, save_minutes=0)
    fit(recipe, few, tmp_path / "whole", quiet=True)
    replace_file = Path.replace

    def kill(path: Path, target: Path) -> Path:
        if target.name == "checkpoint.safetensors" and (tmp_path / "killed" / "run.json").is_file():
            raise Killed
        return replace_file(path, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", kill)
        with pytest.raises(Killed):
            fit(recipe, few, tmp_path / "killed", quiet=True)
    fit(recipe, few, tmp_path / "killed", quiet=True, resume=True)
    a, b = (RunFolder(tmp_path / name).weights() for name in ("whole", "killed"))
    assert all(np.array_equal(a[name], b[name]) for name in a)
    assert not (tmp_path / "killed" / "state.safetensors").exists()
