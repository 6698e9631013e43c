"""A classification with few rows: its head begins from logistic regression, and the names of its labels are rows, too."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from tiny_few_rows import INTENT, PLAIN
from tiny_loop import write_job
from tiny_training import RECIPE, write_jsonl

from murmura.runtime.model.folders.folder import read_manifest
from murmura.schemas.manifest import Calibration
from murmura.training.export.export import export
from murmura.training.fit.loop import fit
from murmura.training.fit.probe.head_start import begin_heads
from murmura.training.fit.probe.probe import Frozen, probe_tasks
from murmura.training.fit.probe.regression import fit_regression
from murmura.training.fit.setup import Fitting
from murmura.training.fit.start.few_rows import ENCODER_LR
from murmura.training.mix.corrections import Corrections
from murmura.training.mix.plan import plan_mix
from murmura.training.model.network import logits_of
from murmura.training.prepare.label_names import name_rows
from murmura.training.recipe.job import read_job
from murmura.training.retrain.limits import keep_limits
from murmura.training.run_folders.run_folder import RunFolder

WriteRecipe = Callable[..., Path]


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
    run = open_run(few, encoder=str(tmp_path / "model"), few_rows=0)
    before = run.model.heads[0].weight.detach().clone()
    begin_heads(run, probe_tasks(run))
    assert run.few == set()
    assert np.array_equal(run.model.heads[0].weight.detach(), before)


def test_a_head_that_learned_the_rows_held_back_begins_anew_without_them(
    few: Path, base: Path, tmp_path: Path, write_recipe: WriteRecipe, open_run: Callable[..., Fitting]
) -> None:
    recipe = write_recipe(encoder=str(base), tasks={"intent": INTENT}, **PLAIN)
    fit(recipe, few, tmp_path / "trained", quiet=True)
    export(tmp_path / "trained", tmp_path / "model")
    run = open_run(few, encoder=str(tmp_path / "model"))
    begin_heads(run, probe_tasks(run))
    states = Frozen.of_run(run).embed(0, run.tasks[0].train)
    without, _, _ = fit_regression(states, [row.labels[0] for row in run.tasks[0].train])
    assert np.allclose(run.model.heads[0].weight.detach(), without, atol=1e-3)
    assert run.data["intent"].learned_validation == 0
    assert run.data["intent"].notes == []


def test_who_goes_on_from_a_head_that_learned_the_rows_held_back_is_told(
    few: Path, base: Path, tmp_path: Path, write_recipe: WriteRecipe
) -> None:
    encoder, held_back = str(base), 0
    for name in ("first", "second", "third"):
        lines: list[str] = []
        keys = {**PLAIN, "few_rows": 20 if name == "first" else 0}
        recipe = write_recipe(encoder=encoder, tasks={"intent": INTENT}, **keys)
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
