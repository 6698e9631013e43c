"""Topics: what is missing is named, what is unreachable is said in one line, what is made is as the table says."""

import asyncio
import logging
import socket
import time
import uuid

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from pydantic import ValidationError

from murmura.runtime.errors import SetupError
from murmura.runtime.kafka.embedded_broker import EmbeddedBroker
from murmura.runtime.kafka.topics import create_topics, fetch_partition_counts, require_topics
from murmura.runtime.settings.settings import KafkaSettings
from murmura.schemas.topics import named_topics


@pytest.fixture(scope="module")
def broker():
    with EmbeddedBroker({"a": 3, "b": 1}) as embedded:
        yield embedded


async def test_missing_topics_are_named_and_none_is_made_by_asking(broker):
    kafka = KafkaSettings(bootstrap_servers=broker.bootstrap)
    with pytest.raises(SetupError, match=f"topics y, z are not on {broker.bootstrap}: `murmura topics --create`"):
        await require_topics(kafka, ["z", "b", "y"])
    assert await require_topics(kafka, ["a", "b"]) == {"a": 3, "b": 1}
    assert await fetch_partition_counts(kafka) == {"a": 3, "b": 1}


@pytest.mark.parametrize("server", ["127.0.0.1:1", "nowhere.invalid:9092"])
async def test_an_unreachable_broker_is_one_line_and_no_log(server, caplog):
    with caplog.at_level(logging.DEBUG, logger="aiokafka"), pytest.raises(SetupError) as caught:
        await fetch_partition_counts(KafkaSettings(bootstrap_servers=server))
    message = str(caught.value)
    assert message.startswith(f"no Kafka broker at {server}: ")
    assert "--bootstrap HOST:PORT" in message
    assert "\n" not in message
    assert not [record for record in caplog.records if record.name.startswith("aiokafka")]


async def test_a_server_that_never_answers_is_given_up_in_time():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        kafka = KafkaSettings(bootstrap_servers=f"127.0.0.1:{silent.getsockname()[1]}")
        started = time.monotonic()
        with pytest.raises(SetupError, match="no answer in time"):
            await fetch_partition_counts(kafka, timeout_s=0.5)
    assert time.monotonic() - started < 60


@pytest.mark.parametrize("servers", ["localhost", "a:9092,b", "a:9092,", ":9092", "a:65536", "a:9092 b:9092"])
def test_an_address_without_a_port_is_refused_and_not_quoted(servers):
    with pytest.raises(ValidationError) as refused:
        KafkaSettings(bootstrap_servers=servers)
    (error,) = refused.value.errors()
    assert error["msg"].startswith("Value error, expected HOST:PORT, several with commas between them")


@pytest.mark.kafka
async def test_topics_are_made_as_the_table_says_and_left_alone_afterwards(kafka):
    settings = KafkaSettings(bootstrap_servers=kafka)
    prefix = f"t{uuid.uuid4().hex[:8]}"
    table = dict(named_topics(prefix))
    assert await create_topics(settings, table, many=5) == sorted(table)
    assert await create_topics(settings, table, many=9) == []
    there = await fetch_partition_counts(settings)
    assert {name: there[name] for name in table} == {name: topic.partitions(5) for name, topic in table.items()}
    dead_letters = f"{prefix}.deadletters"
    assert (await config_of(kafka, dead_letters)).items() >= table[dead_letters].config().items()


async def config_of(bootstrap: str, topic: str) -> dict[str, str]:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        (response,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    finally:
        await admin.close()
    return {entry[0]: entry[1] for entry in response.resources[0][4]}


@pytest.mark.kafka
async def test_a_topic_that_the_broker_refuses_is_one_line(kafka):
    topic = next(topic for _, topic in named_topics())
    with pytest.raises(SetupError, match=r"topic \.\.: the broker will not make it: "):
        await asyncio.wait_for(create_topics(KafkaSettings(bootstrap_servers=kafka), {"..": topic}), timeout=20)
