"""Calibration and thresholds of a retrained task are chosen on what stands for traffic, not on corrections."""

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_loop import loans, mix_of, usual, write_corrections, write_job
from tiny_training import rows, write_jsonl

from murmura.runtime.model.model import Model
from murmura.schemas.manifest import Calibration, ThresholdRows, Thresholds
from murmura.training.data.example import Example
from murmura.training.evaluate.evaluate import answers, evaluate
from murmura.training.export.export import export
from murmura.training.fit.loop import fit
from murmura.training.gate.held_out import held_out_sets
from murmura.training.kinds.calibration import temperature_of
from murmura.training.mix.calibration_rows import rows_of_lacking_labels
from murmura.training.mix.plan import Mix
from murmura.training.mix.traffic import may_calibrate
from murmura.training.mix.write import write_mix
from murmura.training.retrain.limits import keep_limits, with_missing_thresholds
from murmura.training.run_folders.run_folder import RunFolder, RunRecord


@pytest.fixture(scope="module")
def current(desk_base: Path) -> Model:
    return Model.load(desk_base / "desk")


def hard(count: int, seed: int) -> list[dict[str, Any]]:
    """Rows that nobody can tell apart: words that say nothing, and labels drawn at random."""
    draw = random.Random(seed)
    words = ["well", "so", "about", "that", "thing", "again", "still", "not", "yes", "it"]
    return [
        {"text": " ".join(draw.choices(words, k=6)), "label": draw.choice(["lost", "transfer"])} for _ in range(count)
    ]


def drawn(count: int, seed: int = 21) -> list[dict[str, Any]]:
    """Judged texts as `murmura ingest` holds out what was drawn at random."""
    return [
        {"text": f"{row['text']} {n}", "label": row["label"], "sampling_rate": 0.01}
        for n, row in enumerate(rows(count, seed))
    ]


def write_feedback(folder: Path, train: list[dict[str, Any]], heldout: list[dict[str, Any]]) -> None:
    folder.mkdir()
    write_jsonl(folder / "intent.train.jsonl", train)
    write_jsonl(folder / "intent.heldout.jsonl", heldout)


def retrained(mix: Mix, desk_base: Path, folder: Path) -> RunRecord:
    (folder / "mix").mkdir()
    write_mix(mix, desk_base / "desk", folder / "mix")
    fit(folder / "mix" / "recipe.yaml", folder / "mix", folder / "run", encoder=desk_base / "desk", quiet=True)
    keep_limits(folder / "run", mix)
    return RunFolder(folder / "run").record()


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def texts_of(path: Path) -> list[str]:
    return [row["text"] for row in lines_of(path)]


def best_temperature(model: Model, examples: list[Example]) -> float:
    """Return the temperature that these rows alone choose."""
    spec = model.tasks["intent"]
    found = list(answers(model, spec, examples))
    truth = np.array([spec.labels.index(answer.example.labels[0]) for answer in found])
    return temperature_of(np.stack([answer.logits for answer in found]), truth).temperature


def test_corrections_that_are_all_hard_do_not_shift_what_is_chosen_for_traffic(desk_base, current, tmp_path):
    write_feedback(tmp_path / "corrections", hard(240, 1), hard(20, 2))
    fit_keys = {"epochs": 2, "evaluations": 1, "encoder_lr": 1e-3, "head_lr": 5e-3, "dropout": 0.0, "threads": 1}
    mix = mix_of(write_job(tmp_path, desk_base, fit=fit_keys), current)
    record = retrained(mix, desk_base, tmp_path)
    spec = next(spec for spec in record.tasks if spec.name == "intent")
    traffic = mix.old["intent"].validation
    export(tmp_path / "run", tmp_path / "model")
    model = Model.load(tmp_path / "model")
    assert spec.calibration_rows == len(traffic)
    assert spec.calibration.temperature == pytest.approx(best_temperature(model, traffic), abs=0.01)
    held_back = [
        Example(row["text"], (row["label"],)) for row in lines_of(tmp_path / "mix" / "intent.validation.jsonl")
    ]
    assert best_temperature(model, held_back) > spec.calibration.temperature + 0.1  # so it would have been
    figures = evaluate(tmp_path / "model", desk_base, recipe=desk_base / "base.yaml")["intent"]["test"].figures
    assert figures["ece"] <= 0.01
    assert figures["served"] >= 0.93


def test_old_validation_rows_choose_and_of_new_labels_as_many_as_an_old_one_has(desk_base, current, tmp_path):
    write_feedback(tmp_path / "corrections", [*hard(50, 1), *loans(400, 3)], loans(30, 4))
    mix = mix_of(write_job(tmp_path, desk_base), current)
    (tmp_path / "mix").mkdir()
    write_mix(mix, desk_base / "desk", tmp_path / "mix")
    lines = lines_of(tmp_path / "mix" / "intent.calibration.jsonl")
    old = {example.text for example in mix.old["intent"].validation}
    assert {row["text"] for row in lines if row["label"] != "loan"} == old
    per_label = len(old) / 3
    assert 1 <= sum(row["label"] == "loan" for row in lines) <= round(per_label)
    held_back = [row["label"] for row in lines_of(tmp_path / "mix" / "intent.validation.jsonl")]
    assert Counter(held_back)["loan"] == 40  # they choose the checkpoint, all of them


