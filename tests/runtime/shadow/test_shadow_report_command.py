"""`murmura experiment report --shadow`, on records of the topic."""

import asyncio

from cli_in_process import refused_here, run_here

from murmura.runtime.kafka.embedded_broker import EmbeddedBroker
from murmura.runtime.kafka.sending.producer import producer_factory
from murmura.runtime.kafka.sending.publisher import Publisher
from murmura.runtime.settings.settings import KafkaSettings, ProducerSettings
from murmura.runtime.wire.message import Message

from .test_shadow_report import counts, difference


async def publish(bootstrap, *values):
    publisher = Publisher(producer_factory(KafkaSettings(bootstrap_servers=bootstrap), ProducerSettings()))
    await publisher.start()
    assert await publisher.publish([Message("murmura.shadow", value, b"k", []) for value in values]) == [None] * len(
        values
    )
    await publisher.stop()


def test_the_report_of_a_version_is_made_of_the_topic():
    with EmbeddedBroker({"murmura.shadow": 2}) as broker:
        found = [counts("2026-05-03T10:01:00Z"), difference("refund", "praise")]
        asyncio.run(publish(broker.bootstrap, b"{", *(each.model_dump_json().encode() for each in found)))
        words = ("experiment", "report", "desk", "--bootstrap", broker.bootstrap, "--shadow")
        done = run_here(*words, "2")
        assert "| 2026-05-03 10:00 | 100 | 40 | 30 | 75.0% | 96.7% |" in done.stdout
        assert "| intent | refund | praise | 1 |" in done.stdout
        assert "nothing about desk 3 is in murmura.shadow" in refused_here(*words, "3")
