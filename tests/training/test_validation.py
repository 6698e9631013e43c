"""Which checkpoint is the best: the tasks' main metrics, weighted by the square root of their validation rows."""

import math

import pytest

from murmura.training.fit.progress.validation import compared_by, describe_votes, votes_of


def test_tasks_count_by_the_square_root_of_their_validation_rows() -> None:
    metrics = {"big": {"main": 0.9}, "small": {"main": 0.5}}
    assert compared_by(metrics, {"big": 900, "small": 100}) == pytest.approx((30 * 0.9 + 10 * 0.5) / 40)


def test_a_task_with_fewer_than_fifty_rows_does_not_decide() -> None:
    assert votes_of({"big": 5000, "small": 49}) == {"big": math.sqrt(5000), "small": 0.0}
    assert votes_of({"big": 5000, "small": 50})["small"] == math.sqrt(50)
    assert compared_by({"big": {"main": 0.9}, "small": {"main": 0.0}}, {"big": 5000, "small": 49}) == 0.9
    assert describe_votes({"big": 5000, "small": 49}) == (
        "tasks with fewer than 50 validation rows do not choose the checkpoint: small (49)"
    )


def test_where_every_task_has_few_rows_all_decide_and_it_is_said() -> None:
    assert votes_of({"a": 4, "b": 9}) == {"a": 2.0, "b": 3.0}
    assert describe_votes({"a": 4, "b": 9}) == (
        "every task has fewer than 50 validation rows, so all of them choose the checkpoint: a (4), b (9)"
    )
    assert describe_votes({"a": 50, "b": 900}) is None
    assert describe_votes({"alone": 7}) is None


def test_a_metric_that_is_not_defined_has_no_vote() -> None:
    metrics = {"intent": {"main": 0.8}, "places": {"main": math.nan}}
    assert compared_by(metrics, {"intent": 100, "places": 400}) == pytest.approx(0.8)
    assert compared_by({"places": {"main": math.nan}}, {"places": 400}) == 0.0
