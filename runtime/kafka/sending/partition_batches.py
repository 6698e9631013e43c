"""Groups messages into batches by partition for a producer, with one future per batch instead of one per message."""

import asyncio
from collections import deque
from functools import partial
from typing import Any

from aiokafka.errors import ProducerClosed

from ...wire.message import Message
from .producer import IdempotentProducer

Partition = tuple[str, int]
"""Topic and partition."""


class Batch:
    """Messages of one partition, which the broker accepts or refuses together.

    `done` is resolved with None when they are acknowledged, else with the error.
    """

    __slots__ = ("builder", "done")

    def __init__(self, builder: Any, done: "asyncio.Future[BaseException | None]") -> None:
        self.builder = builder
        self.done = done

    def settle(self, error: BaseException | None) -> None:
        if not self.done.done():
            self.done.set_result(error)

    def settle_by(self, sent: "asyncio.Future[Any]") -> None:
        """Resolve `done` from the producer's future of the batch."""
        self.settle(ProducerClosed() if sent.cancelled() else sent.exception())


class PartitionBatches:
    """The batches of one producer that are not acknowledged.

    While a batch of a partition is in flight, later messages join the next one, so batches grow with the load. The
    producer sends one batch of a partition at a time in any case, to keep their order.

    Invariants:
    - batches of a partition are handed over in their order, one after another;
    - every batch is settled, at the latest by `abandon`.
    """

    def __init__(self, producer: IdempotentProducer, linger_s: float) -> None:
        """`linger_s`: how long the first message of a batch waits for more."""
        self._producer = producer
        self._linger_s = linger_s
        self._loop = asyncio.get_running_loop()
        self._queues: dict[Partition, deque[Batch]] = {}
        self._open: dict[Partition, Batch] = {}
        self._unsettled: set[Batch] = set()
        self._feeding: dict[Partition, asyncio.Task[None]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, partition: Partition, message: Message, *, alone: bool = False) -> Batch:
        """Append a message to a batch; with `alone`, to a batch of its own. Raises TypeError for an invalid message."""
        batch = None if alone else self._open.get(partition)
        if batch is not None and _append(batch.builder, message):
            return batch
        batch = Batch(self._producer.create_batch(), self._loop.create_future())
        _append(batch.builder, message)  # the first message of a batch always fits
        self._unsettled.add(batch)
        batch.done.add_done_callback(lambda done: self._unsettled.discard(batch))
        self._queues.setdefault(partition, deque()).append(batch)
        if alone:
            self._open.pop(partition, None)  # later messages must not be sent before it
        else:
            self._open[partition] = batch
        if self._timer is None:
            self._timer = self._loop.call_later(self._linger_s, self._feed_all)
        return batch

    def abandon(self, error: BaseException | None = None) -> None:
        """Settle all batches that are not acknowledged with an error, by default ProducerClosed.

        The producer may still send what it has.
        """
        error = error or ProducerClosed()
        for task in self._feeding.values():
            task.cancel()
        if self._timer is not None:
            self._timer.cancel()
        self._queues.clear()
        self._open.clear()
        for batch in list(self._unsettled):
            batch.settle(error)

    def _feed_all(self) -> None:
        self._timer = None
        for partition, queue in self._queues.items():
            if queue and partition not in self._feeding:
                task = self._loop.create_task(self._feed(partition))
                self._feeding[partition] = task
                task.add_done_callback(partial(self._on_fed, partition))

    def _on_fed(self, partition: Partition, task: "asyncio.Task[None]") -> None:
        self._feeding.pop(partition, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.abandon(error)

    async def _feed(self, partition: Partition) -> None:
        """Give the batches of a partition to the producer, each after the previous one is decided."""
        queue = self._queues[partition]
        topic, number = partition
        while queue:
            batch = queue.popleft()
            if self._open.get(partition) is batch:
                del self._open[partition]
            batch.builder.close()
            try:
                sent = await self._producer.send_batch(batch.builder, topic, partition=number)
            except Exception as error:  # noqa: BLE001 - a caller waits for the batch
                batch.settle(error)
            else:
                sent.add_done_callback(batch.settle_by)
                await asyncio.wait((batch.done,))
        del self._queues[partition]


def _append(builder: Any, message: Message) -> bool:
    return builder.append(timestamp=None, key=message.key, value=message.value, headers=message.headers) is not None
