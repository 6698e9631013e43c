"""Decides which dead letters may be redriven, and builds their records. Pure."""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from ...schemas.deadletter import DeadLetterReason as Reason
from ...schemas.envelope import CE_SOURCE, CONTENT_TYPE_HEADER, REQUEST_ID, REQUEST_TYPE
from ..errors import RecordError
from ..field_paths import FieldPaths
from ..wire.dead_letter_records import Letter, OriginalRecord, original_record, read_original
from ..wire.message import Message
from ..wire.request import Incoming, names_of
from ..wire.retry_record import Coordinates, Retry, retry_message

ORIGINAL = "original"
FIRST_STEP = 0
"""The partition of the topic of retries with the shortest step, where records due at once are read first."""


class Refusal(StrEnum):
    """Why a dead letter is not redriven."""

    CUT = "only the beginning of its value is left"
    UNREADABLE = "the client could not read the record, only its place is known"
    NO_ORIGINAL = "its headers do not say where the original lay"
    TOO_LARGE = "the target takes no record of this size"
    ORDERED = "its topic is answered in the order of the key; --out-of-order sends it all the same"
    UNKNOWN_AGENT = "its agent is not known here, nor its order; name it with --agents, or give --out-of-order"


@dataclass(frozen=True, slots=True)
class Redrive:
    """The target of a redrive, and its conditions.

    `target`: the topic of retries, `original`, or another topic. `app`: the app of a dead letter that names none.
    """

    retries: str
    target: str
    app: str
    agents: Collection[str] = ()
    """Names of the known agents."""
    ordered_topics: Collection[str] = ()
    """Topics that are processed in key order."""
    ordered_agents: Collection[str] = ()
    out_of_order: bool = False
    fields: Mapping[str, FieldPaths] = field(default_factory=dict)
    """Field paths of requests, by topic."""

    def refusal(self, letter: Letter) -> Refusal | None:
        """Return why a dead letter is not redriven; None when it may be."""
        if letter.is_cut:
            return Refusal.CUT
        if letter.fields.reason is Reason.UNREADABLE:
            return Refusal.UNREADABLE
        try:
            topic = original_record(letter).topic
        except RecordError:
            return Refusal.NO_ORIGINAL
        if topic == self.retries:
            return Refusal.NO_ORIGINAL
        return None if self.out_of_order else self._order_refusal(topic, letter.fields.agent)

    def _order_refusal(self, topic: str, agent: str | None) -> Refusal | None:
        if topic in self.ordered_topics or agent in self.ordered_agents:
            return Refusal.ORDERED
        return Refusal.UNKNOWN_AGENT if agent is not None and agent not in self.agents else None

    def message(self, letter: Letter, now: float) -> Message:
        """Return the record to send. Call it only for a dead letter that is not refused."""
        original = original_record(letter)
        if self.target == self.retries:
            fields = letter.fields
            place = Coordinates(original.topic, original.partition, original.offset, original.timestamp)
            retry = Retry(fields.app or self.app, place, fields.agent, now, fields.attempts)
            return retry_message(original, retry, self.retries, FIRST_STEP)
        topic = original.topic if self.target == ORIGINAL else self.target
        partition = original.partition if topic == original.topic else None
        paths = self.fields.get(original.topic)
        request = read_original(original, paths)
        headers = self._id_headers(original, request, topic)
        if request is None or self.fields.get(topic) == paths:
            return Message(topic, original.value, original.key, headers, partition)
        # The other topic's readers look for the fields elsewhere.
        headers = [(name, raw) for name, raw in headers if name not in {CONTENT_TYPE_HEADER, CE_SOURCE}]
        headers += [(CONTENT_TYPE_HEADER, REQUEST_TYPE.encode()), (CE_SOURCE, request.source.encode())]
        return Message(topic, request.plain_value(), original.key, headers, partition)

    def _id_headers(self, original: OriginalRecord, request: Incoming | None, topic: str) -> list[tuple[str, bytes]]:
        """Return the headers that preserve the request's ids."""
        request_id = names_of(original)[0] if request is None else request.request_id
        headers = [(name, raw) for name, raw in original.headers if name != REQUEST_ID]
        headers.append((REQUEST_ID, request_id.encode()))
        if topic != original.topic and not any(name == CE_SOURCE for name, _ in headers):
            headers.append((CE_SOURCE, original.topic.encode()))
        return headers


@dataclass(slots=True)
class Tally:
    """Counts of the dead letters by outcome."""

    chosen: int = 0
    before: int = 0
    """Number that was redriven before."""
    refused: Counter[Refusal] = field(default_factory=Counter)
    sent: int = 0

    @property
    def sendable(self) -> int:
        return self.chosen - self.before - self.refused.total()
