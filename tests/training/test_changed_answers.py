"""Answers that a candidate changes where the current version is not sure are shown by score, without a vote."""

import random
import shutil
from pathlib import Path

import pytest
from tiny_loop import damaged, mix_of, usual, write_corrections, write_job
from tiny_training import write_jsonl

from murmura.runtime.model.model import Model
from murmura.training.export.export import export
from murmura.training.gate.changed_answers import count_changed
from murmura.training.gate.held_out import held_answers, texts_to_agree_on
from murmura.training.gate.report import to_markdown
from murmura.training.gate.verdict import ChangedAnswers, GateResult, from_json
from murmura.training.gate.weigh import weigh
from murmura.training.mix.plan import Mix
from murmura.training.recipe.job import Gate
from murmura.training.run_folders.run_folder import RunFolder


@pytest.fixture(scope="module")
def current(desk_base: Path) -> Model:
    return Model.load(desk_base / "desk")


@pytest.fixture
def mix(desk_base: Path, current: Model, tmp_path: Path) -> Mix:
    """A job without old data, on two hundred usual texts and as many that lie between two intents."""
    write_corrections(tmp_path / "corrections")
    draw = random.Random(5)
    words = [
        "i",
        "lost",
        "my",
        "card",
        "send",
        "money",
        "to",
        "rome",
        "please",
        "transfer",
        "cash",
        "stole",
        "my",
        "weather",
    ]
    between = [{"text": f"{' '.join(draw.choices(words, k=7))} {n}"} for n in range(400)]
    write_jsonl(tmp_path / "usual.jsonl", [*usual(200), *between])
    return mix_of(write_job(tmp_path, desk_base, old=None, hold={"texts": ["usual.jsonl"]}), current)


def favouring(base: Path, folder: Path, label: int, by: float) -> Model:
    """The current version with a greater bias for one intent."""
    shutil.copytree(base / "run", folder / "run")
    run = RunFolder(folder / "run")
    record, weights = run.record(), run.weights()
    weights["heads.intent.bias"] = weights["heads.intent.bias"].copy()
    weights["heads.intent.bias"][label] += by
    run.save_weights(weights)
    run.save_record(record)
    export(folder / "run", folder / "model")
    return Model.load(folder / "model")


def shares(found: list[ChangedAnswers], low: float, high: float) -> float:
    bands = [each for each in found if each.task == "intent" and low <= each.low < high]
    return sum(each.changed for each in bands) / max(1, sum(each.texts for each in bands))


def test_the_current_version_changes_nothing_and_every_text_that_is_kept_apart_counts(current, mix):
    found = count_changed(current, current, mix)
    assert sum(each.changed + each.withheld for each in found) == 0
    counted = {task: sum(each.texts for each in found if each.task == task) for task in current.tasks}
    assert counted == {task: len(texts) for task, texts in texts_to_agree_on(mix).items()}


def test_damage_near_a_boundary_that_held_answers_do_not_see_is_shown(desk_base, current, mix, tmp_path):
    candidate = favouring(desk_base, tmp_path, 2, 0.8)
    result = weigh(current, candidate, held_answers(current, mix), Gate())
    assert all(each.passes for each in result.comparisons)
    found = count_changed(current, candidate, mix)
    assert shares(found, 0, 0.7) >= 0.1
    assert shares(found, 0.9, 1) == 0


def test_damage_to_sure_answers_is_shown_in_the_highest_band(desk_base, current, mix, tmp_path):
    assert shares(count_changed(current, damaged(desk_base, tmp_path, "intent"), mix), 0.9, 1) >= 0.5


def test_the_report_shows_the_bands_and_the_json_keeps_them():
    result = GateResult((), changed=(ChangedAnswers("intent", 0.3, 0.5, 40, 10, 4),))
    assert "| intent | 0.3 to 0.5 | 40 | 10 (25 %) | 4 (10 %) |" in to_markdown(result, {})
    assert from_json(result.to_json()) == result
    assert "## Changed answers" not in to_markdown(GateResult(()), {})
