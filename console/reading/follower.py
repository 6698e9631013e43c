"""Follows topics without a group: first their latest records, then the new ones, as long as the console runs."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from aiokafka.errors import KafkaError
from aiokafka.structs import ConsumerRecord, TopicPartition

from ...runtime.errors import MurmuraError, describe_origin
from ...runtime.kafka.groupless_reader import PartitionsReader, open_reader
from ...runtime.kafka.topics import fetch_partition_counts
from ...runtime.observe.logs import get_logger, quiet_client
from ...runtime.settings.settings import KafkaSettings

log = get_logger(__name__)

_POLL_MS: Final = 200
_FETCH_RECORDS: Final = 100
"""Records between two turns of the event loop, in which pages are answered."""
_LONGEST_REST_S: Final = 0.05
_LOOK_AGAIN_S: Final = 15.0
"""Pause between two looks for topics and partitions that are new."""
_PAUSES_S: Final = (1.0, 2.0, 5.0, 10.0)
"""Pauses after failures in a row."""
_FETCH_BYTES: Final = 4 * 1024 * 1024

Take = Callable[[Sequence[ConsumerRecord]], None]


@dataclass(frozen=True, slots=True)
class Feed:
    """A topic to follow. `take` gets the records of a partition in order; what it raises at is left out and logged."""

    topic: str
    take: Take
    history: int
    """Number of its latest records to begin with, over all partitions; transactions' markers count."""


class Follower:
    """One consumer for all feeds. A missing topic is looked for again; a broker that is away is waited for."""

    def __init__(self, kafka: KafkaSettings, feeds: Sequence[Feed], *, clock: Callable[[], float] = time.time) -> None:
        self._kafka, self._clock = kafka, clock
        self._feeds: dict[str, list[Feed]] = {}
        for feed in feeds:
            self._feeds.setdefault(feed.topic, []).append(feed)
        self._positions: dict[TopicPartition, int] = {}
        self.missing: frozenset[str] = frozenset(self._feeds)
        """Topics that do not exist, or that this user may not see."""
        self.trouble: str | None = None
        """Why nothing is read now, in one line; None while it works."""
        self.read_at: float | None = None
        """Unix time (s) of the last successful fetch."""
        self.unreadable = 0
        """Records that the client could not unpack."""
        self.left_out = 0
        """Records of batches at which a feed failed."""
        self.caught_up = asyncio.Event()
        """Set when what was there at the start has been read."""
        self._read = {topic: asyncio.Event() for topic in self._feeds}
        """By topic: the same of it alone."""
        self._ends: dict[TopicPartition, int] = {}
        self._spent_s = 0.0
        """Time that feeds took since the last rest."""

    async def wait_for(self, topic: str) -> None:
        """Wait until what was there of a followed topic at the start has been read, or it was found missing."""
        await self._read[topic].wait()

    async def run(self) -> None:
        """Follow until cancelled."""
        failures = 0
        while True:
            try:
                with quiet_client():
                    await self._follow()
                failures = 0
            except (KafkaError, MurmuraError, OSError) as error:
                self.trouble = str(error).splitlines()[0] if str(error) else type(error).__name__
                log.warning("the console cannot read", why=self.trouble)
                await asyncio.sleep(_PAUSES_S[min(failures, len(_PAUSES_S) - 1)])
                failures += 1

    async def _follow(self) -> None:
        """Follow the topics that there are, until others appear."""
        counts = await fetch_partition_counts(self._kafka)
        topics = sorted(self._feeds.keys() & counts.keys())
        self.missing = frozenset(self._feeds.keys() - counts.keys())
        if not topics:
            self.trouble = None
            self._note_read()
            await asyncio.sleep(_LOOK_AGAIN_S)
            return
        options = {
            "isolation_level": "read_committed",
            "auto_offset_reset": "earliest",
            "fetch_max_bytes": _FETCH_BYTES,
            "max_partition_fetch_bytes": _FETCH_BYTES // 8,
        }
        async with open_reader(self._kafka, topics, from_beginning=False, options=options) as consumer:
            await self._seek(consumer)
            reader = PartitionsReader(consumer, self._take, self._skip)
            looked_at = self._clock()
            while True:
                await reader.read_more(_POLL_MS, _FETCH_RECORDS)
                await self._note_progress(consumer)
                await self._rest()
                if self._clock() - looked_at >= _LOOK_AGAIN_S:
                    looked_at = self._clock()
                    if await self._has_new(counts):
                        return

    async def _rest(self) -> None:
        """Leave half of the time to pages, whose answers take many turns of the event loop."""
        spent, self._spent_s = self._spent_s, 0.0
        if spent:
            await asyncio.sleep(min(spent, _LONGEST_REST_S))

    async def _has_new(self, counts: dict[str, int]) -> bool:
        now = await fetch_partition_counts(self._kafka)
        return any(now.get(topic) != counts.get(topic) for topic in self._feeds)

    async def _seek(self, consumer: Any) -> None:
        partitions = sorted(consumer.assignment())
        starts = await consumer.beginning_offsets(partitions)
        self._ends = await consumer.end_offsets(partitions)
        number = {topic: sum(p.topic == topic for p in partitions) for topic in self._feeds}
        for partition in partitions:
            history = max(feed.history for feed in self._feeds[partition.topic])
            latest = self._ends[partition] - -(-history // number[partition.topic])
            known = self._positions.get(partition, latest)
            # A log that was made anew ends before a position of the old one.
            at = latest if known > self._ends[partition] else known
            consumer.seek(partition, max(at, starts[partition], 0))

    def describe(self, topic: str = "") -> dict[str, Any]:
        """Return what `reading.html` says of it; `topic`: the one that the page is about, where there is one."""
        reading = not self.caught_up.is_set()
        return {"reading": reading, "trouble": self.trouble, "topic": topic, "missing": topic in self.missing}

    async def _note_progress(self, consumer: Any) -> None:
        self.trouble, self.read_at = None, self._clock()
        if self.caught_up.is_set():
            return
        for partition, end in list(self._ends.items()):
            if await consumer.position(partition) >= end:
                del self._ends[partition]
        self._note_read()

    def _note_read(self) -> None:
        left = {partition.topic for partition in self._ends}
        for topic, read in self._read.items():
            if topic not in left:
                read.set()
        if not left:
            self.caught_up.set()

    def _take(self, records: Sequence[ConsumerRecord]) -> None:
        begun = time.perf_counter()
        for feed in self._feeds[records[0].topic] if records else ():
            self._hand_over(feed, records)
        self._spent_s += time.perf_counter() - begun
        if records:
            last = records[-1]
            self._positions[TopicPartition(last.topic, last.partition)] = last.offset + 1

    def _hand_over(self, feed: Feed, records: Sequence[ConsumerRecord]) -> None:
        """Give records to a feed. One that it fails at must not end the console, which would meet it again at its next start."""
        try:
            feed.take(records)
        except Exception as error:  # noqa: BLE001  (whatever a stranger's record causes)
            self.left_out += len(records)
            offsets = [records[0].offset, records[-1].offset]
            why = describe_origin(error)
            log.error(
                "records are left out", topic=feed.topic, partition=records[0].partition, offsets=offsets, why=why
            )

    def _skip(self, partition: TopicPartition, offset: int, why: str) -> None:
        self.unreadable += 1
        log.warning(
            "a record cannot be unpacked", topic=partition.topic, partition=partition.partition, offset=offset, why=why
        )
        self._positions[partition] = offset + 1
