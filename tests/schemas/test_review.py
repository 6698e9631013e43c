"""Requests for a person's look."""

import json

import jsonschema
import pytest
from pydantic import ValidationError

from murmura.schemas.generate import schema_of
from murmura.schemas.review import Review, ReviewReason

# Records of the first version with every field spelled out. Only added to, never edited.
LIVE = {
    "prediction_id": "7525d86cb8d3ad17cc4654843b6d4a50",
    "agent": "classification",
    "task": "intent",
    "why": "out_of_scope",
    "model": {"name": "desk", "version": 3},
    "source": {"topic": "murmura.classification.requests", "partition": 1, "offset": 93, "timestamp": 1767606000000},
    "example": None,
    "predicted": "refund",
    "given": None,
    "score": 0.41,
    "margin": 0.02,
    "out_of_scope": 0.39,
    "threshold": 0.4,
    "at": "2025-01-31T12:00:00Z",
}
EXAMPLE = {
    "prediction_id": None,
    "agent": None,
    "task": "intent",
    "why": "label_error",
    "model": {"name": "desk", "version": 0},
    "source": None,
    "example": {"file": "clinc150/train.csv.gz", "line": 17},
    "predicted": "refund",
    "given": "card_arrival",
    "score": 0.97,
    "margin": None,
    "out_of_scope": None,
    "threshold": None,
    "at": "2025-01-31T12:00:00Z",
}


@pytest.mark.parametrize(("value", "key"), [(LIVE, LIVE["prediction_id"]), (EXAMPLE, "clinc150/train.csv.gz:17")])
def test_a_review_of_the_first_version_stays_readable(value, key):
    review = Review.model_validate(value)
    assert json.loads(review.model_dump_json()) == value | {"sampling_rate": None, "experiment": None}
    assert review.key == key
    jsonschema.validate(value, schema_of("review.v1"))


def test_the_reasons_are_those_of_the_contract():
    assert {reason.value for reason in ReviewReason} == {
        "margin",
        "out_of_scope",
        "error",
        "label_error",
        "low_score",
        "filtered",
        "suggested",
        "random",
        "disagreement",
    }


def test_there_is_no_field_for_a_text():
    assert "text" not in Review.model_fields


@pytest.mark.parametrize("missing", ["prediction_id", "agent", "source"])
def test_a_live_prediction_says_which_it_is_and_where(missing):
    with pytest.raises(ValidationError, match="needs prediction_id, agent and source"):
        Review.model_validate(LIVE | {missing: None})


def test_an_example_is_named_by_its_place_or_by_its_prediction():
    Review.model_validate(LIVE | {"why": "error", "agent": None, "source": None})
    with pytest.raises(ValidationError, match="prediction_id or an example"):
        Review.model_validate(EXAMPLE | {"example": None})


def test_an_answer_that_was_drawn_at_random_names_the_probability_of_that_and_no_other_does():
    drawn = LIVE | {"why": "random", "score": None, "margin": None, "out_of_scope": None, "threshold": None}
    assert Review.model_validate(drawn | {"sampling_rate": 0.002}).sampling_rate == 0.002
    for wrong in (drawn, LIVE | {"sampling_rate": 0.002}, drawn | {"sampling_rate": 0}, LIVE | {"score": None}):
        with pytest.raises(ValidationError, match=r"sampling_rate|needs a score"):
            Review.model_validate(wrong)


def test_what_is_drawn_or_compared_names_its_experiment_and_a_doubt_has_none():
    drawn = LIVE | {"why": "random", "sampling_rate": 0.002, "experiment": "desk-2"}
    assert Review.model_validate(drawn).experiment == "desk-2"
    assert Review.model_validate(LIVE | {"why": "disagreement", "score": None, "experiment": "desk-2"}).score is None
    with pytest.raises(ValidationError, match="belongs to no experiment"):
        Review.model_validate(LIVE | {"experiment": "desk-2"})


@pytest.mark.parametrize("field", ["score", "margin", "out_of_scope", "threshold"])
def test_scores_are_probabilities(field):
    with pytest.raises(ValidationError, match=field):
        Review.model_validate(LIVE | {field: 1.5})
