"""What an experiment counts of results and feedback."""

from datetime import UTC, datetime

import pytest

from murmura.runtime.experiments.observations import count_feedback, count_ratio, count_result, find_drawn, find_unit
from murmura.schemas.experiment import Measure, Rules
from murmura.schemas.feedback import Feedback
from murmura.schemas.result import Result
from murmura.schemas.review import Review

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def _classified(label: str | None, reason: str | None = None) -> dict[str, object]:
    return {
        "kind": "classification",
        "label": label,
        "score": 0.5,
        "alternatives": [],
        "abstained": label is None,
        "reason": reason,
    }


def _result(**outputs: object) -> Result:
    return Result.model_validate(
        {
            "request_id": "r",
            "prediction_id": "0" * 32,
            "agent": "a",
            "model": {"name": "desk", "version": 1},
            "source": {"topic": "t", "partition": 0, "offset": 0, "timestamp": 0},
            "outputs": outputs,
            "time": NOW,
        }
    )


@pytest.mark.parametrize(
    ("unit", "found"),
    [
        ("key", "customer-1"),
        ("conversation", "customer-1"),
        ("request", "r"),
        ("metadata.shop", "north"),
        ("metadata.x", None),
    ],
)
def test_units_of_a_record(unit: str, found: str | None) -> None:
    assert find_unit(unit, b"customer-1", "r", {"shop": "north"}) == found


def test_a_request_without_a_key_is_a_unit_of_its_own_as_its_result_is_and_any_bytes_are_one() -> None:
    assert find_unit("key", None, "r", {}) == find_unit("key", b"r", "r", {}) == "r"
    assert find_unit("key", b"\xff", "r", {}) != find_unit("key", b"\xfe", "r", {})


def test_answers_count_by_task_and_over_all() -> None:
    result = _result(
        intent=_classified(None, "below_threshold"),
        sentiment=_classified("good"),
        spans={"kind": "tagging", "spans": []},
    )
    assert count_result(result) == {
        "errors": (0.0, 1.0),
        "withheld": (1.0, 2.0),
        "withheld/intent": (1.0, 1.0),
        "withheld/sentiment": (0.0, 1.0),
        "out_of_scope": (0.0, 2.0),
        "out_of_scope/intent": (0.0, 1.0),
        "out_of_scope/sentiment": (0.0, 1.0),
    }
    assert count_result(_result(intent=_classified(None, "out_of_scope")))["out_of_scope/intent"] == (1.0, 1.0)


def _feedback(verdict: str, value: object = None, task: str = "intent", *, blind: bool = True) -> Feedback:
    return Feedback.model_validate(
        {
            "id": "f",
            "prediction_id": "0" * 32,
            "agent": "a",
            "task": task,
            "verdict": verdict,
            "value": value,
            "by": "p",
            "blind": blind,
            "at": NOW,
        }
    )


@pytest.mark.parametrize(
    ("verdict", "value", "agrees"), [("confirmed", None, 1.0), ("correction", "x", 0.0), ("reward", 2.0, None)]
)
def test_verdicts(verdict: str, value: object, agrees: float | None) -> None:
    expected = {} if agrees is None else {"agreement": (agrees, 1.0), "agreement/intent": (agrees, 1.0)}
    assert count_feedback(_feedback(verdict, value), {("0" * 32, "intent")}) == expected


@pytest.mark.parametrize(
    ("feedback", "agrees"),
    [(_feedback("confirmed", task="topic"), 1.0), (_feedback("correction", "x", "topic"), 0.0)]
    + [(_feedback(verdict), float(verdict == "up")) for verdict in ("up", "down")]
    + [(_feedback("correction", "x", blind=False), 0.0), (_feedback("confirmed", blind=False), 1.0)],
)
def test_a_verdict_that_nobody_was_asked_for_at_random_or_of_a_person_who_saw_the_answer_is_counted_where_no_rule_reads(
    feedback: Feedback, agrees: float
) -> None:
    counts = count_feedback(feedback, {("0" * 32, "intent")})
    assert counts == {"other_agreement": (agrees, 1.0), f"other_agreement/{feedback.task}": (agrees, 1.0)}
    rules = Rules()
    assert not counts.keys() & {measure.key for measure in (*rules.goals, *rules.guardrails)}


def test_an_answer_is_drawn_by_a_random_review_of_this_experiment() -> None:
    drawn = Review.model_validate(
        {
            "prediction_id": "0" * 32,
            "agent": "a",
            "task": "intent",
            "why": "random",
            "sampling_rate": 0.1,
            "experiment": "e",
            "model": {"name": "desk", "version": 1},
            "source": {"topic": "t", "partition": 0, "offset": 0, "timestamp": 0},
            "at": NOW,
        }
    )
    assert find_drawn(drawn, "e") == ("0" * 32, "intent")
    assert find_drawn(drawn, "f") is None
    assert find_drawn(drawn.model_copy(update={"experiment": None}), "e") is None


def test_keys_are_those_of_measures() -> None:
    keys = {*count_result(_result(intent=_classified("x"))), *count_ratio("orders", 1.0), "agreement"}
    measures = [Measure(measure="withheld", task="intent"), Measure(measure="errors"), Measure(measure="agreement")]
    measures.append(Measure(measure="ratio", name="orders", better="higher"))
    assert {measure.key for measure in measures} <= keys
