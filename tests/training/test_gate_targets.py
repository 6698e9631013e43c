"""What proves that a candidate is better: texts drawn at random first, else corrections beside what flips by chance."""

import json
from pathlib import Path

import numpy as np
import pytest
from tiny_loop import damaged, mix_of, relabelled, write_corrections, write_job
from tiny_training import write_jsonl

from murmura.runtime.model.model import Model
from murmura.training.evaluate.evaluate import answers
from murmura.training.gate.held_out import CORRECTED, DRAWN, NEW_LABELS, held_out_sets, with_targets
from murmura.training.gate.report import to_markdown
from murmura.training.gate.statistics import compare
from murmura.training.gate.targets import find_targets
from murmura.training.gate.verdict import GateResult, Lift, SeedFigures, Verdict, from_json, judge_drawn, judge_target
from murmura.training.gate.weigh import Placebo, weigh
from murmura.training.kinds.figures.outcome import of_accuracy
from murmura.training.recipe.job import Gate, read_job


@pytest.fixture(scope="module")
def current(desk_base: Path) -> Model:
    return Model.load(desk_base / "desk")


def difference(before: str, after: str, conversations: list[str] | None = None):
    """Answers by row: r is right."""
    return compare(*(of_accuracy(np.array(list(each)) == "r") for each in (before, after)), conversations)


@pytest.mark.parametrize(
    ("won", "lost", "passes"),
    [(5, 0, False), (6, 0, True), (8, 1, True), (8, 2, False), (30, 15, True), (25, 15, False)],
)
def test_rows_drawn_at_random_are_proof_by_the_exact_test_at_two_and_a_half_percent(won, lost, passes):
    before, after = "w" * won + "r" * lost + "r" * 200, "r" * won + "w" * lost + "r" * 200
    found = judge_drawn("intent", DRAWN, difference(before, after))
    assert found.found.exact
    assert found.passes == passes
    result = GateResult((found,))
    assert result.passed == passes
    assert ("% of" in result.reason) != passes


def test_a_task_passes_by_its_random_rows_or_by_all_its_other_targets():
    good, bad = difference("w" * 10, "r" * 10), difference("w" * 10, "w" * 10)
    drawn = {passes: judge_drawn("intent", DRAWN, good if passes else bad) for passes in (True, False)}
    new = {
        passes: judge_target("intent", NEW_LABELS, good if passes else bad, least_rows=6) for passes in (True, False)
    }
    other = judge_target("topics", NEW_LABELS, bad, least_rows=6)
    assert GateResult((drawn[True], new[False])).passed
    assert GateResult((drawn[False], new[True])).passed
    assert GateResult((drawn[False], new[True])).reason == ""
    assert not GateResult((drawn[False], new[False])).passed
    assert not GateResult((drawn[True], other)).passed


def test_the_report_shows_random_rows_seeds_and_the_placebo_and_the_json_keeps_them():
    drawn = judge_drawn("intent", DRAWN, difference("w" * 10 + "r" * 90, "r" * 100))
    corrected = judge_target(
        "topics", CORRECTED, difference("w" * 60, "r" * 60), least_rows=50, lift=Lift(6, 60, 0.3, True)
    )
    result = GateResult((drawn, corrected), (), (SeedFigures("intent", "test", (0.95, 0.94, 0.96)),))
    text = to_markdown(result, {})
    assert "| intent | 100 | 10 | 90.00 | 100.00 | +10.00 |" in text
    assert "| intent | test | 95.00, 94.00, 96.00 | 1.00 |" in text
    assert "| 60 (100 %) | < 0.001 | 6 of 60 (10 %), placebo | 40 % | better |" in text
    assert "Not measured" in to_markdown(GateResult((drawn,)), {})
    assert from_json(result.to_json()) == result


def with_drawn(folder: Path, count: int) -> None:
    """Mark the first held-out rows as drawn at random."""
    path = folder / "intent.heldout.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    write_jsonl(path, [row | ({"sampling_rate": 0.01} if n < count else {}) for n, row in enumerate(lines)])


def found_targets(job: Path, current: Model):
    mix = mix_of(job, current)
    return find_targets(read_job(job), current, mix, held_out_sets(mix))


def test_thirty_wrong_rows_that_were_drawn_replace_corrections_and_fewer_are_noted(desk_base, current, tmp_path):
    folder = write_corrections(tmp_path / "corrections")
    relabelled(folder, 60)
    with_drawn(folder, 30)
    found = found_targets(write_job(tmp_path, desk_base), current)
    assert (found.sets, found.notes, found.placebo) == ({"intent": [DRAWN]}, [], [])
    relabelled(folder, 60)
    with_drawn(folder, 29)
    found = found_targets(write_job(tmp_path, desk_base), current)
    assert found.sets == {"intent": [CORRECTED]}
    assert found.notes == [
        "intent: 29 texts drawn at random, of which the current version gets 29 wrong; 30 wrong ones are needed: not judged"
    ]


def test_both_versions_answer_what_was_drawn_and_no_part_of_the_feedback_is_a_set_of_its_own(
    desk_base, current, tmp_path
):
    folder = write_corrections(tmp_path / "corrections")
    relabelled(folder, 60)
    with_drawn(folder, 40)
    mix = mix_of(write_job(tmp_path, desk_base), current)
    sets = with_targets(held_out_sets(mix), {"intent": [DRAWN]})
    result = weigh(current, damaged(desk_base, tmp_path, "intent"), sets, Gate())
    (target,) = result.targets
    assert (target.set, target.found.rows, target.found.current, target.verdict) == (DRAWN, 40, 0, Verdict.BETTER)
    names = [each.set for each in result.comparisons if not each.target and each.task == "intent"]
    assert DRAWN not in names
    assert "feedback" in names


def test_what_a_placebo_gets_right_of_the_corrected_rows_is_what_corrections_must_exceed(desk_base, current, tmp_path):
    folder = write_corrections(tmp_path / "corrections")
    relabelled(folder, 60)
    mix = mix_of(write_job(tmp_path, desk_base), current)
    sets = with_targets(held_out_sets(mix), {"intent": [CORRECTED]})
    turned = damaged(desk_base, tmp_path, "intent")
    (found,) = weigh(current, turned, sets, Gate(), placebo=Placebo(turned, ["intent"])).targets
    assert (found.lift.rows, found.lift.rate, found.lift.placebo) == (60, found.found.candidate, True)
    assert found.verdict is Verdict.UNPROVEN
    (found,) = weigh(current, turned, sets, Gate(), placebo=Placebo(current, ["intent"])).targets
    assert (found.lift.flipped, found.verdict) == (0, Verdict.BETTER)


def test_answers_that_are_compared_keep_no_encodings_and_no_logits_by_token(desk_base, current, tmp_path):
    write_corrections(tmp_path / "corrections")
    mix = mix_of(write_job(tmp_path, desk_base), current)
    for held in held_out_sets(mix):
        spec = current.tasks[held.task]
        for answer in answers(current, spec, held.examples[:5]):
            slim = answer.without_tokens()
            assert (slim.example, slim.output, len(slim.encoding)) == (answer.example, answer.output, 0)
            assert slim.logits.size == (0 if held.task == "places" else len(spec.labels))
