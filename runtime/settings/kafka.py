"""Settings of the broker, its clients and their security; the types that all sections share."""

import re
import ssl
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, StringConstraints, model_validator

from ...schemas.topics import DEAD_LETTER_ROOM_BYTES, LARGE_VALUE_BYTES

CLIENT_ID: Final = "murmura"
"""Under which the broker's logs, metrics and quotas know the client that fetches."""


def _kafka_name(name: str) -> str:
    if not re.fullmatch("[A-Za-z0-9._-]{1,200}", name):
        raise ValueError("expected a name of letters, digits, '.', '_' and '-', 200 at most")
    return name


def _host_and_port(address: str) -> str:
    host, _, port = address.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise ValueError("expected HOST:PORT with a port up to 65535")
    return address


def _servers(addresses: str) -> str:
    if not re.fullmatch(r"[\w.,:%\[\] -]*", addresses):
        raise ValueError("expected HOST:PORT, several with commas between them; a password goes to kafka.security")
    return addresses


# What Kafka allows in the names of topics and groups.
KafkaName = Annotated[str, AfterValidator(_kafka_name)]
HostPort = Annotated[str, AfterValidator(_host_and_port)]
Positive = Annotated[int, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0)]


class Section(BaseModel):
    """A group of settings: frozen, and a key that is not known is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


def _at_most(section: BaseModel, name: str, other: str, bound: float, share: str) -> None:
    value = getattr(section, name)
    if value > bound:
        raise ValueError(f"{name} {value} must be at most {share}{other} {getattr(section, other)}")


class SecuritySettings(Section):
    """How to reach a broker that is not open to everybody."""

    protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] | None = None
    username: str | None = None
    password: SecretStr | None = None
    token: Annotated[str, StringConstraints(pattern=r"^[\w.]+:\w+$")] | None = None
    """`module:callable` that returns a token for OAUTHBEARER; it may be async."""
    cafile: Path | None = None
    """Certificates to trust; default: the system's."""
    certfile: Path | None = None
    keyfile: Path | None = None

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        sasl = self.protocol.startswith("SASL_")
        bearer = self.sasl_mechanism == "OAUTHBEARER"
        if bearer != (self.token is not None):
            raise ValueError("sasl_mechanism OAUTHBEARER and token need each other")
        if sasl and not bearer and not (self.sasl_mechanism and self.username and self.password):
            raise ValueError(f"protocol {self.protocol} needs sasl_mechanism, username and password")
        if not sasl and self.sasl_mechanism:
            raise ValueError(f"sasl_mechanism {self.sasl_mechanism} clashes with protocol {self.protocol}")
        if not self.protocol.endswith("SSL") and (self.cafile or self.certfile):
            raise ValueError(f"cafile and certfile clash with protocol {self.protocol}")
        if self.keyfile and not self.certfile:
            raise ValueError("keyfile is set without certfile")
        return self

    def ssl_context(self) -> ssl.SSLContext | None:
        """Build the TLS context; None for a protocol without TLS. OSError when a file cannot be read."""
        if not self.protocol.endswith("SSL"):
            return None
        context = ssl.create_default_context(cafile=str(self.cafile) if self.cafile else None)
        if self.certfile:
            context.load_cert_chain(str(self.certfile), str(self.keyfile) if self.keyfile else None)
        return context


class KafkaSettings(Section):
    """The broker, the consumer group and how records are fetched."""

    bootstrap_servers: Annotated[str, StringConstraints(min_length=1), AfterValidator(_servers)] = "localhost:9092"
    """HOST:PORT, several with commas between them."""
    group: KafkaName | None = None
    """Default: `murmura.<app>`."""
    group_instance_id: KafkaName | None = None
    """Static membership: unique in the group. Two processes with one id take the partitions from each other for ever."""
    client_rack: KafkaName | None = None
    """Where this process runs, in the broker's terms: records are fetched from a replica there, where there is one."""
    start_timeout_s: Seconds = 10.0
    """How long the broker may take to answer before the start is given up."""
    session_timeout_ms: Positive = 10_000
    heartbeat_interval_ms: Positive = 500
    rebalance_timeout_ms: Positive = 30_000
    drain_s: Seconds = 20.0
    """How long records in flight may take to finish when partitions are taken away or the process stops."""
    request_timeout_ms: Positive = 40_000
    metadata_max_age_ms: Positive = 5_000
    """How old what is known of topics may be: so long a new partition or a topic that is made again may stay unnoticed."""
    fetch_max_wait_ms: Annotated[int, Field(ge=0)] = 50
    fetch_min_bytes: Positive = 1
    fetch_max_bytes: Positive = 16 * 1024 * 1024
    max_partition_fetch_bytes: Positive = 128 * 1024
    """A single larger record is fetched all the same. What is fetched at once is decoded at once, and other topics wait
    for that: a few hundred records."""
    auto_offset_reset: Literal["earliest", "latest"] = "earliest"
    security: SecuritySettings = SecuritySettings()

    @model_validator(mode="after")
    def _times_fit(self) -> Self:
        # A broker drops a member after one missed session, so several heartbeats have to fit into it.
        _at_most(self, "heartbeat_interval_ms", "session_timeout_ms", self.session_timeout_ms / 3, "a third of ")
        if self.drain_s * 1000 >= self.rebalance_timeout_ms:
            raise ValueError(
                f"drain_s {self.drain_s:g} must be below rebalance_timeout_ms {self.rebalance_timeout_ms}: "
                "the group goes on without a member that drains for longer"
            )
        _at_most(self, "fetch_max_wait_ms", "request_timeout_ms", self.request_timeout_ms / 2, "half of ")
        _at_most(self, "max_partition_fetch_bytes", "fetch_max_bytes", self.fetch_max_bytes, "")
        return self

    def client_options(self) -> dict[str, Any]:
        """Keyword arguments that every aiokafka client takes: address and security."""
        options: dict[str, Any] = {"bootstrap_servers": self.bootstrap_servers.split(",")}
        options["metadata_max_age_ms"] = self.metadata_max_age_ms
        security = self.security
        options["security_protocol"] = security.protocol
        if (context := security.ssl_context()) is not None:
            options["ssl_context"] = context
        if security.sasl_mechanism:
            options["sasl_mechanism"] = security.sasl_mechanism
        if security.token:
            from .broker_token import load_tokens  # noqa: PLC0415  (settings do without the client)

            options["sasl_oauth_token_provider"] = load_tokens(security.token)
        elif security.sasl_mechanism:
            options["sasl_plain_username"] = security.username
            options["sasl_plain_password"] = security.password.get_secret_value() if security.password else None
        return options

    def consumer_options(self) -> dict[str, Any]:
        """Keyword arguments that every aiokafka consumer takes: those of all clients, and the rack."""
        return {**self.client_options(), "client_rack": self.client_rack}


class ProducerSettings(Section):
    """How results and dead letters are sent."""

    linger_ms: Annotated[int, Field(ge=0)] = 2
    batch_bytes: Positive = 262_144
    compression: Literal["gzip", "snappy", "lz4", "zstd"] | None = None
    send_timeout_s: Seconds = 30.0
    """After it a send counts as failed and is tried again with a new producer."""
    max_request_bytes: Positive = LARGE_VALUE_BYTES + DEAD_LETTER_ROOM_BYTES
    """Largest dead letter; what does not fit is cut."""
