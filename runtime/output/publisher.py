"""Results and dead letters on their way out: one idempotent producer, and patience until the broker has decided."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Collection, Container, Sequence

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, ProducerClosed, UnknownTopicOrPartitionError

from ..errors import Closed, DeliveryError, RecordTooLarge
from ..kafka.scopes import POISON
from ..observe.logs import get_logger
from ..settings.settings import KafkaSettings, ProducerSettings
from ..wire.message import Message
from .partition_batches import PartitionBatches
from .refusals import Refusals
from .send_attempt import Failures, SendAttempt
from .topic_lookup import TopicLookup

log = get_logger(__name__)

_FIRST_WAIT_S, _LONGEST_WAIT_S, _STOP_S, _TOPIC_S = 0.1, 5.0, 5.0, 3.0
_DISCARD_TRIES = 20
_RECORD_OVERHEAD_BYTES, _HEADER_OVERHEAD_BYTES = 100, 10
"""More than what a batch of one record, and a header in it, add to the bytes that they hold."""


def producer_factory(kafka: KafkaSettings, producer: ProducerSettings) -> Callable[[], AIOKafkaProducer]:
    """Return what makes a producer with the settings; it is called again when one has broken."""

    def make() -> AIOKafkaProducer:
        return AIOKafkaProducer(
            **kafka.client_options(),
            acks="all",
            enable_idempotence=True,
            linger_ms=producer.linger_ms,
            max_batch_size=producer.batch_bytes,
            max_request_size=producer.max_request_bytes,
            compression_type=producer.compression,
            request_timeout_ms=kafka.request_timeout_ms,
        )

    return make


class Publisher:
    """Sends messages until the broker has acknowledged each, or has refused it for good.

    Owns the producer, which is closed and made again after an error that poisons it or when a send was not decided in
    time. The message may then be in its topic twice; receivers tell by the prediction id.

    Invariants:
    - `publish` returns only when every message is decided: None (acknowledged) or a DeliveryError, whose scope is that of
      the record, the topic or the process. What is the broker's failure is tried again for as long as it takes;
    - while any call has to try again for that reason, `taking` is cleared, so that intake can wait for it;
    - what a broker refuses is sent alone before it is decided, so that no message suffers for its neighbour;
    - a producer that has failed is replaced once, however many calls failed with it.
    """

    def __init__(
        self,
        make: Callable[[], AIOKafkaProducer],
        *,
        send_timeout_s: float = 30.0,
        linger_ms: int = 2,
        max_request_bytes: int | None = None,
        missing_s: float = 30.0,
        on_retry: Callable[[int], None] = lambda messages: None,
    ) -> None:
        """`max_request_bytes`: a larger message is refused before it is sent. `missing_s`: how long a topic that is not
        there is not asked for again.
        """
        self._make = make
        self._timeout_s, self._linger_s = send_timeout_s, linger_ms / 1000
        self._max_bytes = max_request_bytes
        self._on_retry = on_retry
        self._producer: AIOKafkaProducer | None = None
        self._batches: PartitionBatches | None = None
        self._renewing = asyncio.Lock()
        self._closing: set[asyncio.Task[None]] = set()
        self._topics = TopicLookup(lambda: self._producer, missing_s=missing_s)
        self._taken: Counter[str] = Counter()
        """Batches acknowledged, by topic."""
        self._obstructed = 0
        self.taking = asyncio.Event()
        self.taking.set()

    async def start(self) -> None:
        """Connect; raises aiokafka's KafkaConnectionError when no broker answers."""
        producer = self._make()
        try:
            await producer.start()
        except BaseException:
            await _close(producer)
            raise
        self._producer, self._batches = producer, PartitionBatches(producer, self._linger_s)

    async def stop(self) -> None:
        """Close the producer. Messages that are still being tried fail with Closed."""
        producer, batches = self._producer, self._batches
        self._producer = self._batches = None
        self._topics.close()
        if producer is not None:
            await _close(producer)
        if batches is not None:
            batches.abandon(ProducerClosed())
        if self._closing:
            await asyncio.wait(self._closing, timeout=_STOP_S)

    def known_partitions(self, topic: str) -> int | None:
        """Return how many partitions the producer takes a topic to have; None while it knows nothing of it."""
        found = self._topics.known(topic)
        return None if found is None else len(found)

    async def partitions(self, topic: str) -> int:
        """Return how many partitions a topic has: 0 when the broker says that there is none, or none for us.

        Waits for a broker that says nothing; raises Closed when the publisher is stopped meanwhile.
        """
        return await self._topics.count(topic)

    def forget(self, topic: str) -> None:
        """Ask the broker anew for a topic that was not there a moment ago, the next time it is used."""
        self._topics.forget(topic)

    async def look_again(self, topic: str) -> int:
        """Return how many partitions a topic has, asking the broker even if it was not there a moment ago."""
        self._topics.forget(topic)
        return await self._topics.count(topic)

    async def publish(self, messages: Sequence[Message]) -> list[DeliveryError | None]:
        """Send all messages; one entry for each comes back, None where the broker has acknowledged it."""
        decided: list[DeliveryError | None] = [None] * len(messages)
        positions: Collection[int] = range(len(messages))
        if self._max_bytes is not None:
            positions = [p for p in positions if not self._refuse_size(messages[p], decided, p)]
        failures, producer = await self._attempt(messages, positions)
        if failures:
            await self._try_again(messages, decided, failures, producer)
        return decided

    def _refuse_size(self, message: Message, decided: list[DeliveryError | None], position: int) -> bool:
        """Refuse what no broker would take from this client: it would be tried until somebody restarts the process."""
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
        producer: AIOKafkaProducer | None,
    ) -> None:
        """Send what failed until each message is decided. `producer`: the one with which it failed."""
        wait_s = _FIRST_WAIT_S
        refusals = Refusals(self._taken)
        obstructs = False
        try:
            while again := _undecided(messages, failures, decided, refusals):
                # A broker refuses a whole batch for one of its records: each gets a batch of its own now, at once.
                if any(not refusals.concerns_record(failures[position]) for position in again):
                    if not obstructs:
                        obstructs = True
                        self._obstruct(+1)
                    log.warning("results cannot be sent, trying again", messages=len(again), why=_reasons(failures))
                    self._on_retry(len(again))
                    await asyncio.sleep(wait_s)
                    wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
                if any(error is None or isinstance(error, POISON) for error in failures.values()):
                    await self._renew(producer)
                failures, producer = await self._attempt(messages, again, refusals.alone)
        finally:
            if obstructs:
                self._obstruct(-1)

    def _obstruct(self, change: int) -> None:
        self._obstructed += change
        if self._obstructed:
            self.taking.clear()
        else:
            self.taking.set()

    async def _attempt(
        self, messages: Sequence[Message], positions: Collection[int], alone: Container[int] = ()
    ) -> tuple[Failures, AIOKafkaProducer | None]:
        """Send each message once; those in `alone` share no batch with others. Return what failed, and the producer."""
        producer, batches = self._producer, self._batches
        if producer is None or batches is None:
            if not self._renewing.locked():
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

    async def _wait(self, producer: AIOKafkaProducer, attempt: SendAttempt) -> None:
        """Wait until the batches are decided, or their time is up. What waits for a topic that is gone is refused."""
        waiting = [batch.done for batch in attempt.sent if not batch.done.done()]
        if not waiting:
            return
        first_s = min(_TOPIC_S, self._timeout_s)
        _, late = await asyncio.wait(waiting, timeout=first_s)
        if not late:
            return
        # The client tries a topic that was deleted as long as one whose leader is being chosen.
        gone = [topic for topic in attempt.topics_of(late) if not await self._topics.refresh(topic)]
        if gone:
            late = await self._discard(producer, attempt, gone)
        if late:
            await asyncio.wait(late, timeout=max(self._timeout_s - first_s, 0.0))

    async def _discard(
        self, producer: AIOKafkaProducer, attempt: SendAttempt, topics: Collection[str]
    ) -> set["asyncio.Future[BaseException | None]"]:
        """Take what waits for topics that are gone back from the producer; return what is then still undecided.

        Left there it would be written when a topic of that name is made, after something else has become of it.
        """
        for _ in range(_DISCARD_TRIES):
            _discard_batches(producer, topics)
            left = attempt.undecided(topics)
            if not left:
                break
            await asyncio.wait(left, timeout=_FIRST_WAIT_S)  # on its way: it comes back from there
        else:
            attempt.refuse_topics(topics)
            self._replace(producer)
        return attempt.undecided()

    async def _renew(self, broken: AIOKafkaProducer | None) -> None:
        """Close a producer that has failed and make another; does nothing where that has been done already."""
        async with self._renewing:
            if self._producer is not broken or broken is None:
                return
            batches = self._batches
            self._producer = self._batches = None
            await _close(broken)
            if batches is not None:
                batches.abandon(ProducerClosed())
            try:
                await self.start()
            except (KafkaError, OSError) as error:
                # Still no broker. The closed producer stays in place: the next attempt finds it closed and comes here.
                log.warning("no broker answers", why=type(error).__name__)
                self._producer, self._batches = broken, PartitionBatches(broken, self._linger_s)

    def _replace(self, stuck: AIOKafkaProducer) -> None:
        """Let another producer take over, and end one that holds what it will never get rid of, in the background."""
        task = asyncio.get_running_loop().create_task(self._replaced(stuck))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _replaced(self, stuck: AIOKafkaProducer) -> None:
        async with self._renewing:
            batches = self._batches
            if self._producer is not stuck:
                return
            try:
                await self.start()
            except (KafkaError, OSError) as error:
                log.warning("no broker answers", why=type(error).__name__)
                return
        await _close(stuck)
        if batches is not None:
            batches.abandon(ProducerClosed())


