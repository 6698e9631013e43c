"""Reading a changelog on a real Kafka: all of it, every time, and nothing that is not asked for."""

import asyncio

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.structs import TopicPartition

from murmura.runtime.errors import MurmuraError
from murmura.runtime.kafka.changelog import read_to_end
from murmura.runtime.settings.settings import KafkaSettings

PER_PARTITION = 25


async def write(bootstrap: str, topic: str) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, linger_ms=2)
    await producer.start()
    try:
        for partition in range(3):
            for number in range(PER_PARTITION):
                value = b"%d" % number if number % 5 else None
                await producer.send(topic, value, key=b"k%d" % number, partition=partition)
    finally:
        await producer.stop()


@pytest.fixture
async def topic(kafka, make_topics) -> str:
    (name,) = await make_topics("state", config={"cleanup.policy": "compact"})
    return name


async def test_every_reading_begins_at_the_beginning(kafka, topic):
    """A consumer whose position is set at the wrong moment starts at the end, now and then: hence many readings."""
    await write(kafka, topic)
    for _ in range(30):
        seen: list[tuple[int, bytes | None, bytes | None]] = []
        read = await read_to_end(
            KafkaSettings(bootstrap_servers=kafka), topic, [0, 2], lambda *r, to=seen: to.append(r)
        )
        assert (read.records, read.unreadable) == (2 * PER_PARTITION, 0)
        for partition in (0, 2):
            keys = [key for number, key, _ in seen if number == partition]
            assert keys == [b"k%d" % number for number in range(PER_PARTITION)]
        assert [value for _, _, value in seen[:2]] == [None, b"1"]


async def test_an_empty_changelog_is_read_at_once(kafka, topic):
    read = await read_to_end(KafkaSettings(bootstrap_servers=kafka), topic, [0, 1, 2], lambda *record: None)
    assert read.records == 0
    assert read.seconds < 60


async def test_what_the_client_cannot_unpack_is_stepped_over_and_counted(kafka, topic, spoiled_batch):
    await write(kafka, topic)
    await spoiled_batch(kafka, TopicPartition(topic, 1))
    await write(kafka, topic)
    seen: list[int] = []
    read = await read_to_end(
        KafkaSettings(bootstrap_servers=kafka), topic, [0, 1, 2], lambda partition, *_: seen.append(partition)
    )
    assert (read.records, read.unreadable) == (6 * PER_PARTITION, 1)
    assert [seen.count(partition) for partition in range(3)] == [2 * PER_PARTITION] * 3


async def test_behind_what_the_client_cannot_unpack_it_reads_in_batches_again(kafka, topic, spoiled_batch, monkeypatch):
    for _ in range(2):
        await write(kafka, topic)
        await spoiled_batch(kafka, TopicPartition(topic, 1))
    for _ in range(4):
        await write(kafka, topic)
    getmany, single = AIOKafkaConsumer.getmany, []

    async def counted(self, *partitions, max_records=None, **more):
        single.append(max_records == 1)
        return await getmany(self, *partitions, max_records=max_records, **more)

    monkeypatch.setattr(AIOKafkaConsumer, "getmany", counted)
    read = await read_to_end(KafkaSettings(bootstrap_servers=kafka), topic, [1], lambda *record: None)
    assert (read.records, read.unreadable) == (6 * PER_PARTITION, 2)
    assert sum(single) <= 2 * PER_PARTITION + 2


async def test_of_a_conversation_whose_newest_state_cannot_be_unpacked_the_one_before_counts(
    kafka, topic, spoiled_batch
):
    """Its key is as unknown as the rest of it (`spoiled_batch` writes under the key k)."""
    producer = AIOKafkaProducer(bootstrap_servers=kafka)
    await producer.start()
    await producer.send_and_wait(topic, b"older", key=b"k", partition=1)
    await producer.stop()
    await spoiled_batch(kafka, TopicPartition(topic, 1))
    known: dict[bytes | None, bytes | None] = {}
    read = await read_to_end(
        KafkaSettings(bootstrap_servers=kafka), topic, [1], lambda _, key, value: known.update({key: value})
    )
    assert (known, read.unreadable) == ({b"k": b"older"}, 1)


@pytest.mark.parametrize("end", ["committed", "aborted", "open"])
async def test_a_transaction_at_the_end_is_not_waited_for(kafka, topic, unique, end):
    await write(kafka, topic)
    producer = AIOKafkaProducer(bootstrap_servers=kafka, transactional_id=unique("t"))
    await producer.start()
    try:
        await producer.begin_transaction()
        await producer.send_and_wait(topic, b"v", key=b"in a transaction", partition=0)
        if end == "committed":
            await producer.commit_transaction()
        if end == "aborted":
            await producer.abort_transaction()
        read = await read_to_end(KafkaSettings(bootstrap_servers=kafka), topic, [0], lambda *record: None, timeout_s=10)
        if end == "open":
            await producer.abort_transaction()
    finally:
        await producer.stop()
    assert read.records >= PER_PARTITION


async def test_what_compaction_took_away_is_not_waited_for(kafka, make_topics):
    eager = {
        "segment.ms": "200", "min.cleanable.dirty.ratio": "0.0", "max.compaction.lag.ms": "200",
        "min.compaction.lag.ms": "0", "delete.retention.ms": "0",
    }  # fmt: skip
    (topic,) = await make_topics("state", partitions=1, config={"cleanup.policy": "compact"} | eager)
    producer = AIOKafkaProducer(bootstrap_servers=kafka)
    await producer.start()
    known: dict[bytes | None, bytes | None] = {}
    try:
        written = 0
        async with asyncio.timeout(100):
            while True:
                for number in range(10):  # the last record of k0 is a tombstone
                    value = b"%d" % number if number < 9 else None
                    await producer.send_and_wait(topic, value, key=b"k%d" % (number % 3), partition=0)
                written += 10
                known.clear()
                read = await read_to_end(
                    KafkaSettings(bootstrap_servers=kafka),
                    topic,
                    [0],
                    lambda _, key, value: known.update({key: value}),
                    timeout_s=10,
                )
                if read.records <= written - 10:
                    break
                await asyncio.sleep(0.2)
    finally:
        await producer.stop()
    assert {key: value for key, value in known.items() if value is not None} == {b"k1": b"7", b"k2": b"8"}


async def test_a_broker_that_stays_away_is_given_up_after_the_time_that_was_given():
    with pytest.raises(MurmuraError, match=r"topic state: its end was not reached within 1 s"):
        await read_to_end(
            KafkaSettings(bootstrap_servers="127.0.0.1:1"), "state", [0], lambda *record: None, timeout_s=1
        )
