"""Publishes results and dead letters with one idempotent producer, and retries until the broker has decided."""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Container, Sequence
from typing import Self

from aiokafka.errors import ProducerClosed

from ...errors import Closed, DeliveryError, ProcessRefused, RecordTooLarge
from ...observe.logs import get_logger
from ...settings.settings import Settings
from ...wire.message import Message
from .current_producer import CurrentProducer
from .producer import IdempotentProducer, producer_factory
from .refusals import Refusals
from .scopes import POISON
from .send_attempt import Failures, SendAttempt
from .topic_lookup import TopicLookup

log = get_logger(__name__)

_FIRST_WAIT_S, _LONGEST_WAIT_S, _TOPIC_S = 0.1, 5.0, 3.0
_DISCARD_TRIES = 20
_RECORD_OVERHEAD_BYTES, _HEADER_OVERHEAD_BYTES = 100, 10
"""Upper bounds of the overhead of a batch with one record, and of one header."""


class Publisher:
    """Sends messages until the broker has acknowledged or finally refused each of them.

    Owns the producer, which is closed and replaced after a fatal error or when a send is not decided in time. A message
    may then be in its topic twice; consumers deduplicate by the prediction id.

    Invariants:
    - `publish` returns only when every message is decided: None (acknowledged) or a DeliveryError of the scope record,
      topic or process. Failures of the scope broker are retried without limit, those of the process for `give_up_s`;
    - while any call is retrying for these reasons, `taking` is cleared, so that intake can wait for it;
    - a refused message is sent alone before it is decided, so that no message fails because of another in its batch;
    - a failed producer is replaced once, however many calls failed with it.
    """

    def __init__(
        self,
        make: Callable[[], IdempotentProducer],
        *,
        send_timeout_s: float = 30.0,
        linger_ms: int = 2,
        max_request_bytes: int | None = None,
        missing_s: float = 30.0,
        give_up_s: float = 60.0,
        on_retry: Callable[[int], None] = lambda messages: None,
    ) -> None:
        """`max_request_bytes`: a larger message is refused before it is sent. `missing_s`: seconds for which a missing
        topic is not looked up again. `give_up_s`: how long a failure of the scope process is retried.
        """
        self._current = CurrentProducer(make, linger_ms / 1000, give_up_s=give_up_s)
        self._timeout_s = send_timeout_s
        self._max_bytes = max_request_bytes
        self._give_up_s, self._on_retry = give_up_s, on_retry
        self._topics = TopicLookup(lambda: self._current.producer, missing_s=missing_s)
        self._taken: Counter[str] = Counter()
        """Number of acknowledged batches by topic."""
        self._failing: set[Refusals] = set()
        """Of the calls that are retrying."""
        self.declared_topics: frozenset[str] = frozenset()
        """Topics whose refusal is handled without ending the process: an agent is suspended, for example."""
        self.taking = asyncio.Event()
        self.taking.set()

    @classmethod
    def from_settings(cls, settings: Settings, on_retry: Callable[[int], None] = lambda messages: None) -> Self:
        """Return a publisher that is not started."""
        return cls(
            producer_factory(settings.kafka, settings.producer),
            send_timeout_s=settings.producer.send_timeout_s,
            linger_ms=settings.producer.linger_ms,
            max_request_bytes=settings.producer.max_request_bytes,
            give_up_s=settings.health.give_up_s,
            on_retry=on_retry,
        )

    async def start(self) -> None:
        """Connect; raises aiokafka's KafkaConnectionError when no broker answers."""
        await self._current.start()

    async def stop(self) -> None:
        """Close the producer. Messages that are still being retried fail with Closed."""
        self._topics.close()
        await self._current.stop()

    def known_partitions(self, topic: str) -> int | None:
        """Return a topic's number of partitions in the producer's metadata; None while it has none."""
        found = self._topics.known(topic)
        return None if found is None else len(found)

    async def partitions(self, topic: str) -> int:
        """Return how many partitions a topic has: 0 when it does not exist or is not visible to this user.

        Waits while the broker does not answer. Raises Closed when the publisher is stopped.
        """
        return await self._topics.count(topic)

    def forget(self, topic: str) -> None:
        """Forget that a topic was missing: the next use looks it up again."""
        self._topics.forget(topic)

    async def publish(self, messages: Sequence[Message]) -> list[DeliveryError | None]:
        """Send all messages. Returns one entry per message, None where the broker has acknowledged it."""
        decided: list[DeliveryError | None] = [None] * len(messages)
        positions: Collection[int] = range(len(messages))
        if self._max_bytes is not None:
            positions = [p for p in positions if not self._refuse_size(messages[p], decided, p)]
        failures, producer = await self._attempt(messages, positions)
        if failures:
            await self._try_again(messages, decided, failures, producer)
        return decided

    def _refuse_size(self, message: Message, decided: list[DeliveryError | None], position: int) -> bool:
        """Refuse a message that exceeds the client's limit: it would be retried until the process ends."""
        assert self._max_bytes is not None
        size = _size_of(message)
        if size > self._max_bytes:
            decided[position] = RecordTooLarge(f"{size} bytes, at most {self._max_bytes} are sent at once")
        return size > self._max_bytes

    async def _try_again(
        self,
        messages: Sequence[Message],
        decided: list[DeliveryError | None],
        failures: Failures,
        producer: IdempotentProducer | None,
    ) -> None:
        """Resend failed messages until each is decided. `producer`: the one with which they failed."""
        wait_s = _FIRST_WAIT_S
        refusals = Refusals(self._taken, declared=self.declared_topics, give_up_s=self._give_up_s)
        again: list[int] = []
        self._failing.add(refusals)
        try:
            while again := refusals.decide(messages, failures, decided):
                self._update_taking()
                if refusals.pauses:
                    log.warning("results cannot be sent, trying again", messages=len(again), why=_reasons(failures))
                    self._on_retry(len(again))
                    await asyncio.sleep(wait_s)
                    wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
                if any(error is None or isinstance(error, POISON) for error in failures.values()):
                    await self._current.renew(producer)
                failures, producer = await self._attempt(messages, again, refusals.alone)
        except ProcessRefused as error:
            for position in again:
                decided[position] = error
        finally:
            self._failing.discard(refusals)
            self._update_taking()

    def _update_taking(self) -> None:
        if any(refusals.stops_intake for refusals in self._failing):
            self.taking.clear()
        else:
            self.taking.set()

    @property
    def trouble(self) -> str | None:
        """The failure that ends the process when it lasts; None where there is none."""
        return self._current.trouble or next((each.trouble for each in self._failing if each.trouble), None)

    async def _attempt(
        self, messages: Sequence[Message], positions: Collection[int], alone: Container[int] = ()
    ) -> tuple[Failures, IdempotentProducer | None]:
        """Send each message once; those in `alone` get batches of their own. Returns the failures and the producer."""
        producer, batches = self._current.producer, self._current.batches
        if producer is None or batches is None:
            if not self._current.is_replacing:
                raise Closed("the publisher has been stopped")
            return dict.fromkeys(positions, ProducerClosed()), producer
        attempt = SendAttempt(messages, batches, alone, self._topics)
        attempt.add(positions)
        await attempt.add_unknown()
        failures = attempt.failures
        await self._wait(producer, attempt)
        for batch, sent in attempt.sent.items():
            error = batch.done.result() if batch.done.done() else None
            if not batch.done.done() or error is not None:
                failures.update(dict.fromkeys(sent, error))
            else:
                self._taken[messages[sent[0]].topic] += 1
        return failures, producer

    async def _wait(self, producer: IdempotentProducer, attempt: SendAttempt) -> None:
        """Wait until the batches are decided or time out. Messages to a deleted topic are refused."""
        waiting = [batch.done for batch in attempt.sent if not batch.done.done()]
        if not waiting:
            return
        first_s = min(_TOPIC_S, self._timeout_s)
        _, late = await asyncio.wait(waiting, timeout=first_s)
        if not late:
            return
        # The client retries a deleted topic for as long as one that has no leader yet.
        gone = [topic for topic in attempt.topics_of(late) if not await self._topics.refresh(topic)]
        if gone:
            late = await self._discard(producer, attempt, gone)
        if late:
            await asyncio.wait(late, timeout=max(self._timeout_s - first_s, 0.0))

    async def _discard(
        self, producer: IdempotentProducer, attempt: SendAttempt, topics: Collection[str]
    ) -> set["asyncio.Future[BaseException | None]"]:
        """Withdraw batches for deleted topics from the producer; return those that are still undecided.

        A batch left there would be written when a topic of that name is created, after its records got dead letters.
        """
        for _ in range(_DISCARD_TRIES):
            producer.discard_batches(topics)
            left = attempt.undecided(topics)
            if not left:
                break
            await asyncio.wait(left, timeout=_FIRST_WAIT_S)  # in flight: the sender returns it
        else:
            attempt.refuse_topics(topics)
            self._current.exchange(producer)
        return attempt.undecided()


def _size_of(message: Message) -> int:
    size = _RECORD_OVERHEAD_BYTES + len(message.value or b"") + len(message.key or b"")
    for name, raw in message.headers:
        size += len(name) + len(raw) + _HEADER_OVERHEAD_BYTES
    return size


def _reasons(failures: Failures) -> list[str]:
    return sorted({"not decided in time" if error is None else type(error).__name__ for error in failures.values()})
