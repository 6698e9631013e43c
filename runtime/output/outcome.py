"""What comes of some records: the messages about them, and where to note that they are finished."""

from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol

from aiokafka.structs import ConsumerRecord

from ..errors import Closed, RecordError
from ..kafka.offset_tracker import NotesFinished
from ..observe.tracing import Span
from ..wire.message import Message


class Work(Protocol):
    """A delivered record that an outcome finishes."""

    @property
    def record(self) -> ConsumerRecord: ...
    @property
    def progress(self) -> NotesFinished: ...
    @property
    def attempts(self) -> int:
        """Made at it, this one among them."""


class Given(NamedTuple):
    """A delivered record of which only the record itself is known."""

    record: ConsumerRecord
    progress: NotesFinished
    attempts: int = 1


class Outgoing(NamedTuple):
    """A message on its way, and what it is about."""

    message: Message
    record: ConsumerRecord
    agent: str | None
    essential: bool = False
    """No dead letter takes its place: when it is refused, the record is not finished and the process ends."""
    best_effort: bool = False
    """Dropped and counted when it is refused."""
    any_partition: bool = False
    """Its partition number is a preference: where it is not there, the key decides."""

    def by_key(self) -> "Outgoing":
        """Return the same with the partition left to the key."""
        return self._replace(message=self.message._replace(partition=None))


class Outcome:
    """Filled, then given to the outbox."""

    __slots__ = ("_replaced", "answered", "made", "may_send", "sending", "silent", "spans", "works")

    def __init__(self) -> None:
        self.sending: list[Outgoing] = []
        self.made: dict[int, int] = {}
        """Attempts by the identity of a record that is not among `works` yet."""
        self.works: list[Work] = []
        self.answered: dict[tuple[str, str], list[ConsumerRecord]] = {}
        """(agent, topic) to the records that it answered."""
        self.silent: dict[tuple[str, str], list[ConsumerRecord]] = {}
        """(agent, topic) to the records on which it published no result."""
        self.spans: list[Span] = []
        """Of the traced ones; ended when everything has been acknowledged."""
        self.may_send: Callable[[], Awaitable[bool]] | None = None
        """Asked before something is sent that has waited: whether its partition is still ours. None: it is."""
        self._replaced: set[tuple[int, str | None]] = set()

    async def check_ours(self) -> None:
        """Raise Closed when what has waited may not be sent any more."""
        if self.may_send is not None and not await self.may_send():
            raise Closed("its partition was given up")

    def trace(self, span: Span | None, failed: RecordError | None = None) -> None:
        """End a record's span, if it has one, together with the others."""
        if span is not None:
            self.spans.append(span)
            if failed is not None:
                span.failed(failed.reason)

    def add(self, outgoing: Outgoing) -> None:
        self.sending.append(outgoing)

    def take_back(self, record: ConsumerRecord, agent: str | None) -> bool:
        """Count an agent's part in a record as not answered; False when that was done before."""
        part = (id(record), agent)
        if part in self._replaced:
            return False
        self._replaced.add(part)
        for counted in (self.answered, self.silent):
            for key, records in counted.items():
                if key[0] == agent:
                    counted[key] = [other for other in records if other is not record]
        return True

    def attempts(self, record: ConsumerRecord) -> int:
        """Return how many attempts have been made at a record; 1 where nothing says more."""
        known = (work.attempts for work in self.works if work.record is record)
        return self.made.get(id(record)) or next(known, 1)

    def fail(self, record: ConsumerRecord, error: RecordError) -> None:
        """Mark the span of a record, if it has one, as one that ended with a dead letter."""
        for span in self.spans:
            if span.record is record:
                span.failed(error.reason)
