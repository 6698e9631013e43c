"""What an answer may hold, and that the answers of the first version stay readable."""

from datetime import UTC, datetime

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from murmura.schemas.generate import schema_of
from murmura.schemas.result import OWN_KINDS, ClassificationOutput, OtherOutput, Result, Span

# As published by version 1. Only added to, never edited.
FIRST_RESULTS = [
    {
        "request_id": "support.tickets/0/7/1700000000000",
        "prediction_id": "984ce09c814fa747aff2bfb18a0c968e",
        "agent": "classification",
        "status": "ok",
        "model": {"name": "banking", "version": 0},
        "source": {"topic": "support.tickets", "partition": 0, "offset": 7, "timestamp": 1_700_000_000_000},
        "outputs": {
            "intent": {
                "kind": "classification",
                "label": None,
                "score": 0.31,
                "alternatives": [{"label": "card_arrival", "score": 0.31}, {"label": "lost_card", "score": 0.3}],
                "abstained": True,
                "reason": "below_threshold",
            },
            "emotions": {"kind": "multi_label", "labels": [{"label": "anger", "score": 0.9}]},
            "entities": {
                "kind": "tagging",
                "spans": [{"label": "amount", "text": "5 €", "start": 3, "end": 6, "score": 1.0}],
            },
        },
        "truncated": False,
        "metadata": {"channel": "mail"},
        "time": "2025-01-31T12:00:00.125Z",
    },
    {
        "request_id": "17",
        "prediction_id": "15903c2d948161ad211f9af6bfc9f8c8",
        "agent": "analysis",
        "model": {"name": "banking", "version": 3},
        "source": {"topic": "t", "partition": 11, "offset": 0, "timestamp": 0},
        "outputs": {},
        "time": "2025-01-31T12:00:00Z",
    },
]

validator = jsonschema.Draft202012Validator(schema_of("result.v1"))
scores = st.floats(0, 1)
labels = st.builds(lambda label, score: {"label": label, "score": score}, st.text(), scores)
spans = st.builds(
    lambda before, text, label, score: {
        "label": label,
        "text": text,
        "start": len(before),
        "end": len(before) + len(text),
        "score": score,
    },
    st.text(),
    st.text(min_size=1),
    st.text(min_size=1),
    scores,
)
outputs = st.one_of(
    st.builds(
        lambda first, rest: {
            "kind": "classification",
            "label": first["label"],
            "score": first["score"],
            "alternatives": [first, *rest],
            "abstained": False,
            "reason": None,
        },
        labels,
        st.lists(labels, max_size=2),
    ),
    st.builds(lambda found: {"kind": "multi_label", "labels": found}, st.lists(labels)),
    st.builds(lambda found: {"kind": "tagging", "spans": found}, st.lists(spans)),
    st.builds(
        lambda text, score, finish: {"kind": "generation", "text": text, "score": score, "finish": finish},
        st.text(),
        scores,
        st.sampled_from(["end", "length"]),
    ),
)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
other_outputs = st.builds(
    lambda kind, fields: {**fields, "kind": kind},
    st.text().filter(lambda kind: kind not in OWN_KINDS),
    st.dictionaries(st.text(min_size=1), json_values, max_size=4),
)


@pytest.mark.parametrize("value", FIRST_RESULTS)
def test_a_result_of_the_first_version_stays_readable(value):
    read = Result.model_validate(value)
    assert read.model_dump(mode="json").items() >= {k: v for k, v in value.items() if k != "time"}.items()
    jsonschema.validate(value, schema_of("result.v1"))


@given(st.dictionaries(st.text(min_size=1), outputs, max_size=4))
def test_outputs_of_every_kind_survive_the_wire(value):
    result = Result.model_validate({**FIRST_RESULTS[1], "outputs": value})
    assert Result.model_validate_json(result.model_dump_json()) == result
    assert result.model_dump(mode="json")["outputs"] == value


def test_a_time_is_written_in_utc():
    result = Result.model_validate({**FIRST_RESULTS[1], "time": "2025-01-31T14:30:00+02:30"})
    assert result.time == datetime(2025, 1, 31, 12, tzinfo=UTC)
    assert '"2025-01-31T12:00:00Z"' in result.model_dump_json()


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_a_time_that_utc_cannot_express_is_refused(time):
    with pytest.raises(ValidationError, match="years 1 to 9999"):
        Result.model_validate({**FIRST_RESULTS[1], "time": time})


def test_a_time_without_a_zone_is_refused():
    with pytest.raises(ValidationError):
        Result.model_validate({**FIRST_RESULTS[1], "time": "2025-01-31T12:00:00"})


@pytest.mark.parametrize(
    "wrong",
    [
        {"label": "a", "abstained": True, "reason": "out_of_scope"},
        {"label": None, "abstained": True, "reason": None},
        {"label": None, "abstained": False, "reason": None},
        {"label": "a", "abstained": False, "reason": "below_threshold"},
    ],
)
def test_an_abstention_has_a_reason_and_no_label(wrong):
    with pytest.raises(ValidationError, match="abstained"):
        ClassificationOutput.model_validate({"score": 0.5, "alternatives": [], **wrong})


def test_at_most_three_alternatives_are_named():
    four = [{"label": str(i), "score": 0.25} for i in range(4)]
    with pytest.raises(ValidationError, match="alternatives"):
        ClassificationOutput.model_validate({"label": "0", "score": 0.25, "alternatives": four})


@pytest.mark.parametrize(("start", "end"), [(3, 3), (4, 3), (0, 2), (0, 4)])
def test_offsets_count_the_code_points_of_the_span(start, end):
    with pytest.raises(ValidationError):
        Span.model_validate({"label": "x", "text": "a🙂c", "start": start, "end": end, "score": 1.0})


@pytest.mark.parametrize("score", [-0.01, 1.01, float("nan")])
def test_a_score_is_a_probability(score):
    with pytest.raises(ValidationError):
        Span.model_validate({"label": "x", "text": "a", "start": 0, "end": 1, "score": score})


@given(st.dictionaries(st.text(min_size=1), other_outputs | outputs, max_size=4))
def test_an_output_of_a_kind_that_a_reader_does_not_know_is_an_object_with_its_kind(value):
    result = Result.model_validate({**FIRST_RESULTS[1], "outputs": value})
    assert result.model_dump(mode="json")["outputs"] == value
    assert Result.model_validate_json(result.model_dump_json()) == result
    validator.validate({**FIRST_RESULTS[1], "outputs": value})


@pytest.mark.parametrize(
    "output",
    [
        {"kind": "tagging"},
        {"kind": "multi_label", "labels": 4},
        {"kind": "generation", "text": "a", "score": 2, "finish": "end"},
        {},
        {"kind": 4},
        "poem",
        None,
    ],
)
def test_an_output_without_a_kind_or_with_the_wrong_form_of_a_known_one_is_refused(output):
    value = {**FIRST_RESULTS[1], "outputs": {"x": output}}
    with pytest.raises(ValidationError, match=r"outputs\.x"):
        Result.model_validate(value)
    assert list(validator.iter_errors(value))


def test_an_output_of_a_known_kind_has_its_own_form():
    with pytest.raises(ValidationError, match="form of its own"):
        OtherOutput(kind="tagging")
