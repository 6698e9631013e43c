"""One attempt to send messages: the partition of each, and its batch."""

import asyncio
import random
from collections.abc import Container, Iterable, Sequence

from aiokafka.errors import UnknownTopicOrPartitionError
from aiokafka.partitioner import DefaultPartitioner

from ...errors import PartitionMissing
from ...wire.message import Message
from .partition_batches import Batch, PartitionBatches
from .topic_lookup import TopicLookup

Failures = dict[int, BaseException | None]
"""By position of a message that was not acknowledged: its error; None: not decided in time."""


class SendAttempt:
    """Puts the messages of one attempt into batches. `failures` holds those that are in no batch."""

    def __init__(
        self, messages: Sequence[Message], batches: PartitionBatches, alone: Container[int], topics: TopicLookup
    ) -> None:
        self._messages, self._batches, self._alone, self._topics = messages, batches, alone, topics
        self._partitions: dict[str, list[int]] = {}
        self._unknown: list[int] = []
        self._keyless: dict[str, int] = {}
        self.sent: dict[Batch, list[int]] = {}
        self.failures: Failures = {}

    def add(self, positions: Iterable[int]) -> None:
        """Put the messages of known topics and partitions into batches, and collect the others."""
        for position in positions:
            message = self._messages[position]
            topic = message.topic
            partitions = self._partitions.get(topic)
            if partitions is None:
                known = self._topics.known(topic)
                if known is None:
                    self._unknown.append(position)
                    continue
                partitions = self._partitions[topic] = sorted(known)
            partition = self._choose(message, partitions)
            if partition is None:
                self._unknown.append(position)
                continue
            try:
                batch = self._batches.add((topic, partition), message, alone=position in self._alone)
            except Exception as error:  # noqa: BLE001 - not a broker error: the message is invalid
                self.failures[position] = error
                continue
            self.sent.setdefault(batch, []).append(position)

    async def add_unknown(self) -> None:
        """Look up the unknown topics and partitions, all at once, and put their messages into batches."""
        if not self._unknown:
            return
        unknown, self._unknown = self._unknown, []
        topics = list(dict.fromkeys(self._messages[position].topic for position in unknown))
        counts = dict(zip(topics, await asyncio.gather(*map(self._ask, topics)), strict=True))
        for position in unknown:
            if counts[self._messages[position].topic] == 0:
                self.failures[position] = UnknownTopicOrPartitionError()
        self.add(position for position in unknown if position not in self.failures)
        for position in self._unknown:
            message = self._messages[position]
            found = counts[message.topic]
            self.failures[position] = PartitionMissing(f"partition {message.partition}, of which there are {found}")

    async def _ask(self, topic: str) -> int:
        if topic in self._partitions:  # the partition is not known: it may be new
            del self._partitions[topic]
            return len(await self._topics.refresh(topic))
        return await self._topics.count(topic)

    def undecided(self, topics: Container[str] | None = None) -> set["asyncio.Future[BaseException | None]"]:
        """Return the futures of the batches that are not decided, of all topics or of `topics`."""
        return {
            batch.done
            for batch, sent in self.sent.items()
            if not batch.done.done() and (topics is None or self._messages[sent[0]].topic in topics)
        }

    def topics_of(self, waiting: Container["asyncio.Future[BaseException | None]"]) -> list[str]:
        """Return the topics of the batches whose futures are in `waiting`."""
        late = (sent[0] for batch, sent in self.sent.items() if batch.done in waiting)
        return list(dict.fromkeys(self._messages[position].topic for position in late))

    def refuse_topics(self, topics: Container[str]) -> None:
        """Fail the batches of deleted topics."""
        for batch, sent in self.sent.items():
            if self._messages[sent[0]].topic in topics and not batch.done.done():
                batch.settle(UnknownTopicOrPartitionError())

    def _choose(self, message: Message, partitions: list[int]) -> int | None:
        """Return the partition of a message; None when it names an unknown one."""
        partition = message.partition
        if partition is not None:
            return partition if partition in partitions else None
        if message.key is not None:
            chosen: int = DefaultPartitioner()(message.key, partitions, partitions)
            return chosen
        # All messages without a key in one attempt use one partition, so that they share a batch.
        return self._keyless.setdefault(message.topic, random.choice(partitions))