def _size_of(message: Message) -> int:
    size = _RECORD_OVERHEAD_BYTES + len(message.value or b"") + len(message.key or b"")
    for name, raw in message.headers:
        size += len(name) + len(raw) + _HEADER_OVERHEAD_BYTES
    return size


def _undecided(
    messages: Sequence[Message],
    failures: Failures,
    decided: list[DeliveryError | None],
    refusals: Refusals,
) -> list[int]:
    """Note what is decided, and return the positions of what is to be tried again."""
    again = []
    for position, error in failures.items():
        decided[position] = refusals.decide(position, messages[position], error)
        if decided[position] is None:
            again.append(position)
    return again


def _reasons(failures: Failures) -> list[str]:
    return sorted({"not decided in time" if error is None else type(error).__name__ for error in failures.values()})


def _discard_batches(producer: AIOKafkaProducer, topics: Collection[str]) -> None:
    """Fail the batches that wait in a producer for topics. aiokafka has no call for that, only its parts have."""
    waiting = producer._message_accumulator._batches
    for partition in [partition for partition in waiting if partition.topic in topics]:
        for batch in waiting.pop(partition):
            batch.failure(UnknownTopicOrPartitionError())


async def _close(producer: AIOKafkaProducer) -> None:
    with contextlib.suppress(TimeoutError, KafkaError, OSError):
        await asyncio.wait_for(producer.stop(), _STOP_S)
        return
    await _abandon(producer)


async def _abandon(producer: AIOKafkaProducer) -> None:
    """End a producer that cannot be flushed: left alone, it would send what it holds once the broker is back.

    aiokafka has no call for that, only its parts have.
    """
    with contextlib.suppress(TimeoutError, KafkaError, OSError):
        async with asyncio.timeout(_STOP_S):
            await producer._sender.close()
            producer._message_accumulator.fail_all(ProducerClosed())
            await producer.client.close()
