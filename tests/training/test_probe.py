"""Logistic regression on the frozen encoder, beside the score of a classification."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_training import RECIPE, rows, write_jsonl

from murmura.schemas.manifest import ModelManifest
from murmura.training.evaluate.evaluate import evaluate
from murmura.training.export.export import export
from murmura.training.fit.loop import fit
from murmura.training.fit.probe import further_kinds
from murmura.training.fit.probe.frozen import Frozen, draw_rows
from murmura.training.fit.probe.further_kinds import choose_shift, fit_flags
from murmura.training.fit.probe.probe import probe_tasks
from murmura.training.fit.probe.regression import fit_regression
from murmura.training.fit.setup import prepare
from murmura.training.prepare.data_report import PROBE
from murmura.training.recipe.recipe import load_recipe
from murmura.training.run_folders.run_folder import RunFolder

WriteRecipe = Callable[..., Path]
TASKS = RECIPE["tasks"]
SHORT = {"steps": 2, "evaluations": 1}


@pytest.fixture
def recipe(base: Path, tmp_path: Path, write_recipe: WriteRecipe) -> Path:
    """All three kinds over a checkpoint, two steps; a further set of nine rows."""
    write_jsonl(tmp_path / "own.jsonl", rows(9, 8))
    intent = {**TASKS["intent"], "reports": {"own messages": "./own.jsonl"}}
    return write_recipe(encoder=str(base), budget=SHORT, tasks={**TASKS, "intent": intent})


def test_the_probes_accuracy_stands_beside_the_tasks(recipe: Path, data: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    record = fit(recipe, data, tmp_path / "run", quiet=True, print_line=lines.append)
    probe = record.data["intent"].probe
    assert probe is not None
    assert (probe.rows, {name: score.rows for name, score in probe.scores.items()}) == (
        record.data["intent"].parts["train"].rows,
        {"test": 40, "own messages": 6},
    )
    assert probe.scores["test"].accuracy > 0.8
    shown = (
        f"frozen encoder + logistic regression on {probe.rows} training rows: test {probe.scores['test'].accuracy:.1%}"
    )
    assert any(line.startswith(f"intent: {shown}") for line in lines)

    export(tmp_path / "run", tmp_path / "model")
    scores = evaluate(tmp_path / "model", data, recipe=recipe)
    assert scores["intent"]["test"].figures["probe_accuracy"] == probe.scores["test"].accuracy
    assert scores["intent"]["own messages"].figures["probe_accuracy"] == probe.scores["own messages"].accuracy
    for task, figure in (("topics", "micro_f1"), ("places", "f1")):
        found, figures = record.data[task].probe, scores[task]["test"].figures
        assert found is not None
        assert figures[f"probe_{figure}"] == getattr(found.scores["test"], figure) > 0.7
        assert any(line.startswith(f"{task}: {PROBE} on {found.rows} training rows: test {figure} ") for line in lines)
    manifest = ModelManifest.model_validate_json((tmp_path / "model" / "manifest.json").read_bytes())
    assert manifest.metrics["intent"]["probe_accuracy"] == round(probe.scores["test"].accuracy, 4)
    report = (tmp_path / "model" / "report.md").read_text()
    assert "| probe_accuracy | " in report
    assert shown in report


def test_a_task_that_can_have_none_says_why(base: Path, data: Path, tmp_path: Path, write_recipe: WriteRecipe) -> None:
    scratch = write_recipe("scratch", budget=SHORT, tasks={"intent": TASKS["intent"]})
    record = fit(scratch, data, tmp_path / "scratch", quiet=True)
    assert record.data["intent"].probe is not None
    assert record.data["intent"].probe.reason == "an encoder from scratch has not learned anything"
    off = write_recipe("off", encoder=str(base), probe=False, budget=SHORT, tasks={"intent": TASKS["intent"]})
    record = fit(off, data, tmp_path / "off", quiet=True)
    assert record.data["intent"].probe is not None
    assert record.data["intent"].probe.reason == "the recipe says `probe: false`"
    alone = write_recipe("alone", encoder=str(base), budget=SHORT, tasks={"intent": {"train": "train.jsonl"}})
    record = fit(alone, data, tmp_path / "alone", quiet=True)
    assert record.data["intent"].probe is not None
    assert record.data["intent"].probe.reason == "there is no set to score it on"


def test_a_label_without_training_rows_is_never_the_probes_answer(
    base: Path, data: Path, tmp_path: Path, write_recipe: WriteRecipe
) -> None:
    intent = {"train": "train.jsonl", "test": "test.jsonl", "labels": ["absent", "lost", "other", "transfer"]}
    run = prepare(
        load_recipe(write_recipe(encoder=str(base), tasks={"intent": intent})), data, RunFolder(tmp_path / "run")
    )
    probe = probe_tasks(run)["intent"]
    answered = (Frozen.of_run(run).embed(0, run.tasks[0].test) @ probe.weight.T + probe.bias).argmax(1)
    assert set(answered) == {1, 2, 3}


def test_each_of_several_labels_has_a_regression_of_its_own_and_all_share_the_best_threshold() -> None:
    draw = np.random.default_rng(0)
    features = draw.normal(size=(200, 6)).astype(np.float32)
    flags = np.stack([features[:, 0] > 0, features[:, 1] > 1, np.zeros(200, bool), np.ones(200, bool)], axis=1)
    logits = np.stack([fit_flags(features, flags)(row) for row in features])
    assert (((logits > 0) == flags).mean(0) > 0.97).all()
    assert (logits[:, 2] < -1000).all()
    assert (logits[:, 3] > 1000).all()
    shifted = np.array([[2.0, -3.0], [1.0, -3.0], [-1.0, -4.0]])
    assert 1.0 < choose_shift(shifted, np.array([[1, 0], [0, 0], [0, 0]])) < 2.0


def test_few_rows_of_a_set_are_embedded_at_once_and_a_kind_without_a_main_figure_of_ours_has_no_score(
    recipe: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = prepare(load_recipe(recipe), data, RunFolder(tmp_path / "run"))
    whole, asked, embed = dict(run.data), [], Frozen.embed_part
    probe_tasks(run)
    found = {name: run.data[name].probe for name in ("topics", "places")}
    assert all(each is not None and each.scores["test"].rows == 60 for each in found.values())

    def count(frozen: Frozen, task: int, data: Any, examples: Any) -> Any:
        asked.append(len(examples))
        return embed(frozen, task, data, examples)

    monkeypatch.setattr(Frozen, "embed_part", count)
    monkeypatch.setattr(further_kinds, "CHUNK", 13)
    run.data = dict(whole)
    probe_tasks(run)
    assert {name: run.data[name].probe for name in found} == found
    learned = {each.rows for each in found.values() if each is not None}
    assert max(size for size in asked if size not in learned) == 13

    monkeypatch.setattr(type(run.tasks[2].kind), "metrics", lambda *given: {"main": 0.5, "macro_f1": 0.5})
    probe_tasks(run)
    assert run.data["places"].probe is not None
    assert run.data["places"].probe.scores == {}


def test_of_more_words_than_are_learned_each_tag_gives_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(0)
    states = [draw.normal(size=(6, 4)).astype(np.float32) for _ in range(100)]
    targets = [np.append(np.where(np.arange(6) % 5 == 0, -100, (each[:, 0] > 0).astype(int)), -200) for each in states]
    learned: list[int] = []

    def regression(features: Any, tags: list[int]) -> Any:
        learned.append(len(tags))
        return fit_regression(features, tags)

    monkeypatch.setattr(further_kinds, "fit_regression", regression)
    for most in (1000, 60):
        monkeypatch.setattr(further_kinds, "MOST_WORDS", most)
        head = further_kinds.fit_tags(states, targets, 3, 0)
        right = [
            (head(each).argmax(-1) == target[:6])[target[:6] >= 0].mean()
            for each, target in zip(states, targets, strict=True)
        ]
        assert np.mean(right) > 0.9
        assert head.bias[2] == further_kinds.NEVER
    assert learned == [400, 60]


def test_rows_of_another_set_get_no_figure_of_the_probe(recipe: Path, data: Path, tmp_path: Path) -> None:
    fit(recipe, data, tmp_path / "run", quiet=True)
    export(tmp_path / "run", tmp_path / "model")
    write_jsonl(tmp_path / "test.jsonl", rows(60, 3))
    figures = evaluate(tmp_path / "model", tmp_path, recipe=recipe)["intent"]["test"].figures
    assert figures["accuracy"] is not None
    assert "probe_accuracy" not in figures


def test_its_time_is_no_part_of_the_cpu_figure(
    recipe: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("murmura.training.fit.state.pace.time.process_time", lambda: now[0])

    def slow(run: object) -> dict[str, object]:
        now[0] += 1000
        return dict(probe_tasks(run))  # type: ignore[arg-type]

    monkeypatch.setattr("murmura.training.fit.loop.probe_tasks", slow)
    assert fit(recipe, data, tmp_path / "run", quiet=True).cpu_seconds == 0


def test_training_takes_the_same_steps_with_it(
    recipe: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit(recipe, data, tmp_path / "a", quiet=True)
    monkeypatch.setattr("murmura.training.fit.loop.probe_tasks", lambda run: {})
    fit(recipe, data, tmp_path / "b", quiet=True)
    a, b = (RunFolder(tmp_path / name).weights() for name in "ab")
    assert all(np.array_equal(a[name], b[name]) for name in a)


def test_of_many_rows_each_label_gives_its_share_and_at_least_one() -> None:
    labels = ["a"] * 900 + ["b"] * 90 + ["c"] * 10 + ["d"]
    drawn = draw_rows(labels, 100, 1)
    assert drawn == draw_rows(labels, 100, 1) != draw_rows(labels, 100, 2)
    assert [sum(labels[row] == label for row in drawn) for label in "abcd"] == [89, 9, 1, 1]


def test_regression_is_the_same_whatever_the_scale_of_the_features() -> None:
    draw = np.random.default_rng(0)
    features = draw.normal(size=(60, 8))
    labels = [str(number) for number in (features @ draw.normal(size=(8, 3))).argmax(1)]
    weight, bias, names = fit_regression(features, labels)
    scaled_weight, scaled_bias, _ = fit_regression(1000 * features, labels)
    assert names == ["0", "1", "2"]
    assert np.allclose(weight, 1000 * scaled_weight, rtol=1e-3, atol=1e-4)
    assert np.allclose(bias, scaled_bias, atol=1e-3)


def test_two_labels_get_a_row_of_weights_each() -> None:
    draw = np.random.default_rng(0)
    features = draw.normal(size=(60, 8))
    labels = ["yes" if row[0] > 0 else "no" for row in features]
    weight, bias, names = fit_regression(features, labels)
    answered = [names[best] for best in (features @ weight.T + bias).argmax(1)]
    assert weight.shape == (2, 8)
    assert np.mean([a == b for a, b in zip(answered, labels, strict=True)]) > 0.95
