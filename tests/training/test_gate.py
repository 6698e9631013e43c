"""The gate's statistics, without a model."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from murmura.training.gate import (
    LEAST_ROWS,
    GateResult,
    Outcome,
    Verdict,
    compare,
    from_json,
    judge,
    of_accuracy,
    of_f1,
)

counts = st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=1, max_size=60)


def f1(rows: list[tuple[int, int, int]]) -> Outcome:
    return of_f1(*zip(*rows, strict=True))


@settings(max_examples=30, deadline=None)
@given(rows=counts, target=st.booleans(), strict=st.booleans())
def test_identical_models_are_neither_better_nor_worse(rows, target, strict):
    found = compare(f1(rows), f1(rows), resamples=200)
    assert (found.difference, found.low, found.high) == (0, 0, 0)
    expected = Verdict.UNPROVEN if target else Verdict.HELD
    assert judge("a", "test", found, target=target, strict=strict).verdict is expected


@settings(max_examples=30, deadline=None)
@given(rows=counts, seed=st.integers(0, 9))
def test_the_same_seed_gives_the_same_figures_and_exchanging_the_models_turns_the_sign(rows, seed):
    other = [(hit, extra + 1, missed) for hit, extra, missed in rows]
    found = compare(f1(rows), f1(other), resamples=200, seed=seed)
    assert compare(f1(rows), f1(other), resamples=200, seed=seed) == found
    turned = compare(f1(other), f1(rows), resamples=200, seed=seed)
    assert turned.difference == -found.difference
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.booleans(), min_size=2, max_size=80), st.lists(st.booleans(), min_size=2, max_size=80))
def test_the_difference_lies_within_what_two_accuracies_can_differ_by(left, right):
    size = min(len(left), len(right))
    found = compare(of_accuracy(left[:size]), of_accuracy(right[:size]), resamples=200)
    assert -1 <= found.low <= found.high <= 1
    assert found.difference == pytest.approx(np.mean(right[:size]) - np.mean(left[:size]))


def test_a_clearly_better_target_passes_and_a_clearly_worse_task_refuses():
    wrong, right = of_accuracy([False] * 40), of_accuracy([True] * 38 + [False] * 2)
    better = judge("intent", "feedback", compare(wrong, right), target=True)
    worse = judge("mood", "test", compare(right, wrong))
    assert (better.verdict, worse.verdict) == (Verdict.BETTER, Verdict.WORSE)
    assert GateResult((better,)).passed
    both = GateResult((better, worse))
    assert not both.passed
    assert both.reason == "mood (test) is worse: -95.00 points [-100.00, -87.50], allowed -0.5"


def test_the_pairing_finds_a_small_loss_that_is_no_chance():
    """20 of 2,000 rows lost and none won: two independent samples would call it noise."""
    before = [True] * 1800 + [False] * 200
    after = [False] * 20 + [True] * 1780 + [False] * 200
    found = compare(of_accuracy(before), of_accuracy(after))
    assert judge("a", "test", found).verdict is Verdict.WORSE
    assert judge("a", "test", found, allowance=0.02).verdict is Verdict.HELD


def test_one_row_of_a_small_set_decides_nothing_unless_the_gate_is_strict():
    found = compare(of_accuracy([True] * 50), of_accuracy([True] * 49 + [False]))
    assert judge("a", "own", found).verdict is Verdict.HELD
    assert judge("a", "own", found, strict=True).verdict is Verdict.WORSE


def test_a_target_with_few_rows_proves_nothing():
    few = compare(of_accuracy([False] * (LEAST_ROWS - 1)), of_accuracy([True] * (LEAST_ROWS - 1)))
    result = GateResult((judge("a", "feedback", few, target=True),))
    assert not result.passed
    assert "on 9 rows, at least 10 are needed" in result.reason


def test_without_a_target_nothing_passes():
    held = judge("a", "test", compare(of_accuracy([True]), of_accuracy([True])))
    assert GateResult((held,)).reason == "there are no held-out rows of the target"


def test_the_report_and_the_json_say_the_same():
    found = compare(of_accuracy([False] * 30), of_accuracy([True] * 25 + [False] * 5))
    result = GateResult((judge("intent", "feedback", found, target=True),))
    again = from_json(result.to_json())
    assert (again.passed, again.reason) == (True, "")
    assert again.to_json() == result.to_json()
    shown = result.to_markdown({"model": "desk"})
    assert "# Gate: passed" in shown
    assert "| intent | feedback | 30 | 0.00 | 83.33 | +83.33 |" in shown


def test_models_that_saw_other_rows_are_not_compared():
    with pytest.raises(ValueError, match="the same rows for both"):
        compare(of_accuracy([True]), of_accuracy([True, False]))
