"""Answered requests on Kafka that nobody has judged, as texts to choose from, and requests to review those that are chosen.

Feedback and reviews are read first: a request whose answer a person has judged, with consent or without, or was asked about already
is left out, whichever agent gave the answer, and so is another request with the same text. Then the latest results, and the requests
that they answer.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, Final, NamedTuple

import msgspec

from ...runtime.errors import RecordError
from ...runtime.kafka.offset_ranges import OffsetRange
from ...runtime.model.inputs import Input, TextPair
from ...runtime.model.kinds.forms import AnswerForm, Reads
from ...runtime.model.kinds.registry import kind_of
from ...runtime.wire.feedback import read_feedback
from ...runtime.wire.message import Message
from ...runtime.wire.request import read_request
from ...schemas import envelope
from ...schemas.manifest import TaskSpec
from ...schemas.result import ModelRef, Source
from ...schemas.review import REVIEW_TYPE, Review, ReviewReason
from ..data.near_texts import near_form, near_id
from ..ingest.join import Keyed
from ..ingest.manifest import Plan
from ..ingest.places import Filter
from ..ingest.results import ResultSource, output_of, read_result
from ..ingest.rules import Unfit
from .pool import Candidate

MOST_CHARACTERS: Final = 100_000
"""Longer requests are left out: a chunk of texts is held at once."""
_ANY_SIZE: Final = 1 << 62


class _Asked(msgspec.Struct):
    """A review, of whatever reason."""

    task: str
    prediction_id: str | None = None
    source: ResultSource | None = None


_read_asked = msgspec.json.Decoder(_Asked).decode


class Answered(NamedTuple):
    """An answered request: who answered, and where it lies."""

    prediction_id: str
    agent: str
    topic: str
    partition: int
    offset: int
    timestamp: int


@dataclass
class Unjudged:
    """The records of one choice. Holds the ids of at most `latest` results, and the texts that were not taken away yet."""

    plan: Plan
    spec: TaskSpec
    latest: int
    answered: int = 0
    """Requests that the latest results answer. They are those that are left out, and those whose texts are held."""
    judged: int = 0
    """Of these, requests whose answer a person has judged or was asked about."""
    unread: int = 0
    """Of these, requests that are gone, or have no text that the task reads."""
    known: set[bytes] = field(default_factory=set)
    """Near ids of the texts of judged requests."""
    texts: list[tuple[Input, Answered]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.requests = self.plan.of("requests")
        self.results = _newest(self.plan.of("results"), self.latest)
        self._known = Filter()
        self._numbers = {(each.topic, each.partition): at for at, each in enumerate(self.requests)}
        self._wanted: list[dict[int, Answered]] = [{} for _ in self.requests]
        self._judged: list[dict[int, int]] = [{} for _ in self.requests]
        """By offset, the timestamp of the request."""
        self._offsets: list[list[int]] = [[] for _ in self.requests]
        self._judged_offsets: list[list[int]] = [[] for _ in self.requests]
        self._fields = {topic: each.fields for topic, each in self.plan.options.inputs.items()}

    def take_feedback(self, number: int, records: Sequence[Keyed]) -> None:
        """Note which predictions people have judged."""
        for record in records:
            try:
                found = read_feedback(record.value)
            except RecordError:
                continue
            self._note(found.prediction_id, found.task, found.source)

    def take_reviews(self, number: int, records: Sequence[Keyed]) -> None:
        """Note which predictions people were asked about."""
        for record in records:
            try:
                found = _read_asked(record.value or b"")
            except (msgspec.MsgspecError, RecursionError):
                continue
            if found.prediction_id is not None:
                self._note(found.prediction_id, found.task, found.source)

    def _note(self, prediction_id: str, task: str, source: Any) -> None:
        if task == self.spec.name:
            self._known.add(_digest(prediction_id))
            if source is not None:
                self._known.add(_digest(_name(source)))

    def take_results(self, number: int, records: Sequence[Keyed]) -> None:
        """Note which requests are wanted."""
        for record in records:
            try:
                result = read_result(record.value or b"")
                output_of(bytes(result.outputs), self.spec.name)
            except (msgspec.MsgspecError, ValueError, RecursionError, Unfit):
                continue
            at = result.source
            place = self._numbers.get((at.topic, at.partition))
            if place is None or result.status == "expired":
                continue
            if _digest(result.prediction_id) in self._known or _digest(_name(at)) in self._known:
                self._judged[place][at.offset] = at.timestamp
                continue
            found = Answered(
                result.prediction_id, result.agent, self.requests[place].topic, at.partition, at.offset, at.timestamp
            )
            self._wanted[place][at.offset] = found

    def results_done(self) -> None:
        """Settle which requests are wanted, and which were judged: by whichever agent's answer."""
        for wanted, judged in zip(self._wanted, self._judged, strict=True):
            self.answered += len(wanted.keys() | judged.keys())
            self.judged += len(judged)
            for offset in judged:
                wanted.pop(offset, None)
        self._offsets = [sorted(each) for each in self._wanted]
        self._judged_offsets = [sorted(each) for each in self._judged]

    def requests_done(self) -> None:
        """Count the requests that were not there any more."""
        self.unread += sum(map(len, self._wanted))

    @property
    def left_out(self) -> int:
        """Requests that are not chosen from."""
        return self.judged + self.unread

    def next_judged(self, number: int, offset: int) -> int:
        """Return the first offset from `offset` on whose request was judged, or one behind all records."""
        return _next_of(self._judged_offsets[number], offset)

    def take_judged(self, number: int, records: Sequence[Keyed]) -> None:
        """Note the texts of judged requests."""
        for record in records:
            if (
                self._judged[number].get(record.offset) == record.timestamp
                and (given := self._read(record)) is not None
            ):
                self.known.add(near_id(near_form(given)))

    def next_wanted(self, number: int, offset: int) -> int:
        """Return the first offset from `offset` on whose request is wanted, or one behind all records."""
        return _next_of(self._offsets[number], offset)

    def take_requests(self, number: int, records: Sequence[Keyed]) -> None:
        """Hold the texts of wanted requests."""
        for record in records:
            answered = self._wanted[number].pop(record.offset, None)
            if answered is None:
                continue
            given = self._read(record) if record.timestamp == answered.timestamp else None
            if given is None:
                self.unread += 1
            else:
                self.texts.append((given, answered))

    def _read(self, record: Keyed) -> Input | None:
        try:
            request = read_request(record, MOST_CHARACTERS, fields=self._fields.get(record.topic))
        except RecordError:
            return None
        if kind_of(self.spec).reads is not Reads.PAIR:
            return request.text
        return None if request.text_pair is None else TextPair(request.text, request.text_pair)


