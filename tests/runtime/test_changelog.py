"""Reading a changelog on a real Kafka: all of it, every time, and nothing that is not asked for."""

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.structs import TopicPartition

from murmura.runtime.changelog import read_to_end
from murmura.runtime.errors import MurmuraError
from murmura.runtime.settings import KafkaSettings

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
    assert read.seconds < 5


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


async def test_a_broker_that_stays_away_is_given_up_after_the_time_that_was_given():
    with pytest.raises(MurmuraError, match=r"topic state: its end was not reached within 1 s"):
        await read_to_end(
            KafkaSettings(bootstrap_servers="127.0.0.1:1"), "state", [0], lambda *record: None, timeout_s=1
        )
