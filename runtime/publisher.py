"""Results and dead letters on their way out: one idempotent producer, and patience until the broker has taken them."""

import asyncio
import contextlib
from collections.abc import Callable, Container, Sequence
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    KafkaError,
    MessageSizeTooLargeError,
    ProducerClosed,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
)
from aiokafka.partitioner import DefaultPartitioner

from .deadletters import Message
from .errors import Closed, DeliveryError, RecordRefused, RecordTooLarge
from .logs import get_logger
from .scopes import POISON, Place, Scope, scope_of
from .settings import KafkaSettings, ProducerSettings

log = get_logger(__name__)

_FIRST_WAIT_S, _LONGEST_WAIT_S, _STOP_S, _TOPIC_S = 0.1, 5.0, 5.0, 3.0

Sent = asyncio.Future[Any]
Failures = dict[int, BaseException | None]
"""Position of a message that was not acknowledged, and why; None: not decided in time."""


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
    - `publish` returns only when every message is decided: None (acknowledged), RecordTooLarge or RecordRefused;
    - while any call has to try again for what is no record's failure, `taking` is cleared, so that intake can wait for it;
    - a producer that has failed is replaced once, however many calls failed with it.
    """

    def __init__(
        self,
        make: Callable[[], AIOKafkaProducer],
        *,
        send_timeout_s: float = 30.0,
        on_retry: Callable[[int], None] = lambda messages: None,
    ) -> None:
        self._make = make
        self._timeout_s = send_timeout_s
        self._on_retry = on_retry
        self._producer: AIOKafkaProducer | None = None
        self._retired: Sent | None = None
        self._renewing = asyncio.Lock()
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
        self._retired = asyncio.get_running_loop().create_future()
        self._producer = producer

    async def stop(self) -> None:
        """Close the producer. Messages that are still being tried fail with Closed."""
        producer, self._producer = self._producer, None
        self._retire()
        if producer is not None:
            await _close(producer)

    def known_partitions(self, topic: str) -> int | None:
        """Return how many partitions the producer takes a topic to have; None while it knows nothing of it."""
        found = self._producer.client.cluster.partitions_for_topic(topic) if self._producer is not None else None
        return len(found) if found else None

    async def partitions(self, topic: str) -> int:
        """Return how many partitions a topic has: 0 when the broker says that there is none, or none for us.

        Waits for a broker that says nothing; raises Closed when the publisher is stopped meanwhile.
        """
        wait_s = _FIRST_WAIT_S
        while True:
            async with self._renewing:
                producer = self._producer
            if producer is None:
                raise Closed("the publisher has been stopped")
            try:
                async with asyncio.timeout(_TOPIC_S):
                    return len(await producer.partitions_for(topic))
            except TopicAuthorizationFailedError:
                return 0
            except (TimeoutError, KafkaError, OSError) as error:
                if isinstance(error, POISON):
                    await self._renew(producer)
                elif await _lacks(producer, topic):
                    return 0
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)

    async def publish(self, messages: Sequence[Message]) -> list[DeliveryError | None]:
        """Send all messages; one entry for each comes back, None where the broker has acknowledged it."""
        decided: list[DeliveryError | None] = [None] * len(messages)
        failures, producer = await self._attempt(messages, range(len(messages)))
        if failures:
            await self._try_again(messages, decided, failures, producer)
        return decided

    async def _try_again(
        self,
        messages: Sequence[Message],
        decided: list[DeliveryError | None],
        failures: Failures,
        producer: AIOKafkaProducer | None,
    ) -> None:
        """Send what failed until each message is decided. `producer`: the one with which it failed."""
        wait_s = _FIRST_WAIT_S
        alone: set[int] = set()
        obstructs = False
        try:
            while again := [
                position for position in failures if not _decide(failures[position], alone, decided, position)
            ]:
                # A broker refuses a whole batch for one of its records: each gets a batch of its own now, at once.
                refused = {position for position in again if _concerns_record(failures[position])}
                alone |= refused
                if len(refused) < len(again):
                    if not obstructs:
                        obstructs = True
                        self._obstruct(+1)
                    log.warning("results cannot be sent, trying again", messages=len(again), why=_reasons(failures))
                    self._on_retry(len(again))
                    await asyncio.sleep(wait_s)
                    wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
                    if any(error is None or isinstance(error, POISON) for error in failures.values()):
                        await self._renew(producer)
                failures, producer = await self._attempt(messages, again, alone)
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
        self, messages: Sequence[Message], positions: Sequence[int], alone: Container[int] = ()
    ) -> tuple[Failures, AIOKafkaProducer | None]:
        """Send each message once; those in `alone` share no batch with others. Return what failed, and the producer."""
        producer, retired = self._producer, self._retired
        if producer is None or retired is None:
            if not self._renewing.locked():
                raise Closed("the publisher has been stopped")
            return dict.fromkeys(positions, ProducerClosed()), producer
        failures: Failures = {}
        sent: list[tuple[int, Sent]] = []
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._timeout_s):
                for position in positions:
                    try:
                        send = _send_alone if position in alone else _send
                        sent.append((position, await send(producer, messages[position])))
                    except (KafkaError, OSError) as error:
                        failures[position] = error
                for _, future in sent:
                    # Acknowledged by batch: behind the first of a batch the others are done. `wait` leaves the future
                    # alone when the time is up; awaiting it would cancel it.
                    if not future.done() and not retired.done():
                        await asyncio.wait((future, retired), return_when=asyncio.FIRST_COMPLETED)
        for position, future in sent:
            if not future.done() or future.cancelled():
                failures[position] = None
            elif (refusal := future.exception()) is not None:
                failures[position] = refusal
        if len(sent) + len(failures) < len(positions):  # the time was up before all were handed to the producer
            handed = {position for position, _ in sent}
            failures.update({p: failures.get(p) for p in positions if p not in handed})
        return failures, producer

    async def _renew(self, broken: AIOKafkaProducer | None) -> None:
        """Close a producer that has failed and make another; does nothing where that has been done already."""
        async with self._renewing:
            if self._producer is not broken or broken is None:
                return
            self._producer = None
            self._retire()
            await _close(broken)
            try:
                await self.start()
            except (KafkaError, OSError) as error:
                # Still no broker. The closed producer stays in place: the next attempt finds it closed and comes here.
                log.warning("no broker answers", why=type(error).__name__)
                self._producer, self._retired = broken, asyncio.get_running_loop().create_future()

    def _retire(self) -> None:
        if self._retired is not None and not self._retired.done():
            self._retired.set_result(None)


async def _send(producer: AIOKafkaProducer, message: Message) -> Sent:
    topic, value, key, headers, partition = message
    if value is None and key is None:
        return await _send_alone(producer, message)  # Kafka knows such records, `send` does not
    sent: Sent = await producer.send(topic, value, key, partition, headers=headers)
    return sent


async def _send_alone(producer: AIOKafkaProducer, message: Message) -> Sent:
    """Send a record in a batch of its own."""
    builder = producer.create_batch()
    builder.append(timestamp=None, key=message.key, value=message.value, headers=message.headers)
    builder.close()
    partition = message.partition
    if partition is None:
        partitions = sorted(await producer.partitions_for(message.topic))
        partition = DefaultPartitioner()(message.key, partitions, partitions)
    sent: Sent = await producer.send_batch(builder, message.topic, partition=partition)
    return sent


def _concerns_record(error: BaseException | None) -> bool:
    """Say whether an error is the failure of a record, so that it is refused by itself and nothing else has to wait."""
    return error is not None and scope_of(error, Place.SEND) is Scope.RECORD


def _decide(
    error: BaseException | None, alone: Container[int], decided: list[DeliveryError | None], position: int
) -> bool:
    """Note a refusal that no second try can change; False for everything else."""
    if position not in alone or not _concerns_record(error):
        return False
    if isinstance(error, MessageSizeTooLargeError | RecordListTooLargeError):
        decided[position] = RecordTooLarge("the broker takes no record of this size")
    else:
        decided[position] = RecordRefused(f"the broker refuses it: {type(error).__name__}")
    return True


def _reasons(failures: Failures) -> list[str]:
    return sorted({"not decided in time" if error is None else type(error).__name__ for error in failures.values()})


async def _lacks(producer: AIOKafkaProducer, topic: str) -> bool:
    """Say whether the broker has just told that it does not have the topic."""
    with contextlib.suppress(TimeoutError, KafkaError, OSError):
        async with asyncio.timeout(_TOPIC_S):
            fresh = await producer.client.force_metadata_update()
            return bool(fresh) and producer.client.cluster.partitions_for_topic(topic) is None
    return False


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
