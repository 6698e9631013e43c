"""Validates feedback: readable, about a task of the model, with the form and the labels of that task."""

from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from ...schemas.deadletter import DeadLetterReason as Reason
from ...schemas.envelope import CE_ID, CE_SPECVERSION, CE_TYPE, CONTENT_TYPE, CONTENT_TYPE_HEADER, SPEC_VERSION
from ...schemas.feedback import FEEDBACK_TYPE, LABEL_CHARACTERS, Feedback, FeedbackSpan, Verdict
from ...schemas.manifest import TaskSpec
from ..errors import RecordError
from ..model.kinds.registry import kind_of
from ..model.texts.words import trim_blanks


def read_feedback(value: bytes | None) -> Feedback:
    """Parse the feedback in a record's value. Raises RecordError, whose message never quotes the value."""
    if value is None:
        raise RecordError(Reason.NO_VALUE, "the record has no value")
    try:
        return Feedback.model_validate_json(value)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
    if first["type"] != "json_invalid":
        where = ".".join(str(part) for part in first["loc"])
        raise RecordError(Reason.INVALID, f"`{where}`: {first['msg']}" if where else first["msg"])
    try:
        value.decode()
    except UnicodeDecodeError:
        raise RecordError(Reason.NOT_UTF8, "the value is not UTF-8") from None
    raise RecordError(Reason.NOT_JSON, "the value is not JSON (a lone surrogate and NaN are not either)")


def to_record(feedback: Feedback, topic: str) -> dict[str, Any]:
    """Return topic, key, value and headers as arguments of a producer's `send`."""
    headers = {
        CE_SPECVERSION: SPEC_VERSION,
        CE_TYPE: FEEDBACK_TYPE,
        CE_ID: feedback.id,
        CONTENT_TYPE_HEADER: CONTENT_TYPE,
    }
    return {
        "topic": topic,
        "key": feedback.id.encode(),
        "value": feedback.model_dump_json(exclude_none=True).encode(),
        "headers": [(name, value.encode()) for name, value in headers.items()],
    }


def check_form(feedback: Feedback, spec: TaskSpec) -> None:
    """Raise RecordError `invalid` for a correction of the wrong form. An empty list fits both list forms."""
    refuse_blank(feedback)
    kind = kind_of(spec)
    if not kind.generates and any(len(label) > LABEL_CHARACTERS for label in labels_of(feedback)):
        raise RecordError(Reason.INVALID, f"a label of more than {LABEL_CHARACTERS} characters")
    if feedback.verdict is Verdict.CORRECTION and not kind.accepts_correction(feedback.value):
        raise RecordError(Reason.INVALID, f"a correction of a {kind.name} task is {kind.correction}")


def refuse_blank(feedback: Feedback) -> None:
    """Raise RecordError `invalid` for a blank label in a correction."""
    if not all(labels_of(feedback)):
        raise RecordError(Reason.INVALID, "a label is nothing but white space")


def labels_of(feedback: Feedback) -> list[str]:
    """Return the labels that a correction names, without blanks at their ends."""
    value = feedback.value
    if feedback.verdict is not Verdict.CORRECTION or not isinstance(value, str | list):
        return []
    labels = [value] if isinstance(value, str) else [v.label if isinstance(v, FeedbackSpan) else v for v in value]
    return [trim_blanks(label) for label in labels]


def known_labels(spec: TaskSpec) -> frozenset[str]:
    """Return the labels that a correction may name; for a tagging task those within its tags."""
    return kind_of(spec).known_labels(spec)


def new_labels(labels: Sequence[str], spec: TaskSpec, known: frozenset[str]) -> int:
    """Count labels that an open task does not have. Raises RecordError `invalid` when a closed one lacks them.

    What corrects a reply is no label.
    """
    if kind_of(spec).generates:
        return 0
    new = sum(label not in known for label in labels)
    if new and not spec.open:
        raise RecordError(Reason.INVALID, f"task {spec.name} is closed and has no such label")
    return new
