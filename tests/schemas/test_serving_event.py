"""What serving says about itself."""

import json

import jsonschema
import pytest
from pydantic import ValidationError

from murmura.schemas.generate import schema_of
from murmura.schemas.serving_event import RejectReason, ServingEvent, ServingEventKind

# Events of the first version with every field spelled out. Only added to, never edited.
REJECTED = {
    "event": "model.rejected",
    "app": "shop",
    "name": "desk",
    "version": 5,
    "previous": 4,
    "generation": 7,
    "reason": "damaged",
    "message": "model.ragged.onnx is not the file that the manifest names (SHA-256)",
    "seconds": 1.25,
    "at": "2025-01-31T12:00:00Z",
}
PAUSED = {"event": "paused", "app": "shop", "at": "2025-01-31T12:00:00Z"}


@pytest.mark.parametrize(
    ("value", "event_type", "key"),
    [(REJECTED, "murmura.model.rejected.v1", "desk"), (PAUSED, "murmura.paused.v1", "shop")],
)
def test_an_event_of_the_first_version_stays_readable(value, event_type, key):
    event = ServingEvent.model_validate(value)
    assert json.loads(event.model_dump_json(exclude_none=True)) == value
    assert (event.event_type(), event.key) == (event_type, key)
    jsonschema.validate(value, schema_of("serving_event.v1"))


def test_an_event_may_say_of_which_process_it_is():
    assert ServingEvent.model_validate(PAUSED | {"instance": "host/1/ab"}).instance == "host/1/ab"
    assert ServingEvent.model_validate(PAUSED).instance is None


def test_the_events_are_those_of_the_contract():
    assert {kind.value for kind in ServingEventKind} == {
        "model.swapped",
        "model.rejected",
        "model.fell_back",
        "replies.switched",
        "experiment.started",
        "experiment.raised",
        "experiment.promoted",
        "experiment.completed",
        "experiment.stopped",
        "candidate.rejected",
        "candidate.failed",
        "paused",
        "resumed",
        "device.failed",
        "device.recovered",
    }


def test_the_reasons_of_the_first_version_stay():
    assert {reason.value for reason in RejectReason} >= {
        "missing",
        "damaged",
        "wrong_digest",
        "too_large",
        "not_a_model",
        "unsafe_path",
        "link",
        "pickle",
        "wrong_shape",
        "not_finite",
        "not_reproduced",
        "endless",
        "lacks_task",
        "no_base",
        "no_room",
        "store_unreachable",
        "failed",
    }


def test_a_message_is_short_and_a_reason_is_one_of_the_list():
    assert len(ServingEvent.model_validate(REJECTED | {"message": "x" * 9999}).message) == 500
    with pytest.raises(ValidationError, match="reason"):
        ServingEvent.model_validate(REJECTED | {"reason": "bad luck"})
