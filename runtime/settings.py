"""Every setting of a process, frozen and checked together before anything starts.

Units stand in the names. A set-up that cannot work is refused here, naming both settings that clash, never at the first
message. These models read nothing by themselves: `settings_sources.load` puts flags, environment and file together.
"""

import os
import re
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    StringConstraints,
    model_validator,
)

from ..schemas.manifest import Thresholds
from ..schemas.topics import DEAD_LETTER_ROOM_BYTES, LARGE_VALUE_BYTES
from .routing import Rule


def _kafka_name(name: str) -> str:
    if not re.fullmatch("[A-Za-z0-9._-]{1,200}", name):
        raise ValueError(f"expected a name of letters, digits, '.', '_' and '-', found {name!r}")
    return name


def _host_and_port(address: str) -> str:
    host, _, port = address.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise ValueError(f"expected HOST:PORT with a port up to 65535, found {address!r}")
    return address


# What Kafka allows in the names of topics and groups.
KafkaName = Annotated[str, AfterValidator(_kafka_name)]
HostPort = Annotated[str, AfterValidator(_host_and_port)]
Positive = Annotated[int, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


def _own_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _at_most(section: BaseModel, name: str, other: str, bound: float, share: str) -> None:
    value = getattr(section, name)
    if value > bound:
        raise ValueError(f"{name} {value} must be at most {share}{other} {getattr(section, other)}")


class SecuritySettings(_Section):
    """How to reach a broker that is not open to everybody."""

    protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    username: str | None = None
    password: SecretStr | None = None
    cafile: Path | None = None
    """Certificates to trust; default: the system's."""
    certfile: Path | None = None
    keyfile: Path | None = None

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        sasl = self.protocol.startswith("SASL_")
        if sasl and not (self.sasl_mechanism and self.username and self.password):
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


class KafkaSettings(_Section):
    """The broker, the consumer group and how records are fetched."""

    bootstrap_servers: Annotated[str, StringConstraints(min_length=1)] = "localhost:9092"
    """HOST:PORT, several with commas between them."""
    group: KafkaName | None = None
    """Default: `murmura.<app>`."""
    group_instance_id: KafkaName | None = None
    """Static membership: unique in the group. Two processes with one id take the partitions from each other for ever."""
    start_timeout_s: Seconds = 10.0
    """How long the broker may take to answer before the start is given up."""
    session_timeout_ms: Positive = 10_000
    heartbeat_interval_ms: Positive = 500
    rebalance_timeout_ms: Positive = 30_000
    drain_s: Seconds = 20.0
    """How long records in flight may take to finish when partitions are taken away or the process stops."""
    request_timeout_ms: Positive = 40_000
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
        security = self.security
        options["security_protocol"] = security.protocol
        if (context := security.ssl_context()) is not None:
            options["ssl_context"] = context
        if security.sasl_mechanism:
            options["sasl_mechanism"] = security.sasl_mechanism
            options["sasl_plain_username"] = security.username
            options["sasl_plain_password"] = security.password.get_secret_value() if security.password else None
        return options


class ModelSettings(_Section):
    """Which model answers, on what, and how batches are formed."""

    folder: Path | None = None
    """A model folder or a delta folder. With `store` it serves until the first release."""
    store: Annotated[str, StringConstraints(min_length=1)] | None = None
    """Folder or fsspec URL of the model store. With it releases of `name` are followed and swapped in."""
    name: Annotated[str, StringConstraints(min_length=1)] | None = None
    """The model of the store that serves."""
    device: Literal["auto", "cuda", "cpu"] = "auto"
    cores: Positive = Field(default_factory=_own_cores)
    """Forward passes at once on a CPU, each on one core. Default: the cores this process may use."""
    graph: Literal["ragged", "padded"] = "ragged"
    token_budget: Positive | None = None
    """Tokens in a batch; default: measured at start."""
    max_rows: Positive = 256
    max_wait_ms: Annotated[float, Field(ge=0)] = 0.0
    """How long a batch may wait for company. 0: never; a batch is closed when the device asks for it."""

    @model_validator(mode="after")
    def _store_and_name_go_together(self) -> Self:
        if (self.store is None) != (self.name is None):
            alone, other = ("store", "name") if self.store else ("name", "store")
            raise ValueError(f"{alone} is set without {other}: releases are followed for one model of one store")
        return self


class LimitSettings(_Section):
    max_value_bytes: Positive = 1024 * 1024
    """A larger value of a request becomes a dead letter `too_large`."""
    max_hops: Positive = 16
    """A record that was handed on more often becomes a dead letter `hop_limit`: agents that hand on in a circle stop."""


class ProducerSettings(_Section):
    """How results and dead letters are sent."""

    linger_ms: Annotated[int, Field(ge=0)] = 2
    batch_bytes: Positive = 262_144
    compression: Literal["gzip", "snappy", "lz4", "zstd"] | None = None
    send_timeout_s: Seconds = 30.0
    """After it a send counts as failed and is tried again with a new producer."""
    max_request_bytes: Positive = LARGE_VALUE_BYTES + DEAD_LETTER_ROOM_BYTES
    """Largest dead letter; what does not fit is cut."""


class ThresholdSettings(Thresholds):
    """Only what is set here replaces what the manifest says (`model_fields_set`)."""

    model_config = ConfigDict(extra="forbid")


class AgentSettings(_Section):
    """Overrides for one agent; what is not set stays as the agent declares it."""

    topics: Annotated[list[KafkaName], Field(min_length=1)] | None = None
    tasks: Annotated[list[str], Field(min_length=1)] | None = None
    output: KafkaName | None = None
    thresholds: dict[str, ThresholdSettings] = {}
    """By task."""


class FeedbackSettings(_Section):
    """What the feedback agent takes."""

    agents: Annotated[list[str], Field(min_length=1)] | None = None
    """Whose predictions; default: of the agents in the same process. Set it where it runs alone."""
    window: Positive = 500
    """The live accuracy is that of the last so many verdicts."""


class ReviewSettings(_Section):
    """Which live predictions people are asked to look at."""

    per_minute: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """At most so many of one process; 0: none."""
    margin: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Doubtful when the two best labels are closer than this."""
    out_of_scope_band: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Doubtful when the out-of-scope score is closer than this to its threshold."""


class DialogueSettings(_Section):
    """How the dialogue agent answers and what it keeps."""

    policy: Path | None = None
    """A YAML file; where a settings file names it, relative to that file's folder. The agent does not start without."""
    state: KafkaName | None = None
    """The changelog; default: `<prefix>.dialogue.state`. It has as many partitions as the topic of turns."""
    handoffs: KafkaName | None = None
    """Where conversations for people go; default: `<prefix>.handoffs`."""
    max_conversations: Positive = 10_000
    """Of each partition; beyond it the one that was silent for longest is forgotten."""
    restore_timeout_s: Seconds = 300.0
    """How long reading the changelog may take when partitions are assigned; then the process ends."""


class TracingSettings(_Section):
    """Whether spans of records go to OpenTelemetry; needs the extra `tracing`."""

    exporter: Literal["none", "otlp", "console"] = "none"
    """otlp: OTLP over HTTP; console: to the log's stream, for trying out."""
    sample_ratio: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Share of requests without a `traceparent` that begin a trace; others do as theirs says."""
    endpoint: Annotated[str, StringConstraints(pattern="^https?://.+")] = "http://localhost:4318/v1/traces"
    """The collector."""


class HealthSettings(_Section):
    progress_overdue_s: Seconds = 60.0
    """With work waiting and nothing finished for so long, `/readyz` and `/livez` say no."""


class LogSettings(_Section):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "pretty"] = "auto"
    """auto: pretty on a terminal, else JSON lines."""


class Settings(_Section):
    """All of them. Two processes with equal settings do the same."""

    app: KafkaName = "default"
    prefix: KafkaName = "murmura"
    kafka: KafkaSettings = KafkaSettings()
    model: ModelSettings = ModelSettings()
    limits: LimitSettings = LimitSettings()
    producer: ProducerSettings = ProducerSettings()
    queue_budgets: Annotated[float, Field(ge=1)] = 4.0
    """Bound of the records waiting in this process, in token budgets."""
    commit_interval_ms: Positive = 100
    agents: dict[str, AgentSettings] = {}
    routing: tuple[Rule, ...] = ()
    """Where records go on to, by what an agent answered."""
    feedback: FeedbackSettings = FeedbackSettings()
    reviews: ReviewSettings = ReviewSettings()
    dialogue: DialogueSettings = DialogueSettings()
    tracing: TracingSettings = TracingSettings()
    http: HostPort = "127.0.0.1:9464"
    """HOST:PORT of health and metrics; port 0 takes a free one."""
    health: HealthSettings = HealthSettings()
    log: LogSettings = LogSettings()

    _places: dict[str, str] = PrivateAttr(default_factory=dict)
    """Where keys were given that are checked once the agents are known."""

    @model_validator(mode="after")
    def _sections_fit(self) -> Self:
        kafka, producer = self.kafka, self.producer
        if self.limits.max_value_bytes + DEAD_LETTER_ROOM_BYTES > producer.max_request_bytes:
            raise ValueError(
                f"limits.max_value_bytes {self.limits.max_value_bytes} plus {DEAD_LETTER_ROOM_BYTES} for a dead "
                f"letter's headers is above producer.max_request_bytes {producer.max_request_bytes}"
            )
        if producer.batch_bytes > producer.max_request_bytes:
            raise ValueError(
                f"producer.batch_bytes {producer.batch_bytes} is above "
                f"producer.max_request_bytes {producer.max_request_bytes}"
            )
        if self.commit_interval_ms >= kafka.session_timeout_ms:
            raise ValueError(
                f"commit_interval_ms {self.commit_interval_ms} must be below "
                f"kafka.session_timeout_ms {kafka.session_timeout_ms}"
            )
        return self

    def place(self, key: str) -> str:
        """Return where a key stands, for whoever has to change it."""
        return self._places.get(key, f"settings: {key}")

    def keys_stand_at(self, places: Mapping[str, str]) -> None:
        self._places.update(places)

    @property
    def group(self) -> str:
        """The consumer group; never derived from the agents, so that adding one does not reset offsets."""
        return self.kafka.group or f"murmura.{self.app}"

    @property
    def http_address(self) -> tuple[str, int]:
        host, _, port = self.http.rpartition(":")
        return host.strip("[]"), int(port)

    @property
    def dead_letters(self) -> str:
        return f"{self.prefix}.deadletters"

    @property
    def changelog(self) -> str:
        """Where the dialogue agent keeps its conversations."""
        return self.dialogue.state or f"{self.prefix}.dialogue.state"
