"""Records of the dead-letter topic: dead letters, markers of those sent again, and the original in a dead letter. Pure."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from ...schemas.deadletter import CUT, PREFIX, REDRIVEN, DeadLetter
from ...schemas.deadletter_spring import SPRING_HEADERS, has_spring_headers
from ...schemas.envelope import RETRY_HEADERS
from ..errors import RecordError
from .message import Headers, Message, Record
from .request import names_of, read_request
from .retry_record import read_retry


@dataclass(slots=True)
class OriginalRecord:
    """A record as it lay in its topic before it became a dead letter; null headers are kept empty."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers


class Letter(NamedTuple):
    """A dead letter as it lies in its topic."""

    record: Record
    fields: DeadLetter
    redriven: bool = False
    """A marker says that it was sent again."""

    @property
    def is_cut(self) -> bool:
        """Only the beginning of the original's value is left."""
        return any(name == CUT for name, _ in self.record.headers)


def read_letter(record: Record) -> DeadLetter | None:
    """Return the fields of a dead letter; None for a marker and for what is no dead letter of ours."""
    if is_marker(record):
        return None
    try:
        return DeadLetter.from_headers(record.headers)
    except ValueError:
        return None


def marker(record: Record) -> Message:
    """Return the marker of a dead letter, for the same partition. It has no value; its key is only there to have one."""
    place = f"{record.topic}/{record.partition}/{record.offset}".encode()
    return Message(record.topic, None, place, [(REDRIVEN, place)], record.partition)


def is_marker(record: Record) -> bool:
    return record.value is None and any(name == REDRIVEN for name, _ in record.headers)


def marked_offset(record: Record) -> int | None:
    """Return which dead letter of its partition a marker names; None for what is no marker of ours."""
    for name, raw in record.headers if is_marker(record) else ():
        place, _, offset = (raw or b"").decode(errors="replace").rpartition("/")
        if name == REDRIVEN and place == f"{record.topic}/{record.partition}" and offset.isdecimal():
            return int(offset)
    return None


def original_record(letter: Letter) -> OriginalRecord:
    """Return the original: key, value and headers as they came, without what the dead letter added.

    Of a record that came from the topic of retries, it is the one that lay in the first topic. Raises RecordError when
    its headers do not say which that was.
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


def request_id_of(original: OriginalRecord) -> str:
    """Return the id that the original's results have, or would have."""
    try:
        return read_request(original, max_value_bytes=len(original.value or b"") + 1).request_id
    except RecordError:
        return names_of(original)[0]


@dataclass(frozen=True, slots=True)
class Selection:
    """Which dead letters are meant; what is empty or None leaves all."""

    reasons: Collection[str] = ()
    agents: Collection[str] = ()
    """"-": those of no agent."""
    topics: Collection[str] = ()
    """Of the originals."""
    since: float | None = None
    """Seconds since 1970, of the time at which a record was given up."""
    until: float | None = None
    """Exclusive."""
    offsets: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    """Of the dead-letter topic: partition to first offset and the one behind the last."""

    @property
    def is_all(self) -> bool:
        return not (self.reasons or self.agents or self.topics or self.offsets or self.since or self.until)

    def has(self, letter: Letter) -> bool:
        """Say whether a dead letter is among them."""
        fields, record = letter.fields, letter.record
        given_up = fields.time.timestamp()
        return (
            (not self.reasons or fields.reason in self.reasons)
            and (not self.agents or (fields.agent or "-") in self.agents)
            and (not self.topics or fields.topic in self.topics)
            and (self.since is None or given_up >= self.since)
            and (self.until is None or given_up < self.until)
            and (not self.offsets or self._has_offset(record.partition, record.offset))
        )

    def _has_offset(self, partition: int, offset: int) -> bool:
        start, end = self.offsets.get(partition, (0, 0))
        return start <= offset < end


class Group(NamedTuple):
    """What dead letters are counted by."""

    reason: str
    agent: str | None
    topic: str
    version: int


@dataclass(slots=True)
class Count:
    """How many dead letters a group has, and when the first and the last were given up (seconds since 1970)."""

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
