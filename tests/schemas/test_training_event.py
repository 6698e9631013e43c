from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from murmura.schemas.training_event import GateFigure, TrainingEvent, TrainingEventKind

AT = datetime(2026, 1, 2, tzinfo=UTC)


def event(**more) -> TrainingEvent:
    return TrainingEvent(**{"event": "run.started", "run": "r1", "name": "desk", "at": AT, **more})


def test_the_key_is_the_run_and_the_type_names_the_event():
    assert event().key == "r1"
    assert event(event=TrainingEventKind.GATE_PASSED).event_type() == "murmura.gate.passed.v1"


def test_a_gate_travels_with_its_figures():
    figure = GateFigure(
        task="intent", set="feedback", rows=40, current=0, candidate=0.9, difference=0.9, low=0.8, high=1.0,
        allowance=0.005, target=True, verdict="better",
    )  # fmt: skip
    sent = event(event="gate.passed", gate=[figure], current={"name": "desk", "version": 3})
    assert TrainingEvent.model_validate_json(sent.model_dump_json()) == sent


def test_a_loss_that_is_no_number_is_refused():
    with pytest.raises(ValidationError):
        event(loss={"intent": float("nan")})


def test_a_long_message_is_cut():
    assert len(event(message="x" * 9000).message or "") == 500
