"""What stands between a process and its broker is called by its name, with what to do, in one line and in seconds."""

import asyncio
import base64
import json
import time

import pytest
from aiokafka import AIOKafkaProducer
from guarded_broker import LOST_AS
from kafka_topics import create_topics
from serving import Desk
from typer.testing import CliRunner

from murmura.runtime.cli import main as cli
from murmura.runtime.errors import SetupError
from murmura.runtime.kafka import offset_ranges
from murmura.runtime.kafka.offset_ranges import OffsetRange
from murmura.runtime.kafka.topics import fetch_partition_counts, require_topics
from murmura.runtime.settings.settings import KafkaSettings, SecuritySettings

pytestmark = pytest.mark.kafka
PLAIN = {"protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN", "username": "alice", "password": "alice-password"}
BEARER = {"protocol": "SASL_PLAINTEXT", "sasl_mechanism": "OAUTHBEARER"}


def unsecured_token() -> str:
    claims = {"sub": "carol", "iat": time.time() - 1, "exp": time.time() + 600}
    parts = (json.dumps(part).encode() for part in ({"alg": "none"}, claims))
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts) + "."


async def async_token() -> str:
    return unsecured_token()


def no_token() -> str:
    raise RuntimeError("canary-of-a-token")


def wrong_token() -> str:
    return "canary-of-a-token"


def number() -> int:
    return 7


async def refusal(server: str, **security) -> str:
    kafka = KafkaSettings(bootstrap_servers=server, security=SecuritySettings(**security), start_timeout_s=3)
    started = time.monotonic()
    with pytest.raises(SetupError) as caught:
        await fetch_partition_counts(kafka)
    assert time.monotonic() - started < 60
    assert "\n" not in str(caught.value)
    return str(caught.value)


async def test_who_may_log_in_is_let_in(guarded_kafka):
    guarded_kafka.add_user("scrammer", "a-password")
    for security in (
        PLAIN,
        PLAIN | {"sasl_mechanism": "SCRAM-SHA-256", "username": "scrammer", "password": "a-password"},
        BEARER | {"token": f"{__name__}:unsecured_token"},
        BEARER | {"token": f"{__name__}:async_token"},
    ):
        kafka = KafkaSettings(bootstrap_servers=guarded_kafka.sasl, security=SecuritySettings(**security))
        assert isinstance(await fetch_partition_counts(kafka), dict)


@pytest.mark.parametrize(
    "security",
    [PLAIN, BEARER | {"token": f"{__name__}:unsecured_token"}],
    ids=lambda security: security["sasl_mechanism"],
)
async def test_a_process_serves_behind_a_login(guarded_kafka, unique, make_topics, tiny_model, security):
    desk = Desk(guarded_kafka.bootstrap, unique("desk"), tiny_model)
    names = ("requests", "classified", "analysed", "deadletters", "retries", "events")
    await make_topics(*names, prefix=desk.prefix, bootstrap=guarded_kafka.bootstrap)
    async with desk.serving(kafka={"bootstrap_servers": guarded_kafka.sasl, "security": security}):
        await desk.send({"text": "my card was stolen", "id": "1"}, {"id": "no text"})
        (result,) = await desk.read(desk.classified, 1)
        (dead,) = await desk.read(desk.dead_letters, 1)
    assert json.loads(result.value)["request_id"] == "1"
    assert dict(dead.headers)["murmura_dl_reason"] == b"invalid"


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
async def test_a_wrong_password_is_called_that(guarded_kafka, mechanism):
    message = await refusal(guarded_kafka.sasl, **PLAIN | {"sasl_mechanism": mechanism, "password": "canary"})
    assert f"refuses user alice by {mechanism}" in message
    assert "canary" not in message


async def test_a_port_that_asks_for_a_login_says_which_it_takes(guarded_kafka):
    message = await refusal(guarded_kafka.sasl)
    assert "asks for a login" in message
    assert "SCRAM-SHA-256" in message


async def test_a_login_where_none_is_taken_is_called_that(guarded_kafka):
    assert "takes no login" in await refusal(guarded_kafka.bootstrap, **PLAIN)


