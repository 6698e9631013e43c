"""What an experiment counts of results and feedback."""

from datetime import UTC, datetime

import pytest

from murmura.runtime.experiments.observations import count_feedback, count_ratio, count_result, find_unit
from murmura.schemas.experiment import Measure
from murmura.schemas.feedback import Feedback
from murmura.schemas.result import Result

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


def test_a_record_without_a_key_has_no_unit_and_any_bytes_are_one() -> None:
    assert find_unit("key", None, "r", {}) is None
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


@pytest.mark.parametrize(
    ("verdict", "value", "agrees"), [("confirmed", None, 1.0), ("correction", "x", 0.0), ("reward", 2.0, None)]
)
def test_verdicts(verdict: str, value: object, agrees: float | None) -> None:
    feedback = Feedback.model_validate(
        {
            "id": "f",
            "prediction_id": "0" * 32,
            "agent": "a",
            "task": "intent",
            "verdict": verdict,
            "value": value,
            "by": "p",
            "at": NOW,
        }
    )
    expected = {} if agrees is None else {"agreement": (agrees, 1.0), "agreement/intent": (agrees, 1.0)}
    assert count_feedback(feedback) == expected


def test_keys_are_those_of_measures() -> None:
    keys = {*count_result(_result(intent=_classified("x"))), *count_ratio("orders", 1.0), "agreement"}
    measures = [Measure(measure="withheld", task="intent"), Measure(measure="errors"), Measure(measure="agreement")]
    measures.append(Measure(measure="ratio", name="orders", better="higher"))
    assert {measure.key for measure in measures} <= keys
