"""Diagnoses why a client cannot use the broker, and says in one line what to do.

Runs after a failure. Opens its own connections, one step at a time (address, TLS, login, advertised addresses), and
stops at the first step that fails. Takes at most `TIME_LIMIT_S` seconds.
"""

import asyncio
import contextlib
import ssl
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from aiokafka.conn import AIOKafkaConnection, create_conn
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    IllegalSaslStateError,
    IncompatibleBrokerVersion,
    KafkaError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
)
from aiokafka.protocol.admin import SaslHandShakeRequest
from aiokafka.protocol.metadata import MetadataRequest

from ..errors import SetupError
from ..observe.logs import quiet_client
from ..settings.kafka import KafkaSettings

TIME_LIMIT_S: Final = 6.0
STEP_S: Final = 2.0
_MOST_BROKERS: Final = 16
_UNANSWERED: Final = (KafkaError, OSError, TimeoutError, EOFError)


class Server(NamedTuple):
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class _Obstacle(Exception):
    """Raised by the first step that fails. Its text is the complete message."""


async def diagnose(kafka: KafkaSettings, error: BaseException) -> SetupError:
    """Return the error to raise in place of `error`, which a Kafka client raised."""
    try:
        with quiet_client():
            async with asyncio.timeout(TIME_LIMIT_S):
                await _try_steps(kafka)
    except _Obstacle as found:
        return SetupError(str(found))
    except _UNANSWERED as unclear:
        return SetupError(_unreachable(kafka, describe(unclear) if str(unclear) else describe(error)))
    return SetupError(describe_refusal(kafka, error))


def describe_refusal(kafka: KafkaSettings, error: BaseException) -> str:
    """Describe the error of a connected client, and name a permission that the user lacks."""
    match error:
        case TopicAuthorizationFailedError():
            return f"{_user(kafka)} may not use {_name_error('topic', error)}: allow READ to read it, WRITE to write it"
        case GroupAuthorizationFailedError():
            return f"{_user(kafka)} may not use {_name_error('group', error)}: allow READ on it, or set another kafka.group"
        case TransactionalIdAuthorizationFailed():
            return f"{_user(kafka)} may not use {_name_error('transactional id', error)}: allow WRITE on it"
        case ClusterAuthorizationFailedError():
            return f"{_user(kafka)} may not change the cluster: allow CREATE on it to make topics"
    return f"the broker at {kafka.bootstrap_servers} answers, but a request failed: {describe(error)}"


def describe_missing(kafka: KafkaSettings, missing: Sequence[str], hidden: Sequence[str], advice: str) -> str:
    """Describe missing topics and topics that are not visible; `advice` says how to create the missing ones."""
    parts = []
    if missing:
        parts.append(f"{_topics(missing)} not on {kafka.bootstrap_servers}: {advice}")
    if hidden:
        parts.append(
            f"{_topics(hidden)} not visible to {_user(kafka)}: allow DESCRIBE (READ and WRITE include it); "
            "the broker does not say whether such a topic is there"
        )
    return "; ".join(parts)


def parse_servers(addresses: str) -> list[Server]:
    """Parse a comma-separated list of addresses. Raises SetupError for one that is not HOST:PORT."""
    servers = []
    for address in addresses.split(","):
        host, _, port = address.strip().rpartition(":")
        if not host or not port.isdigit():
            raise SetupError("kafka.bootstrap_servers: expected HOST:PORT, several with commas between them")
        servers.append(Server(host.strip("[]"), int(port)))
    return servers


def describe(error: BaseException) -> str:
    """Describe an error in a few words, on one line."""
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _user(kafka: KafkaSettings) -> str:
    return f"user {kafka.security.username}" if kafka.security.username else "this client"


def _topics(names: Sequence[str]) -> str:
    return f"topic {names[0]} is" if len(names) == 1 else f"topics {', '.join(names)} are"


def _name_error(kind: str, error: BaseException) -> str:
    """Return the kind and the names in a client error, which may have a sentence or nothing instead of names."""
    value = error.args[0] if error.args else ""
    names = sorted(map(str, value)) if isinstance(value, set | frozenset | list | tuple) else [str(value)]
    names = [name for name in names if name and " " not in name]
    return f"{kind} {', '.join(names)}" if names else f"this {kind}"


def _unreachable(kafka: KafkaSettings, reason: str) -> str:
    return (
        f"no Kafka broker at {kafka.bootstrap_servers}: {reason}; "
        "start one or say where it is with --bootstrap HOST:PORT"
    )


async def _try_steps(kafka: KafkaSettings) -> None:
    server = await _first_open(kafka)
    await _try_login(kafka, server)
    await _try_advertised(kafka, server)


async def _first_open(kafka: KafkaSettings) -> Server:
    reason = ""
    for server in parse_servers(kafka.bootstrap_servers):
        failure = await _open(server)
        if failure is None:
            return server
        reason = failure
    raise _Obstacle(_unreachable(kafka, reason))


async def _open(server: Server) -> str | None:
    """Connect and close; return why that failed, None on success."""
    try:
        async with asyncio.timeout(STEP_S):
            _, writer = await asyncio.open_connection(server.host, server.port)
    except (OSError, TimeoutError) as error:
        return describe(error)
    writer.close()
    return None