def _newest(ranges: Sequence[OffsetRange], latest: int) -> list[OffsetRange]:
    """Return the ends of the ranges, together at most `latest` records, of each partition as many."""
    each_at_most = max(1, latest // max(1, len(ranges)))
    return [each._replace(start=max(each.start, each.end - each_at_most)) for each in ranges]


def _next_of(offsets: Sequence[int], offset: int) -> int:
    at = bisect_left(offsets, offset)
    return offsets[at] if at < len(offsets) else _ANY_SIZE


def _name(source: Any) -> str:
    """Return a name of a request that no prediction id is."""
    return f"{source.topic}/{source.partition}/{source.offset}/{source.timestamp}"


def _digest(prediction_id: str) -> bytes:
    return blake2b(prediction_id.encode(), digest_size=16).digest()


def make_review(chosen: Candidate, spec: TaskSpec, model: ModelRef) -> Review:
    """Return the request to review a live text. It has no text: the coordinates say where it lies."""
    answered: Answered = chosen.row
    best, second = _best(spec, chosen.answer)
    return Review(
        prediction_id=answered.prediction_id,
        agent=answered.agent,
        task=spec.name,
        why=ReviewReason.SUGGESTED,
        model=model,
        source=Source(
            topic=answered.topic,
            partition=answered.partition,
            offset=answered.offset,
            timestamp=answered.timestamp,
        ),
        predicted=None if best is None else best["label"],
        score=None if best is None else best["score"],
        margin=None if best is None or second is None else round(abs(best["score"] - second["score"]), 7),
        at=datetime.now(UTC),
    )


def _best(spec: TaskSpec, answer: Any) -> tuple[Any, Any]:
    if kind_of(spec).form is not AnswerForm.LABEL:
        return None, None
    first, *others = answer["alternatives"]
    return first, others[0] if others else None


def make_message(review: Review, topic: str) -> Message:
    """Return the record of a review; its id is the same when it is suggested again."""
    value = review.model_dump_json(exclude_none=True).encode()
    headers = [
        (envelope.CE_SPECVERSION, envelope.SPEC_VERSION),
        (envelope.CE_TYPE, REVIEW_TYPE),
        (envelope.CE_ID, f"{review.why.value}/{review.task}/{review.key}"),
        (envelope.CE_SOURCE, envelope.app_source("suggest")),
        (envelope.CE_TIME, review.at.isoformat()),
        (envelope.CONTENT_TYPE_HEADER, envelope.CONTENT_TYPE),
    ]
    return Message(topic, value, review.key.encode(), [(name, text.encode()) for name, text in headers])
