"""Feedback: which verdict goes with which value, and that old records stay readable."""

import json
from datetime import UTC, datetime

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from murmura.schemas.feedback import Feedback, Verdict
from murmura.schemas.generate import schema_of

# Records of the first version with every field spelled out. Only added to, never edited.
CORRECTION = {
    "id": "f-1",
    "prediction_id": "7525d86cb8d3ad17cc4654843b6d4a50",
    "agent": "classification",
    "task": "intent",
    "model": {"name": "desk", "version": 3},
    "source": {"topic": "murmura.classification.requests", "partition": 1, "offset": 93, "timestamp": 1767606000000},
    "verdict": "correction",
    "value": "refund",
    "by": "ann",
    "at": "2025-01-31T12:00:00Z",
    "consent": True,
}
SPANS = [{"label": "city", "start": 3, "end": 9}, {"label": "date", "start": 9, "end": 12}]
OTHERS = [
    {"value": ["cards", "travel"], "task": "topics"},
    {"value": []},
    {"value": SPANS, "task": "entities"},
    {"verdict": "confirmed", "value": None},
    {"verdict": "up", "value": None},
    {"verdict": "down", "value": None},
    {"verdict": "reward", "value": 0.5},
    {"verdict": "withdrawn", "value": "f-1"},
]


@pytest.mark.parametrize("value", [CORRECTION, *(CORRECTION | other for other in OTHERS)])
def test_feedback_of_the_first_version_stays_readable(value):
    assert json.loads(Feedback.model_validate(value).model_dump_json()) == value
    jsonschema.validate(value, schema_of("feedback.v1"))


def test_model_source_and_consent_may_be_missing_and_consent_is_then_not_given():
    short = {name: value for name, value in CORRECTION.items() if name not in {"model", "source", "consent"}}
    feedback = Feedback.model_validate(short)
    assert (feedback.model, feedback.source, feedback.consent) == (None, None, False)


def test_a_verdict_is_blind_only_where_it_says_so():
    assert not Feedback.model_validate(CORRECTION).blind
    blind = CORRECTION | {"blind": True}
    assert json.loads(Feedback.model_validate(blind).model_dump_json()) == blind
    jsonschema.validate(blind, schema_of("feedback.v1"))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"value": None}, "needs a label"),
        ({"value": 3}, "needs a label"),
        ({"value": True}, "value"),
        ({"value": ""}, "0 characters"),
        ({"value": "x" * 2001}, "2001 characters"),
        ({"value": ["a", "a"]}, "twice"),
        ({"value": [""]}, "value"),
        ({"value": [SPANS[0], {"label": "x", "start": 8, "end": 10}]}, "overlap"),
        ({"value": [{"label": "x", "start": 8, "end": 8}]}, "cannot reach"),
        ({"value": [{"label": "x", "start": -1, "end": 8}]}, "value"),
        ({"verdict": "confirmed"}, "has no value"),
        ({"verdict": "up", "value": 1}, "has no value"),
        ({"verdict": "down", "value": []}, "has no value"),
        ({"verdict": "reward", "value": "much"}, "needs a number"),
        ({"verdict": "reward", "value": None}, "needs a number"),
        ({"verdict": "withdrawn", "value": None}, "needs the id"),
        ({"verdict": "withdrawn", "value": ["f-1"]}, "needs the id"),
        ({"verdict": "maybe"}, "verdict"),
        ({"prediction_id": "7525"}, "prediction_id"),
        ({"by": ""}, "by"),
        ({"id": "x" * 201}, "id"),
        ({"at": "2025-01-31T12:00:00"}, "timezone"),
        ({"at": "0001-01-01T00:00:00+14:00"}, "years 1 to 9999"),
        ({"consent": "yes"}, "consent"),
        ({"consent": 1}, "consent"),
    ],
)
def test_what_does_not_fit_is_refused(change, complaint):
    with pytest.raises(ValidationError, match=complaint):
        Feedback.model_validate(CORRECTION | change)


def test_numbers_that_json_does_not_know_are_refused():
    for number in ("NaN", "Infinity"):
        with pytest.raises(ValidationError):
            Feedback.model_validate_json(json.dumps(CORRECTION | {"verdict": "reward"}).replace('"refund"', number))


labels = st.text(st.characters(codec="utf-8"), min_size=1, max_size=200)
cuts = st.lists(st.integers(0, 10_000), min_size=2, max_size=20, unique=True).map(sorted)


@st.composite
def spans(draw):
    at = draw(cuts)
    return [{"label": draw(labels), "start": start, "end": end} for start, end in zip(at[::2], at[1::2], strict=False)]


VALUES = {
    Verdict.CORRECTION: st.one_of(labels, st.lists(labels, unique=True, max_size=5), spans()),
    Verdict.REWARD: st.floats(allow_nan=False, allow_infinity=False) | st.integers(-1000, 1000),
    Verdict.WITHDRAWN: labels,
}
verdicts_and_values = st.sampled_from(Verdict).flatmap(
    lambda verdict: st.tuples(st.just(verdict), VALUES.get(verdict, st.none()))
)


@given(
    verdicts_and_values,
    st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1), timezones=st.just(UTC)),
    labels,
    st.booleans(),
)
def test_every_fitting_pair_of_verdict_and_value_survives_the_wire(pair, at, by, consent):
    verdict, value = pair
    sent = CORRECTION | {"verdict": verdict, "value": value, "at": at.isoformat(), "by": by, "consent": consent}
    feedback = Feedback.model_validate_json(json.dumps(sent))
    assert Feedback.model_validate_json(feedback.model_dump_json()) == feedback
    assert json.loads(feedback.model_dump_json())["value"] == value
    assert (feedback.at, feedback.consent) == (at, consent)


@given(st.sampled_from(Verdict), st.sampled_from(Verdict), st.data())
def test_a_value_of_another_verdict_is_refused_unless_it_has_the_same_form(verdict, other, data):
    value = data.draw(VALUES.get(other, st.none()))
    fits = {
        Verdict.CORRECTION: isinstance(value, str | list),
        Verdict.REWARD: isinstance(value, float | int),
        Verdict.WITHDRAWN: isinstance(value, str),
    }.get(verdict, value is None)
    sent = CORRECTION | {"verdict": verdict, "value": value}
    if fits:
        Feedback.model_validate(sent)
    else:
        with pytest.raises(ValidationError):
            Feedback.model_validate(sent)


def test_only_judgements_agree_or_disagree():
    assert {verdict.value: verdict.agrees for verdict in Verdict} == {
        "correction": False,
        "confirmed": True,
        "up": True,
        "down": False,
        "reward": None,
        "withdrawn": None,
    }


def test_a_complaint_does_not_quote_the_value():
    with pytest.raises(ValidationError) as raised:
        Feedback.model_validate(CORRECTION | {"verdict": "up", "value": "my secret"})
    assert "secret" not in raised.value.errors()[0]["msg"]