async def _try_login(kafka: KafkaSettings, server: Server) -> None:
    security = kafka.security
    mechanism, tls = security.sasl_mechanism, security.protocol.endswith("SSL")
    enabled = await _mechanisms(kafka, server, tls=tls)
    if mechanism is None:
        if enabled:
            raise _Obstacle(
                f"the broker at {server} asks for a login and kafka.security.protocol is {security.protocol}: set "
                f"{_protocol(sasl=True, tls=tls)}, and kafka.security.sasl_mechanism to one of {', '.join(enabled)}"
            )
        return
    if enabled == []:
        raise _Obstacle(
            f"the broker at {server} takes no login and kafka.security.protocol is {security.protocol}: "
            f"set {_protocol(sasl=False, tls=tls)}, or name the port that takes one"
        )
    if enabled and mechanism not in enabled:
        raise _Obstacle(
            f"the broker at {server} does not take kafka.security.sasl_mechanism {mechanism}: "
            f"set one of {', '.join(enabled)}"
        )
    await _try_credentials(kafka, server)


async def _try_credentials(kafka: KafkaSettings, server: Server) -> None:
    mechanism = kafka.security.sasl_mechanism
    try:
        async with asyncio.timeout(STEP_S):
            (await _connect(kafka, server)).close()
    except _UNANSWERED as error:
        if mechanism == "OAUTHBEARER":
            why = str(error) if "kafka.security.token" in str(error) else "the broker refuses the token"
            raise _Obstacle(_no_bearer(server, why)) from None
        raise _Obstacle(
            f"the broker at {server} refuses user {kafka.security.username} by {mechanism}: "
            "look at kafka.security.username and password, and whether the user is known for this mechanism"
        ) from None


def _no_bearer(server: Server, why: str) -> str:
    return f"no login at {server} by OAUTHBEARER: {why}; look at kafka.security.token"


async def _mechanisms(kafka: KafkaSettings, server: Server, *, tls: bool) -> list[str] | None:
    """Return the enabled SASL mechanisms: empty for a port without login, None where it is not known."""
    try:
        async with asyncio.timeout(STEP_S):
            connection = await _bare_connection(kafka, server, tls=tls)
            try:
                answer = await connection.send(SaslHandShakeRequest(kafka.security.sasl_mechanism or "PLAIN"))
            finally:
                connection.close()
    except ssl.SSLCertVerificationError as error:
        raise _Obstacle(
            f"the broker at {server} shows a certificate that is not trusted here ({error.verify_message}): "
            "name its authority's file with kafka.security.cafile, and the broker as its certificate does"
        ) from None
    except (NotImplementedError, IncompatibleBrokerVersion):
        return None  # how aiokafka says that this broker knows no request of the kind: one without SASL
    except _UNANSWERED as error:
        await _compare_tls(kafka, server, tls=tls)
        raise error from None
    return [] if answer.error_code == IllegalSaslStateError.errno else list(answer.enabled_mechanisms)


async def _compare_tls(kafka: KafkaSettings, server: Server, *, tls: bool) -> None:
    """Raise _Obstacle when only one side uses TLS."""
    protocol, sasl = kafka.security.protocol, kafka.security.sasl_mechanism is not None
    if tls and await _speaks_plain(kafka, server):
        raise _Obstacle(
            f"the broker at {server} speaks no TLS and kafka.security.protocol is {protocol}: "
            f"set {_protocol(sasl=sasl, tls=False)}, or name its port for TLS"
        )
    if not tls and await _speaks_tls(server):
        raise _Obstacle(
            f"the broker at {server} speaks TLS and kafka.security.protocol is {protocol}: "
            f"set {_protocol(sasl=sasl, tls=True)}"
        )


async def _speaks_plain(kafka: KafkaSettings, server: Server) -> bool:
    with contextlib.suppress(*_UNANSWERED):
        async with asyncio.timeout(STEP_S):
            (await _bare_connection(kafka, server, tls=False)).close()
            return True
    return False


async def _speaks_tls(server: Server) -> bool:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # nothing is sent
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(STEP_S):
            _, writer = await asyncio.open_connection(server.host, server.port, ssl=context)
            writer.close()
            return True
    return False


async def _try_advertised(kafka: KafkaSettings, server: Server) -> None:
    async with asyncio.timeout(STEP_S):
        connection = await _connect(kafka, server)
        try:
            answer = await connection.send(MetadataRequest([]))
        finally:
            connection.close()
    if not answer.brokers and kafka.security.token:
        # A refused token does not fail the login in this client: the broker answers later requests with nothing.
        raise _Obstacle(_no_bearer(server, "the broker refuses the token"))
    advertised = [Server(host, port) for _, host, port, *_ in answer.brokers[:_MOST_BROKERS]]
    failures = await asyncio.gather(*map(_open, advertised))
    lost = [(address, why) for address, why in zip(advertised, failures, strict=True) if why is not None]
    if lost:
        raise _Obstacle(
            f"the broker at {server} answers and calls itself {lost[0][0]}, which cannot be reached from here "
            f"({lost[0][1]}): make that name and port reachable, or change advertised.listeners of the broker"
        )


async def _bare_connection(kafka: KafkaSettings, server: Server, *, tls: bool) -> AIOKafkaConnection:
    context = kafka.security.ssl_context() if tls else None
    return await create_conn(
        server.host,
        server.port,
        security_protocol=_protocol(sasl=False, tls=tls),
        ssl_context=context,
        request_timeout_ms=int(STEP_S * 1000),
    )


async def _connect(kafka: KafkaSettings, server: Server) -> AIOKafkaConnection:
    """Connect with the login, as all clients do."""
    options: dict[str, Any] = kafka.client_options()
    del options["bootstrap_servers"], options["metadata_max_age_ms"]
    return await create_conn(server.host, server.port, **options, request_timeout_ms=int(STEP_S * 1000))


def _protocol(*, sasl: bool, tls: bool) -> str:
    secured = "SSL" if tls else "PLAINTEXT"
    return f"SASL_{secured}" if sasl else secured
