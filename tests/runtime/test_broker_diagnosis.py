"""What stands between a process and its broker is called by its name, with what to do, in one line and in seconds."""

import base64
import json
import time

import pytest
from kafka_broker import OwnBroker

from murmura.runtime import topics_admin
from murmura.runtime.errors import SetupError
from murmura.runtime.settings import KafkaSettings, SecuritySettings

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
        await topics_admin.partitions(kafka)
    assert time.monotonic() - started < 10
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
        assert isinstance(await topics_admin.partitions(kafka), dict)


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


async def test_an_advertised_address_that_cannot_be_reached_is_named(tmp_path):
    properties = tmp_path / "added.properties"
    properties.write_text(
        "advertised.listeners=PLAINTEXT://kafka-0.prod.invalid:9092,CONTROLLER://127.0.0.1:$controller_port\n"
    )
    broker = OwnBroker(tmp_path / "kafka", properties)
    broker.start()
    try:
        message = await refusal(broker.bootstrap)
    finally:
        broker.stop()
    assert "calls itself kafka-0.prod.invalid:9092, which cannot be reached from here" in message
