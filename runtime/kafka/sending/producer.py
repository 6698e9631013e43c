"""The idempotent producer: aiokafka's, with what it has no public calls for.

Everything that depends on the internals of aiokafka's producer is here.
"""

import asyncio
import contextlib
from collections.abc import Callable, Collection
from functools import partial
from typing import Any, Final

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import BrokerResponseError, KafkaError, ProducerClosed, UnknownTopicOrPartitionError

from ...observe.logs import get_logger
from ...settings.settings import KafkaSettings, ProducerSettings
from .scopes import Place, Scope, scope_of

log = get_logger(__name__)

_STOP_S: Final = 5.0
_SEQUENCE_NUMBERS: Final = 2**31


class IdempotentProducer(AIOKafkaProducer):  # type: ignore[misc]
    """A producer whose refused batches leave no gap in a partition's sequence numbers, and that can be abandoned.

    When its sender ends, for whatever reason, all that it has and gets fails with ProducerClosed.
    `send_batch` may be called for a partition only when its previous batch is decided.
    """

    def __init__(self, **settings: Any) -> None:
        """Take aiokafka's settings, with `enable_idempotence` set."""
        super().__init__(**settings)
        self._txn_manager.increment_sequence_number = self._advance_sequence

    def _advance_sequence(self, partition: TopicPartition, records: int) -> None:
        """Count records of a partition as sent, or with a negative number as not sent.

        0 follows the highest number, as in the broker. aiokafka goes on with negative numbers, and after 2^31 records of
        a partition the broker would refuse every batch with INVALID_RECORD.
        """
        sequences = self._txn_manager._sequence_numbers
        sequences[partition] = (sequences[partition] + records) % _SEQUENCE_NUMBERS

    async def start(self) -> None:
        """Connect; raises KafkaError when no broker answers."""
        await super().start()
        task = self._sender.sender_task
        # It leaves batches undecided when the sender was cancelled, and raises for a producer without transactions.
        task.remove_done_callback(self._sender._fail_all)
        task.add_done_callback(self._fail_batches)

    def _fail_batches(self, sender: "asyncio.Task[None]") -> None:
        """Fail all batches once the sender has ended: nobody sends them any more."""
        error = None if sender.cancelled() else sender.exception()
        if not self._closed:
            log.error("the producer's sender has ended", why=type(error or asyncio.CancelledError()).__name__)
        waiting = [batch for batches in self._message_accumulator._batches.values() for batch in batches]
        self._message_accumulator.fail_all(ProducerClosed())
        _retrieve_exceptions(*waiting)

    async def send_batch(self, batch: Any, topic: str, *, partition: int) -> "asyncio.Future[Any]":
        """Hand over a batch; the future has the broker's answer."""
        answer: asyncio.Future[Any] = await super().send_batch(batch, topic, partition=partition)
        sent = self._message_accumulator._batches[TopicPartition(topic, partition)][-1]
        sent.future.add_done_callback(partial(self._take_back_sequence, sent))
        return answer

    def _take_back_sequence(self, sent: Any, answer: "asyncio.Future[Any]") -> None:
        """Free the sequence numbers of a refused batch before the partition's next batch is sent.

        aiokafka counts them as used. The broker, which has not appended the batch, would answer the next one with
        OUT_OF_ORDER_SEQUENCE, for which the producer has to be replaced. They may be used again only when the broker
        certainly has not appended the batch, since it drops what it takes for a duplicate: not after an error that
        leaves this open, and not when the batch was sent more than once. Then the producer is replaced.
        """
        error = None if answer.cancelled() else answer.exception()
        if sent.retry_count == 1 and error is not None and _is_refusal(error):
            self._advance_sequence(sent.tp, -sent.record_count)

    def discard_batches(self, topics: Collection[str]) -> None:
        """Fail the batches of topics that wait to be sent. Batches in flight are not affected."""
        waiting = self._message_accumulator._batches
        for partition in [partition for partition in waiting if partition.topic in topics]:
            for batch in waiting.pop(partition):
                if batch.retry_count:  # its callback takes it from the pending ones, where it is not while it waits
                    self._message_accumulator._pending_batches.add(batch)
                batch.failure(UnknownTopicOrPartitionError())
                _retrieve_exceptions(batch)

    async def close(self) -> None:
        """Flush and close; without a flush when that takes longer than 5 s. Raises nothing."""
        with contextlib.suppress(TimeoutError, KafkaError, OSError):
            await asyncio.wait_for(self.stop(), _STOP_S)
            return
        await self._abandon()

    async def _abandon(self) -> None:
        """Close without flushing: otherwise the batches would be sent once the broker is back."""
        for close in (self._sender.close, self.client.close):
            with contextlib.suppress(TimeoutError, KafkaError, OSError):
                async with asyncio.timeout(_STOP_S):
                    await close()


def _retrieve_exceptions(*failed: Any) -> None:
    """Ask failed batches for the exceptions that no caller waits for: asyncio would log them."""
    for batch in failed:
        batch._drain_waiter.exception()


def _is_refusal(error: BaseException) -> bool:
    """Return whether the broker has answered that it does not append a batch. Retriable errors are not its last word."""
    return (
        isinstance(error, BrokerResponseError)
        and not error.retriable
        and scope_of(error, Place.SEND) is not Scope.BROKER
    )


def producer_factory(kafka: KafkaSettings, producer: ProducerSettings) -> Callable[[], IdempotentProducer]:
    """Return a function that makes a producer from the settings; it is called again after a producer has failed."""

    def make() -> IdempotentProducer:
        return IdempotentProducer(**producer_options(kafka, producer))

    return make


def producer_options(kafka: KafkaSettings, producer: ProducerSettings) -> dict[str, Any]:
    """Return the options of every producer of ours: acknowledged by all replicas, and idempotent."""
    return {
        **kafka.client_options(),
        "acks": "all",
        "enable_idempotence": True,
        "linger_ms": producer.linger_ms,
        "max_batch_size": producer.batch_bytes,
        "max_request_size": producer.max_request_bytes,
        "compression_type": producer.compression,
        "request_timeout_ms": kafka.request_timeout_ms,
    }