async def test_tls_on_one_side_only_is_called_that(guarded_kafka):
    assert "speaks TLS and kafka.security.protocol is PLAINTEXT: set SSL" in await refusal(guarded_kafka.tls)
    cafile = guarded_kafka.cafile
    assert "speaks no TLS" in await refusal(guarded_kafka.bootstrap, protocol="SSL", cafile=cafile)
    assert "speaks no TLS" in await refusal(guarded_kafka.sasl, **PLAIN | {"protocol": "SASL_SSL", "cafile": cafile})


async def test_a_certificate_that_is_not_trusted_is_called_that(guarded_kafka):
    message = await refusal(guarded_kafka.tls, protocol="SSL")
    assert "certificate that is not trusted" in message
    assert "kafka.security.cafile" in message


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        ("no_token", "raised RuntimeError at "),
        ("number", "expected a token as text, found int"),
        ("wrong_token", "the broker refuses the token"),
        ("absent", "has no callable absent"),
    ],
)
async def test_a_callable_without_a_token_is_named_and_nothing_of_the_token(guarded_kafka, token, expected, caplog):
    message = await refusal(guarded_kafka.sasl, **BEARER | {"token": f"{__name__}:{token}"})
    assert expected in message
    assert "kafka.security.token" in message
    assert "canary" not in message + caplog.text


async def test_no_broker_at_all_is_called_that():
    assert "no Kafka broker at 127.0.0.1:1: connection refused" in await refusal("127.0.0.1:1")


async def test_an_advertised_address_that_cannot_be_reached_is_named(guarded_kafka):
    message = await refusal(guarded_kafka.lost)
    assert f"calls itself {LOST_AS}, which cannot be reached from here" in message


async def test_a_mechanism_that_the_broker_does_not_take_is_named_with_those_it_takes(guarded_kafka):
    message = await refusal(guarded_kafka.only_plain, **PLAIN | {"sasl_mechanism": "SCRAM-SHA-256"})
    assert message == (
        f"the broker at {guarded_kafka.only_plain} does not take kafka.security.sasl_mechanism SCRAM-SHA-256: "
        "set one of PLAIN"
    )


async def test_what_is_no_kafka_is_called_that():
    async def close(reader, writer):
        writer.close()

    async with await asyncio.start_server(close, "127.0.0.1", 0) as server:
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        assert f"no Kafka broker at {address}" in await refusal(address)


async def test_a_topic_that_a_user_may_not_see_is_told_from_one_that_is_not_there(guarded_kafka, unique):
    hidden, absent = unique("hidden"), unique("absent")
    kafka = KafkaSettings(bootstrap_servers=guarded_kafka.bootstrap)
    with guarded_kafka.denied(hidden, "describe"), pytest.raises(SetupError) as caught:
        await require_topics(kafka, [hidden, absent], "make it")
    assert str(caught.value) == (
        f"topic {absent} is not on {guarded_kafka.bootstrap}: make it; topic {hidden} is not visible to this client: "
        "allow DESCRIBE (READ and WRITE include it); the broker does not say whether such a topic is there"
    )


async def test_a_topic_that_may_not_be_read_is_named(guarded_kafka, unique):
    topic = unique("unread")
    await create_topics(guarded_kafka.bootstrap, [topic], 1, {})
    await send(guarded_kafka.bootstrap, topic)
    kafka = KafkaSettings(bootstrap_servers=guarded_kafka.bootstrap)
    with guarded_kafka.denied(topic, "read"), pytest.raises(SetupError, match=f"topic {topic}: allow READ"):
        await offset_ranges.read(kafka, [OffsetRange(topic, 0, 0, 1)], lambda number, records: None)


def test_a_topic_that_may_not_be_written_is_named(guarded_kafka, unique, tmp_path):
    topic, file = unique("unwritten"), tmp_path / "texts"
    asyncio.run(create_topics(guarded_kafka.bootstrap, [topic], 1, {}))
    file.write_text("hello")
    command = ["publish", topic, str(file), "--bootstrap", guarded_kafka.bootstrap]
    with guarded_kafka.denied(topic, "write"):
        done = CliRunner().invoke(cli.build(), command)
    assert f"topic {topic}: allow READ to read it, WRITE to write it" in str(done.exception)


async def send(bootstrap: str, topic: str) -> None:
    async with AIOKafkaProducer(bootstrap_servers=bootstrap) as producer:
        await producer.send_and_wait(topic, b"hello")
