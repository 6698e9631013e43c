"""Settings of the broker, its clients and their security; types shared by all sections."""

import re
import ssl
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    model_validator,
)

from ...schemas.topics import DEAD_LETTER_ROOM_BYTES, LARGE_VALUE_BYTES

CLIENT_ID: Final = "murmura"
"""The name of the fetching client in the broker's logs, metrics and quotas."""


def _kafka_name(name: str) -> str:
    if not re.fullmatch("[A-Za-z0-9._-]{1,200}", name):
        raise ValueError("expected a name of letters, digits, '.', '_' and '-', 200 at most")
    return name


def _agent_name(name: str) -> str:
    if not name.replace("-", "").replace("_", "").isalnum():
        raise ValueError("expected an agent's name: letters, digits, '-' and '_'")
    return name


def refuse_address(path: Any) -> Any:
    """Refuse an address in the place of a path: as a path it would be shown with the secrets in it."""
    if isinstance(path, str) and "://" in path:
        raise ValueError("expected the path of a file, found an address")
    return path


def _host_and_port(address: str) -> str:
    host, _, port = address.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise ValueError("expected HOST:PORT with a port up to 65535")
    return address


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of a HostPort."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _servers(addresses: str) -> str:
    for address in addresses.split(","):
        host, _, port = address.strip().rpartition(":")
        if not re.fullmatch(r"[\w.:%\[\]-]+", host) or not port.isascii() or not port.isdigit() or int(port) > 65_535:
            raise ValueError("expected HOST:PORT, several with commas between them; a password goes to kafka.security")
    return addresses


AgentName = Annotated[str, AfterValidator(_agent_name)]
FilePath = Annotated[Path, BeforeValidator(refuse_address)]
# The characters that Kafka allows in names of topics and groups.
KafkaName = Annotated[str, AfterValidator(_kafka_name)]
HostPort = Annotated[str, AfterValidator(_host_and_port)]
Positive = Annotated[int, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0)]


class Section(BaseModel):
    """A group of settings: frozen, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


def _check_at_most(section: BaseModel, name: str, other: str, bound: float, share: str) -> None:
    value = getattr(section, name)
    if value > bound:
        raise ValueError(f"{name} {value} must be at most {share}{other} {getattr(section, other)}")


class SecuritySettings(Section):
    """Authentication and encryption of the connection to the broker."""

    protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] | None = None
    username: str | None = None
    password: SecretStr | None = None
    token: Annotated[str, StringConstraints(pattern=r"^[\w.]+:\w+$")] | None = None
    """`module:callable` that returns a token for OAUTHBEARER; it may be async."""
    cafile: FilePath | None = None
    """Certificates to trust; default: the system's."""
    certfile: FilePath | None = None
    keyfile: FilePath | None = None

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
        """Return the TLS context; None for a protocol without TLS. Raises OSError when a file cannot be read."""
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
    """Static membership; unique within the group. Two processes with the same id keep revoking each other's partitions."""
    client_rack: KafkaName | None = None
    """Rack of this process, as named by the broker: records are fetched from a replica there, if there is one."""
    start_timeout_s: Seconds = 10.0
    """How long to wait for the broker at start."""
    session_timeout_ms: Positive = 10_000
    heartbeat_interval_ms: Positive = 500
    rebalance_timeout_ms: Positive = 30_000
    drain_s: Seconds = 20.0
    """How long records in progress may take to finish when partitions are revoked or the process stops."""
    request_timeout_ms: Positive = 40_000
    metadata_max_age_ms: Positive = 5_000
    """Maximum age of topic metadata: the time until new partitions and recreated topics are noticed."""
    fetch_max_wait_ms: Annotated[int, Field(ge=0)] = 50
    fetch_min_bytes: Positive = 1
    fetch_max_bytes: Positive = 16 * 1024 * 1024
    max_partition_fetch_bytes: Positive = 128 * 1024
    """A single larger record is still fetched. A fetch is decoded as a whole, a few hundred records by default, while
    other topics wait."""
    auto_offset_reset: Literal["earliest", "latest"] = "earliest"
    security: SecuritySettings = SecuritySettings()

    @model_validator(mode="after")
    def _times_fit(self) -> Self:
        # The broker removes a member after one session timeout without a heartbeat, so several must fit into it.
        _check_at_most(self, "heartbeat_interval_ms", "session_timeout_ms", self.session_timeout_ms / 3, "a third of ")
        if self.drain_s * 1000 >= self.rebalance_timeout_ms:
            raise ValueError(
                f"drain_s {self.drain_s:g} must be below rebalance_timeout_ms {self.rebalance_timeout_ms}: "
                "the group removes a member that drains for longer"
            )
        _check_at_most(self, "fetch_max_wait_ms", "request_timeout_ms", self.request_timeout_ms / 2, "half of ")
        _check_at_most(self, "max_partition_fetch_bytes", "fetch_max_bytes", self.fetch_max_bytes, "")
        return self

    def client_options(self) -> dict[str, Any]:
        """Return the keyword arguments for every aiokafka client: address and security."""
        options: dict[str, Any] = {"bootstrap_servers": self.bootstrap_servers.split(",")}
        options["metadata_max_age_ms"] = self.metadata_max_age_ms
        security = self.security
        options["security_protocol"] = security.protocol
        if (context := security.ssl_context()) is not None:
            options["ssl_context"] = context
        if security.sasl_mechanism:
            options["sasl_mechanism"] = security.sasl_mechanism
        if security.token:
            from .broker_token import load_tokens  # noqa: PLC0415  (settings must not import the client)

            options["sasl_oauth_token_provider"] = load_tokens(security.token)
        elif security.sasl_mechanism:
            options["sasl_plain_username"] = security.username
            options["sasl_plain_password"] = security.password.get_secret_value() if security.password else None
        return options

    def consumer_options(self) -> dict[str, Any]:
        """Return the keyword arguments for every aiokafka consumer: those of all clients, and the rack."""
        return {**self.client_options(), "client_rack": self.client_rack}


class ProducerSettings(Section):
    """Settings of the producer of results and dead letters."""

    linger_ms: Annotated[int, Field(ge=0)] = 2
    batch_bytes: Positive = 262_144
    compression: Literal["gzip", "snappy", "lz4", "zstd"] | None = None
    send_timeout_s: Seconds = 30.0
    """Time limit of a send; after that it is retried with a new producer."""
    max_request_bytes: Positive = LARGE_VALUE_BYTES + DEAD_LETTER_ROOM_BYTES
    """Maximum size of a dead letter; a larger one is truncated."""
