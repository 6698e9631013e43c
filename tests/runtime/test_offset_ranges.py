"""Frozen parts of topics on a real Kafka: nothing behind the end, nothing twice, and no silence about what is gone."""

import asyncio
from collections import defaultdict

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.structs import TopicPartition

from murmura.runtime import offset_ranges
from murmura.runtime.errors import SetupError
from murmura.runtime.offset_ranges import OffsetRange
from murmura.runtime.settings import KafkaSettings


async def write(bootstrap, topic, count, *, partition=0, transaction=None, abort=False, start=0):
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, transactional_id=transaction, linger_ms=5)
    await producer.start()
    try:
        if transaction:
            await producer.begin_transaction()
        for n in range(start, start + count):
            await producer.send(topic, b"%d" % n, partition=partition)
        if transaction:
            await (producer.abort_transaction() if abort else producer.commit_transaction())
    finally:
        await producer.stop()


async def delete_before(bootstrap, topic, offset, partition=0):
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.delete_records({TopicPartition(topic, partition): RecordsToDelete(offset)})
    finally:
        await admin.close()


class Reader:
    def __init__(self, kafka):
        self.settings = KafkaSettings(bootstrap_servers=kafka, request_timeout_ms=8000)
        self.values = defaultdict(list)
        self.offsets = defaultdict(list)
        self.unreadable = []
        self.passed = 0

    def take(self, number, records):
        self.values[number] += [record.value for record in records]
        self.offsets[number] += [record.offset for record in records]

    def progress(self, records):
        self.passed += records

    async def read(self, ranges, **more):
        async with asyncio.timeout(30):
            await offset_ranges.read(
                self.settings,
                ranges,
                self.take,
                unreadable=lambda number, offset: self.unreadable.append((number, offset)),
                progress=self.progress,
                **more,
            )


async def test_what_comes_after_freezing_is_not_read(kafka, make_topics):
    (topic,) = await make_topics("frozen")
    for partition in range(3):
        await write(kafka, topic, 100 * partition, partition=partition)
    reader = Reader(kafka)
    ranges = await offset_ranges.freeze(reader.settings, [[topic]])
    assert ranges == [OffsetRange(topic, n, 0, 100 * n) for n in range(3)]
    for partition in range(3):
        await write(kafka, topic, 50, partition=partition, start=1000)
    await offset_ranges.check(reader.settings, ranges)
    await reader.read(ranges)
    assert dict(reader.values) == {n: [b"%d" % i for i in range(100 * n)] for n in (1, 2)}
    assert reader.passed == 300


async def test_a_part_in_the_middle_is_read_alone(kafka, make_topics):
    (topic,) = await make_topics("middle", partitions=1)
    await write(kafka, topic, 100)
    reader = Reader(kafka)
    await reader.read([OffsetRange(topic, 0, 40, 60)])
    assert reader.offsets[0] == list(range(40, 60))


async def test_a_range_that_ends_with_a_transaction_s_marker_comes_to_its_end(kafka, make_topics, unique):
    (topic,) = await make_topics("marked", partitions=1)
    await write(kafka, topic, 5, transaction=unique("t"))
    await write(kafka, topic, 5, transaction=unique("t"), abort=True, start=100)
    reader = Reader(kafka)
    (range_,) = await offset_ranges.freeze(reader.settings, [[topic]])
    assert range_.end == 12
    await reader.read([range_])
    assert reader.values[0] == [b"%d" % n for n in range(5)]
    assert reader.passed == 12


async def test_records_that_nobody_wants_are_passed_over(kafka, make_topics):
    (topic,) = await make_topics("sparse", partitions=1)
    await write(kafka, topic, 30_000)
    wanted = [3, 7, 20_000, 29_000]
    reader = Reader(kafka)
    await reader.read(
        [OffsetRange(topic, 0, 0, 30_000)],
        next_wanted=lambda number, offset: next((each for each in wanted if each >= offset), 1 << 40),
    )
    assert set(wanted) <= set(reader.offsets[0])
    assert reader.offsets[0] == sorted(set(reader.offsets[0]))
    assert max(reader.offsets[0]) < 30_000
    assert reader.passed == 30_000


async def test_a_record_that_cannot_be_unpacked_is_told_and_stepped_over(kafka, make_topics, spoiled_batch):
    (topic,) = await make_topics("spoiled", partitions=2)
    for _ in range(2):
        await write(kafka, topic, 20)
        await spoiled_batch(kafka, TopicPartition(topic, 0))
    await write(kafka, topic, 20)
    await write(kafka, topic, 500, partition=1)
    reader = Reader(kafka)
    ranges = await offset_ranges.freeze(reader.settings, [[topic]])
    await reader.read(ranges)
    assert sorted(reader.unreadable) == [(0, 20), (0, 41)]
    assert reader.offsets[0] == [n for n in range(62) if n not in {20, 41}]
    assert reader.offsets[1] == list(range(500))


async def test_what_the_broker_no_longer_has_is_named_with_what_is_left(kafka, make_topics):
    (topic,) = await make_topics("gone", partitions=2)
    await write(kafka, topic, 100, partition=1)
    reader = Reader(kafka)
    ranges = await offset_ranges.freeze(reader.settings, [[topic]])
    await delete_before(kafka, topic, 60, partition=1)
    said = rf"{topic}, partition 1: of offsets 0 to 100 \(exclusive\) 60 to 100 is left"
    with pytest.raises(SetupError, match=said):
        await offset_ranges.check(reader.settings, ranges)
    with pytest.raises(SetupError, match=said):
        await reader.read(ranges)
    assert (await offset_ranges.freeze(reader.settings, [[topic]]))[1] == OffsetRange(topic, 1, 60, 100)


@pytest.mark.parametrize(
    ("partition", "end", "said"),
    [(0, 20, r"of offsets 5 to 20 \(exclusive\) 5 to 10 is left"), (7, 20, "has no partition 7.*nothing is left")],
)
async def test_a_topic_that_was_made_anew_has_fewer_records(kafka, make_topics, partition, end, said):
    (topic,) = await make_topics("anew", partitions=1)
    await write(kafka, topic, 10)
    with pytest.raises(SetupError, match=said):
        await offset_ranges.check(Reader(kafka).settings, [OffsetRange(topic, partition, 5, end)])


async def test_a_topic_that_is_not_there_is_named(kafka):
    with pytest.raises(SetupError, match="topic no-such-topic is not on"):
        await offset_ranges.freeze(Reader(kafka).settings, [["no-such-topic"]])
