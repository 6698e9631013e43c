"""The Kafka with an authorizer, users and TLS denies what it is asked to deny, and nothing else."""

import ssl

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import KafkaError, TopicAuthorizationFailedError
from aiokafka.structs import TopicPartition


@pytest.fixture
async def topic(guarded_kafka, make_topics):
    (name,) = await make_topics("guarded", partitions=1, bootstrap=guarded_kafka.bootstrap)
    return name


async def test_a_denied_topic_is_not_written_until_it_is_allowed_again(guarded_kafka, topic):
    async with AIOKafkaProducer(bootstrap_servers=guarded_kafka.bootstrap) as producer:
        with guarded_kafka.denied(topic, "write"), pytest.raises(TopicAuthorizationFailedError):
            await producer.send_and_wait(topic, b"1")
        await producer.send_and_wait(topic, b"2")


async def test_a_topic_is_denied_to_one_user_only(guarded_kafka, topic):
    guarded_kafka.add_user("bob", "bob-password")
    sasl = {
        "bootstrap_servers": guarded_kafka.sasl,
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "SCRAM-SHA-256",
        "sasl_plain_username": "bob",
        "sasl_plain_password": "bob-password",
    }
    with guarded_kafka.denied(topic, "read", "bob"):
        async with AIOKafkaProducer(**sasl) as producer:
            await producer.send_and_wait(topic, b"1")
        consumer = AIOKafkaConsumer(**sasl, auto_offset_reset="earliest")
        async with consumer:
            consumer.assign([TopicPartition(topic, 0)])
            with pytest.raises(TopicAuthorizationFailedError):
                await consumer.getone()
        async with AIOKafkaConsumer(
            topic, bootstrap_servers=guarded_kafka.bootstrap, auto_offset_reset="earliest"
        ) as anonymous:
            assert (await anonymous.getone()).value == b"1"


async def test_tls_is_spoken_by_who_trusts_its_certificate(guarded_kafka, topic):
    context = ssl.create_default_context(cafile=str(guarded_kafka.cafile))
    trusting = AIOKafkaProducer(bootstrap_servers=guarded_kafka.tls, security_protocol="SSL", ssl_context=context)
    async with trusting as producer:
        await producer.send_and_wait(topic, b"1")
    stranger = AIOKafkaProducer(
        bootstrap_servers=guarded_kafka.tls, security_protocol="SSL", ssl_context=ssl.create_default_context()
    )
    with pytest.raises(KafkaError):
        await stranger.start()
    await stranger.stop()
