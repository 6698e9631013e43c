"""A classification with few rows: its head begins from logistic regression, and the names of its labels are rows, too."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_loop import write_job
from tiny_training import RECIPE, rows, write_jsonl

from murmura.runtime.model.folder import read_manifest
from murmura.schemas.manifest import Calibration
from murmura.training.export.export import export
from murmura.training.fit.few_rows import ENCODER_LR, name_rows
from murmura.training.fit.head_finish import refit_heads
from murmura.training.fit.head_start import begin_heads
from murmura.training.fit.loop import Progress, fit
from murmura.training.fit.probe import Frozen, probe_tasks
from murmura.training.fit.regression import fit_regression
from murmura.training.fit.setup import Fitting, prepare
from murmura.training.mix.corrections import Corrections
from murmura.training.mix.plan import plan_mix
from murmura.training.model.network import logits_of
from murmura.training.recipe.job import read_job
from murmura.training.recipe.recipe import load_recipe
from murmura.training.retrain.limits import keep_limits
from murmura.training.run_folders.run_folder import RunFolder

WriteRecipe = Callable[..., Path]
INTENT: dict[str, Any] = {"train": "train.jsonl", "test": "test.jsonl"}
PLAIN = {"optimiser": {}, "budget": {"steps": 2, "evaluations": 1}, "precision": "fp32"}


@pytest.fixture
def few(tmp_path: Path) -> Path:
    """A folder with ten training rows a label."""
    folder = tmp_path / "few"
    folder.mkdir()
    write_jsonl(folder / "train.jsonl", rows(30, 1))
    write_jsonl(folder / "test.jsonl", rows(60, 2))
    return folder


@pytest.fixture
def open_run(base: Path, tmp_path: Path, write_recipe: WriteRecipe) -> Callable[..., Fitting]:
    """`open_run(data, few_rows=0)` prepares a run over the checkpoint with these keys of the recipe."""

    def opened(data: Path, **keys: Any) -> Fitting:
        keys = {"encoder": str(base), "tasks": {"intent": INTENT}, **PLAIN, **keys}
        return prepare(load_recipe(write_recipe(**keys)), data, RunFolder(tmp_path / "run"))

    return opened


def test_before_the_first_step_the_network_answers_as_the_regression(
    few: Path, open_run: Callable[..., Fitting]
) -> None:
    run = open_run(few)
    run.model.widen()
    probe = probe_tasks(run)["intent"]
    begin_heads(run, {"intent": probe})
    expected = Frozen.of_run(run).embed(0, run.tasks[0].validation) @ probe.weight.T + probe.bias
    answered = np.stack(logits_of(run.model, 0, run.validation[0].ids, device="cpu", bf16=False))
    assert np.allclose(answered, expected, atol=1e-3)
    assert np.array_equal(answered.argmax(1), expected.argmax(1))


def test_few_rows_begin_from_it_and_many_do_not(few: Path, data: Path, open_run: Callable[..., Fitting]) -> None:
    assert open_run(few).few == {"intent"}
    assert open_run(few, few_rows=5).few == set()
    assert open_run(few, few_rows=0).few == set()
    assert open_run(data).few == set()
    assert open_run(few, encoder=RECIPE["encoder"]).few == set()
    assert open_run(few, probe=False).few == set()


def test_repeats_do_not_make_few_rows_many(few: Path, open_run: Callable[..., Fitting]) -> None:
    often = {**INTENT, "train": {"path": "train.jsonl", "repeat": 9, "typo_copies": 1}}
    assert open_run(few, tasks={"intent": often}).few == {"intent"}


def test_the_encoder_learns_slowly_only_where_every_task_has_few_rows(
    few: Path, data: Path, open_run: Callable[..., Fitting]
) -> None:
    assert open_run(few).recipe.encoder_lr == ENCODER_LR
    assert open_run(few, optimiser={"encoder_lr": 3e-4}).recipe.encoder_lr == 3e-4
    assert open_run(few, few_rows=0).recipe.encoder_lr == 2e-4
    many = {"train": f"{data}/train.jsonl", "test": f"{data}/test.jsonl"}
    both = open_run(few, tasks={"intent": INTENT, "other": many})
    assert (both.few, both.recipe.encoder_lr) == ({"intent"}, 2e-4)


def test_the_names_of_the_labels_are_learned_but_counted_as_no_rows(
    few: Path, open_run: Callable[..., Fitting]
) -> None:
    run, without = open_run(few), open_run(few, few_rows=0)
    assert len(run.train[0].ids) == len(without.train[0].ids) + 3
    assert run.data["intent"].parts == without.data["intent"].parts
    assert [int(target) for target in run.train[0].targets[-3:]] == [0, 1, 2]


def test_a_name_is_read_as_words_and_the_one_out_of_scope_not_at_all(
    tmp_path: Path, open_run: Callable[..., Fitting]
) -> None:
    labels = ["lost_card", "top-up.limits", "42", "旅行", "other"]
    write_jsonl(tmp_path / "train.jsonl", [{"text": f"{label} {n}", "label": label} for label in labels for n in "abc"])
    tasks = {"intent": {"train": "train.jsonl", "labels": labels, "out_of_scope": "other"}}
    found = name_rows(open_run(tmp_path, tasks=tasks, allow_unknown=True).tasks[0])
    assert [(row.text, row.labels[0]) for row in found] == [
        ("lost card", "lost_card"),
        ("top up limits", "top-up.limits"),
        ("旅行", "旅行"),
    ]


def test_a_run_says_that_its_head_began_from_it(
    few: Path, base: Path, tmp_path: Path, write_recipe: WriteRecipe
) -> None:
    lines: list[str] = []
    recipe = write_recipe(encoder=str(base), tasks={"intent": INTENT}, **PLAIN)
    record = fit(recipe, few, tmp_path / "run", quiet=True, print_line=lines.append)
    probe = record.data["intent"].probe
    assert probe is not None
    assert probe.begins
    assert any(line.endswith("few rows: the head begins from it, and the labels' names are learned") for line in lines)


def test_a_head_that_goes_on_from_a_model_is_left_as_it_is(
    few: Path, base: Path, tmp_path: Path, write_recipe: WriteRecipe, open_run: Callable[..., Fitting]
) -> None:
    recipe = write_recipe(encoder=str(base), tasks={"intent": INTENT}, **PLAIN)
    fit(recipe, few, tmp_path / "trained", quiet=True)
    export(tmp_path / "trained", tmp_path / "model")
    run = open_run(few, encoder=str(tmp_path / "model"))
    before = run.model.heads[0].weight.detach().clone()
    begin_heads(run, probe_tasks(run))
    assert run.few == set()
    assert np.array_equal(run.model.heads[0].weight.detach(), before)


def test_the_head_that_ships_learned_the_rows_held_back_and_the_temperature_did_not(
    few: Path, open_run: Callable[..., Fitting]
) -> None:
    run = open_run(few)
    run.model.widen()
    begin_heads(run, probe_tasks(run))
    finished = refit_heads(run)
    validated = run.model.heads[0].weight.detach().numpy().copy()
    states = Frozen.of_run(run).embed(0, [*run.tasks[0].train, *name_rows(run.tasks[0]), *run.tasks[0].validation])
    labels = [*(row.labels[0] for part in (run.tasks[0].train, name_rows(run.tasks[0])) for row in part)]
    without, _, _ = fit_regression(states[: len(labels)], labels)
    labels += [row.labels[0] for row in run.tasks[0].validation]
    everything, _, _ = fit_regression(states, labels)
    assert np.allclose(validated, without, atol=1e-3)
    assert np.allclose(finished[0][0], everything, atol=1e-3)
    assert not np.allclose(without, everything, atol=1e-3)


def test_rows_that_the_recipe_names_for_validation_are_never_learned(
    few: Path, open_run: Callable[..., Fitting]
) -> None:
    named = {**INTENT, "validation": "test.jsonl"}
    run = open_run(few, tasks={"intent": named})
    run.model.widen()
    begin_heads(run, probe_tasks(run))
    assert refit_heads(run) == {}


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
    assert np.array_equal(weights["heads.intent.weight"], seen[0][0][0])
    assert record.tasks[0].calibration_rows == record.data["intent"].parts["validation"].rows
    assert not (tmp_path / "run" / "state.safetensors").exists()
    export(tmp_path / "run", tmp_path / "model")


def test_a_run_that_was_interrupted_ends_with_the_same_weights(
    few: Path, base: Path, tmp_path: Path, write_recipe: WriteRecipe
) -> None:
    class Killed(Exception):
        pass

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


def test_who_goes_on_from_a_head_that_learned_the_rows_held_back_is_told(
    few: Path, base: Path, tmp_path: Path, write_recipe: WriteRecipe
) -> None:
    encoder, held_back = str(base), 0
    for name in ("first", "second", "third"):
        lines: list[str] = []
        recipe = write_recipe(encoder=encoder, tasks={"intent": INTENT}, **PLAIN)
        record = fit(recipe, few, tmp_path / f"{name}.run", quiet=True, print_line=lines.append)
        held_back = held_back or record.data["intent"].parts["validation"].rows
        assert record.data["intent"].learned_validation == held_back > 0
        noted = any(f"has learned {held_back} rows that were held back" in line for line in lines)
        assert noted == (name != "first")
        export(tmp_path / f"{name}.run", tmp_path / name)
        encoder = str(tmp_path / name)


def test_a_retraining_keeps_the_limits_of_a_task_whose_validation_rows_were_learned(
    few: Path, base: Path, tmp_path: Path, write_recipe: WriteRecipe
) -> None:
    for name, encoder in (("first", base), ("second", tmp_path / "first")):
        recipe = write_recipe(encoder=str(encoder), tasks={"intent": INTENT}, **PLAIN)
        fit(recipe, few, tmp_path / f"{name}.run", quiet=True)
        export(tmp_path / f"{name}.run", tmp_path / name)
    current = read_manifest(tmp_path / "first")
    task = current.tasks[0].model_copy(update={"calibration": Calibration(temperature=1.75), "calibration_rows": 7})
    job = write_job(tmp_path, tmp_path, old={"recipe": str(recipe), "data": str(few)})
    corrections = {"intent": Corrections(task, [], [], [])}
    mix = plan_mix(read_job(job).value, current.model_copy(update={"tasks": [task]}), corrections)
    keep_limits(tmp_path / "second.run", mix)
    (kept,) = RunFolder(tmp_path / "second.run").record().tasks
    assert (kept.calibration.temperature, kept.calibration_rows) == (1.75, 7)
    notes = RunFolder(tmp_path / "second.run").record().data["intent"].notes
    assert any("the current version has learned its old validation rows" in note for note in notes)