def test_a_label_that_the_base_lacks_gets_the_rows_of_an_average_label_and_at_least_one():
    base = [Example(f"{label} {n}", (label,)) for label in "ab" for n in range(3)]
    new = [Example(f"{label} {n}", (label,)) for label in "acd" for n in range(9)]
    assert Counter(row.labels[0] for row in rows_of_lacking_labels(base, new)) == {"c": 3, "d": 3}
    assert len(rows_of_lacking_labels([], new[:1])) == 1


def test_a_fifth_of_many_texts_drawn_at_random_choose_and_judge_nothing(desk_base, current, tmp_path):
    write_feedback(tmp_path / "corrections", hard(30, 1), drawn(400))
    mix = mix_of(write_job(tmp_path, desk_base), current)
    taken = {example.text for example in mix.traffic("intent")}
    assert 60 <= len(taken) <= 100
    (tmp_path / "mix").mkdir()
    write_mix(mix, desk_base / "desk", tmp_path / "mix")
    assert taken < set(texts_of(tmp_path / "mix" / "intent.calibration.jsonl"))
    judging = {example.text for held in held_out_sets(mix) for example in held.examples}
    trained = {text for path in (tmp_path / "mix").glob("intent.[fr]*.jsonl") for text in texts_of(path)}
    assert not taken & (judging | trained)
    assert sum(len(held.examples) for held in held_out_sets(mix) if held.name == "feedback") == 400 - len(taken)


def test_few_texts_drawn_at_random_all_judge(desk_base, current, tmp_path):
    write_feedback(tmp_path / "corrections", hard(30, 1), drawn(200))
    mix = mix_of(write_job(tmp_path, desk_base), current)
    assert mix.traffic("intent") == []
    assert {len(held.examples) for held in held_out_sets(mix) if held.name == "feedback"} == {200}


def test_the_texts_of_a_conversation_calibrate_together_in_whatever_order():
    texts = [Example(f"text {n}", meta={"conversation": f"c{n // 3}"}) for n in range(300)]
    chosen = Counter(example.meta["conversation"] for example in texts if may_calibrate(example))
    assert set(chosen.values()) == {3}
    assert 10 <= len(chosen) <= 30
    assert may_calibrate(Example("A  text")) == may_calibrate(Example("a text"))


def test_without_old_rows_and_traffic_the_limits_stay_and_the_record_says_so(desk_base, current, tmp_path):
    write_corrections(tmp_path / "corrections")
    write_jsonl(tmp_path / "usual.jsonl", usual(60))
    job = write_job(tmp_path, desk_base, old=None, hold={"texts": ["usual.jsonl"]}, fit={"steps": 2, "evaluations": 1})
    record = retrained(mix_of(job, current), desk_base, tmp_path)
    for spec in record.tasks:
        before = current.manifest.task(spec.name)
        assert (spec.calibration, spec.thresholds) == (before.calibration, before.thresholds)
        assert any(
            "those of version 0: it has no old validation rows, and the texts drawn at random are too few" in note
            for note in record.data[spec.name].notes
        )


def test_without_old_rows_enough_traffic_chooses(desk_base, current, tmp_path):
    write_feedback(tmp_path / "corrections", loans(60, 3), drawn(400))
    write_jsonl(tmp_path / "usual.jsonl", usual(60))
    job = write_job(tmp_path, desk_base, old=None, hold={"texts": ["usual.jsonl"]}, fit={"steps": 2, "evaluations": 1})
    mix = mix_of(job, current)
    record = retrained(mix, desk_base, tmp_path)
    spec = next(spec for spec in record.tasks if spec.name == "intent")
    assert spec.calibration_rows == len(mix.traffic("intent")) + 6
    assert spec.threshold_rows is not None
    assert "intent" not in mix.kept_limits
    assert set(mix.kept_limits) == {"topics", "places"}


def test_thresholds_that_were_given_or_that_nothing_decides_stay(current):
    spec = current.manifest.task("intent")
    chosen = spec.model_copy(
        update={
            "calibration": Calibration(temperature=1.5),
            "thresholds": Thresholds(out_of_scope=0.4),
            "threshold_rows": ThresholdRows(genuine=40, others=10),
        }
    )
    given = spec.model_copy(update={"thresholds": Thresholds(accept=0.3), "threshold_rows": None})
    undecided = chosen.model_copy(update={"thresholds": Thresholds(), "threshold_rows": None})
    assert with_missing_thresholds(given, chosen).thresholds == given.thresholds
    assert with_missing_thresholds(spec, undecided).thresholds == spec.thresholds
    assert with_missing_thresholds(spec, chosen).thresholds.out_of_scope == 0.4
    assert with_missing_thresholds(given, chosen).calibration == chosen.calibration
