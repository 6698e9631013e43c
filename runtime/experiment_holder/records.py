"""Reads from records what an experiment counts. Pure: a bad record is one that is skipped, with its reason."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from pydantic import ValidationError

from ...schemas.deadletter import DeadLetterReason
from ...schemas.envelope import CAUSE
from ...schemas.feedback import Feedback
from ...schemas.ids import prediction_id
from ...schemas.request import MAX_ID_BYTES, is_tried
from ..errors import RecordError
from ..experiments.observations import count_answer, count_error, count_ratio
from ..experiments.run import Answer, Content, Reference, Skipped
from ..field_paths import FieldPaths
from ..wire.dead_letter_records import Letter, original_record, read_letter, read_original
from ..wire.message import Record

UNREADABLE: Final = "unreadable"
EXPIRED: Final = "expired"
TRIED: Final = "tried"
"""Somebody tried a text in the console: no unit of an experiment."""
MOST_VALUE: Final = 1e9
"""Maximum value of one event of a ratio: sums of squares stay finite."""
_AT_FAULT: Final = frozenset({DeadLetterReason.AGENT_FAILED, DeadLetterReason.MODEL_FAILED})
"""Reasons of dead letters that say something of the version."""


@dataclass(frozen=True, slots=True)
class Read:
    """A record. `model` and `experiment`: the only ones that it concerns; None: any."""

    content: Content
    model: str | None = None
    experiment: str | None = None


class _Model(msgspec.Struct):
    name: str
    version: int
    variant: str = "current"


class _Output(msgspec.Struct):
    abstained: bool | None = None
    """Only an answer of one label, or of none, has it."""
    reason: Any = None
    score: Any = None


class _Source(msgspec.Struct):
    timestamp: float = 0.0


class _Result(msgspec.Struct):
    request_id: str
    prediction_id: str
    model: _Model | None = None
    outputs: dict[str, _Output] = {}
    status: str = "ok"
    source: _Source | None = None
    metadata: dict[str, str] = {}
    pass_ratio: float | None = None
    conversation: str | None = None
    candidate_failed: bool = False


class _Review(msgspec.Struct):
    why: str
    task: str
    prediction_id: str | None = None
    experiment: str | None = None


class _Ratio(msgspec.Struct):
    name: str
    request_id: str | None = None
    value: float = 1.0


_decode_result: Final = msgspec.json.Decoder(_Result).decode
_decode_review: Final = msgspec.json.Decoder(_Review).decode
_decode_ratio: Final = msgspec.json.Decoder(_Ratio).decode


def read_result(record: Record) -> Read | None:
    """Return what a result or a reply says; None where no version gave it, and for a record of another form."""
    try:
        result = _decode_result(record.value or b"")
    except msgspec.ValidationError:
        return None
    except msgspec.DecodeError:
        return Read(Skipped(UNREADABLE))
    if result.model is None:
        return None
    if is_tried(result.metadata):
        return Read(Skipped(TRIED), result.model.name)
    if result.status == EXPIRED:
        return Read(Skipped(EXPIRED), result.model.name)
    classified = {task: output for task, output in result.outputs.items() if output.abstained is not None}
    reasons = {task: output.reason for task, output in classified.items()}
    answer = Answer(
        key=record.key,
        request_id=result.request_id,
        metadata=result.metadata,
        prediction_id=result.prediction_id,
        counts=count_answer(reasons, candidate_failed=result.candidate_failed),
        version=result.model.version,
        by_candidate=result.model.variant == "candidate",
        pass_ratio=result.pass_ratio,
        conversation=result.conversation,
        scores={task: output.score for task, output in classified.items() if _is_score(output.score)},
        latency_ms=None if result.source is None else _find_latency(record.timestamp, result.source.timestamp),
    )
    return Read(answer, result.model.name)


def _is_score(score: Any) -> bool:
    return isinstance(score, int | float) and 0.0 <= score <= 1.0


def _find_latency(answered_ms: float, asked_ms: float) -> float | None:
    """Return how long after a request a result came; None where one of them has no time."""
    return answered_ms - asked_ms if min(answered_ms, asked_ms) > 0 else None


def read_dead_letter(
    record: Record, models: Mapping[str, str], agents: Mapping[str, str], fields: Mapping[str, FieldPaths]
) -> Read | None:
    """Return what a dead letter says; None where it says nothing of a version.

    `models`: the model of each topic of requests. `agents`: that of each agent, as agents with different models may read
    one topic. `fields`: the field paths of topics.
    """
    letter = read_letter(record)
    if letter is None or letter.reason not in _AT_FAULT or letter.topic not in models:
        return None
    try:
        original = original_record(Letter(record, letter))
    except RecordError:
        return Read(Skipped(UNREADABLE))
    request = read_original(original, fields.get(original.topic))
    if request is None:
        return None
    model = agents.get(letter.agent or "", models[letter.topic])
    if is_tried(request.metadata or {}):
        return Read(Skipped(TRIED), model)
    answer = Answer(
        key=record.key,
        request_id=request.request_id,
        metadata=request.metadata or {},
        prediction_id=prediction_id(letter.agent or "", request.source, request.request_id),
        counts=count_error(),
    )
    return Read(answer, model)


def read_feedback(record: Record) -> Read:
    """Return a person's verdict."""
    try:
        feedback = Feedback.model_validate_json(record.value or b"")
    except ValidationError:
        return Read(Skipped(UNREADABLE))
    model = feedback.model
    reference = Reference(feedback.prediction_id, feedback, model.version if model else None)
    return Read(reference, model.name if model else None)


def read_review(record: Record) -> Read | None:
    """Return that an answer was drawn at random in an experiment; None for other reviews."""
    try:
        review = _decode_review(record.value or b"")
    except msgspec.DecodeError:
        return Read(Skipped(UNREADABLE))
    if review.why != "random" or review.experiment is None or review.prediction_id is None:
        return None
    drawn = review.prediction_id, review.task
    return Read(Reference(review.prediction_id, drawn), experiment=review.experiment)


def read_ratio(record: Record) -> Read:
    """Return events of a ratio of the user's own: `{"name": ..., "request_id": ..., "value": 1}`.

    The request id may be in the header `murmura_cause` instead. An id that no request can have is no event.
    """
    try:
        ratio = _decode_ratio(record.value or b"")
        request_id = ratio.request_id or _find_cause(record)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Read(Skipped(UNREADABLE))
    if not request_id or len(request_id) > MAX_ID_BYTES or not 0.0 <= ratio.value <= MOST_VALUE:
        return Read(Skipped(UNREADABLE))
    return Read(Reference(request_id, count_ratio(ratio.name, ratio.value)))


def _find_cause(record: Record) -> str | None:
    return next((raw.decode() for name, raw in record.headers if name == CAUSE and raw), None)
