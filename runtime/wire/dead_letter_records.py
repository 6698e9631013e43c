"""Records of the dead-letter topic: dead letters, redrive markers, and the original in a dead letter. Pure."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from ...schemas.deadletter import CUT, PREFIX, REDRIVEN, DeadLetter
from ...schemas.deadletter_spring import SPRING_HEADERS, has_spring_headers
from ...schemas.envelope import RETRY_HEADERS
from ..errors import RecordError
from ..field_paths import FieldPaths
from .message import Headers, Message, Record
from .request import Incoming, read_request
from .retry_record import read_retry


@dataclass(slots=True)
class OriginalRecord:
    """The record in its topic before it became a dead letter; null headers are empty."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers


class Letter(NamedTuple):
    """A dead letter with its coordinates in the dead-letter topic."""

    record: Record
    fields: DeadLetter
    redriven: bool = False
    """Whether a marker says that it was redriven."""

    @property
    def is_cut(self) -> bool:
        """Whether only the start of the original's value is left."""
        return any(name == CUT for name, _ in self.record.headers)


def read_letter(record: Record) -> DeadLetter | None:
    """Return the fields of a dead letter; None for a marker or a foreign record."""
    if is_marker(record):
        return None
    try:
        return DeadLetter.from_headers(record.headers)
    except ValueError:
        return None


def marker(record: Record) -> Message:
    """Return the redrive marker of a dead letter, for the same partition. It has no value; its key has no meaning."""
    place = f"{record.topic}/{record.partition}/{record.offset}".encode()
    return Message(record.topic, None, place, [(REDRIVEN, place)], record.partition)


def is_marker(record: Record) -> bool:
    return record.value is None and any(name == REDRIVEN for name, _ in record.headers)


def marked_offset(record: Record) -> int | None:
    """Return the offset of the dead letter that a marker names; None for a record that is not a marker of ours."""
    for name, raw in record.headers if is_marker(record) else ():
        place, _, offset = (raw or b"").decode(errors="replace").rpartition("/")
        if name == REDRIVEN and place == f"{record.topic}/{record.partition}" and offset.isdecimal():
            return int(offset)
    return None


def original_record(letter: Letter) -> OriginalRecord:
    """Return the original: key, value and headers as received, without those that the dead letter added.

    For a record from the topic of retries, it is the record of the first topic. Raises RecordError when the headers do
    not name its coordinates.
    """
    record, fields = letter.record, letter.fields
    spring = has_spring_headers(fields, record.headers)
    headers = tuple(
        (name, raw or b"")
        for name, raw in record.headers
        if not name.startswith(PREFIX) and not (spring and name in SPRING_HEADERS)
    )
    place = (fields.topic, fields.partition, fields.offset, fields.timestamp)
    found = OriginalRecord(*place, record.key, record.value, headers)
    if any(name in RETRY_HEADERS for name, _ in headers):
        first = read_retry(found).original
        kept = tuple((name, raw) for name, raw in headers if name not in RETRY_HEADERS)
        return OriginalRecord(*first, record.key, record.value, kept)
    return found


def read_original(original: OriginalRecord, fields: FieldPaths | None = None) -> Incoming | None:
    """Return the request in an original; None where there is none. `fields`: the field paths of its topic."""
    try:
        return read_request(original, max_value_bytes=len(original.value or b"") + 1, fields=fields)
    except RecordError:
        return None


@dataclass(frozen=True, slots=True)
class Selection:
    """Filters of dead letters; an empty or None field does not filter."""

    reasons: Collection[str] = ()
    agents: Collection[str] = ()
    """"-" selects dead letters without an agent."""
    topics: Collection[str] = ()
    """Topics of the originals."""
    since: float | None = None
    """Earliest time of the failure, Unix time in seconds."""
    until: float | None = None
    """Latest time of the failure, exclusive."""
    offsets: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    """By partition of the dead-letter topic: first offset, and the one after the last."""

    @property
    def is_all(self) -> bool:
        return not (self.reasons or self.agents or self.topics or self.offsets or self.since or self.until)

    def has(self, letter: Letter) -> bool:
        """Return whether a dead letter matches."""
        fields, record = letter.fields, letter.record
        given_up = fields.time.timestamp()
        return (
            (not self.reasons or fields.reason in self.reasons)
            and (not self.agents or (fields.agent or "-") in self.agents)
            and (not self.topics or fields.topic in self.topics)
            and (self.since is None or given_up >= self.since)
            and (self.until is None or given_up < self.until)
            and self.has_offset(record.partition, record.offset)
        )

    def has_offset(self, partition: int, offset: int) -> bool:
        if not self.offsets:
            return True
        start, end = self.offsets.get(partition, (0, 0))
        return start <= offset < end


class Group(NamedTuple):
    """The fields by which dead letters are counted."""

    reason: str
    agent: str | None
    topic: str
    version: int


@dataclass(slots=True)
class Count:
    """The number of dead letters of a group, and the times of the first and the last failure (Unix time, s)."""

    letters: int = 0
    redriven: int = 0
    first: float = float("inf")
    last: float = float("-inf")

    def add(self, letter: Letter) -> None:
        given_up = letter.fields.time.timestamp()
        self.letters += 1
        self.redriven += letter.redriven
        self.first, self.last = min(self.first, given_up), max(self.last, given_up)


def group_of(letter: Letter) -> Group:
    fields = letter.fields
    return Group(fields.reason.value, fields.agent, fields.topic, fields.version)
