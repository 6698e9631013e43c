"""The broker in process: topics as asked, records round trip, outages on demand."""

import sys

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from murmura.runtime.errors import SetupError
from murmura.runtime.kafka.embedded_broker import FETCH_MAX_WAIT_MS, EmbeddedBroker
from murmura.runtime.kafka.topics import fetch_partition_counts
from murmura.runtime.settings.settings import KafkaSettings


async def test_topics_have_the_partitions_asked_for():
    with EmbeddedBroker({"tickets": 3, "results": 1}) as broker:
        kafka = KafkaSettings(bootstrap_servers=broker.bootstrap)
        assert await fetch_partition_counts(kafka) == {"tickets": 3, "results": 1}


async def test_a_record_goes_through_a_group_and_its_offset_is_kept():
    with EmbeddedBroker({"tickets": 1}) as broker:
        producer = AIOKafkaProducer(bootstrap_servers=broker.bootstrap, acks="all", enable_idempotence=True)
        await producer.start()
        await producer.send_and_wait("tickets", b"hello", key=b"k")
        await producer.stop()
        consumer = AIOKafkaConsumer(
            "tickets",
            bootstrap_servers=broker.bootstrap,
            group_id="g",
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            fetch_max_wait_ms=FETCH_MAX_WAIT_MS,
        )
        await consumer.start()
        record = await consumer.getone()
        await consumer.commit()
        (assigned,) = consumer.assignment()
        assert (record.key, record.value, await consumer.committed(assigned)) == (b"k", b"hello", 1)
        await consumer.stop()


async def test_a_broker_that_went_down_comes_back_with_its_records():
    with EmbeddedBroker({"tickets": 1}) as broker:
        kafka = KafkaSettings(bootstrap_servers=broker.bootstrap)
        broker.go_down()
        with pytest.raises(SetupError):
            await fetch_partition_counts(kafka, timeout_s=1)
        broker.come_up()
        assert "tickets" in await fetch_partition_counts(kafka)


def test_without_confluent_kafka_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    with pytest.raises(SetupError, match=r"pip install 'murmura\[demo\]'"):
        EmbeddedBroker().__enter__()
