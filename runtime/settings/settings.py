"""All settings of a process, frozen and validated before the start.

Names contain units. Settings that conflict are refused here, with both names, not at the first message. These models do not
read sources: `sources.load` merges flags, environment and file.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import AfterValidator, ConfigDict, Field, PrivateAttr, StringConstraints, model_validator

from ...schemas.manifest import Thresholds
from ...schemas.topics import DEAD_LETTER_ROOM_BYTES
from ..field_paths import FieldPath, FieldPaths
from .console import ConsoleSettings
from .experiments import ExperimentSettings
from .kafka import (
    AgentName,
    HostPort,
    KafkaName,
    KafkaSettings,
    Positive,
    ProducerSettings,
    Seconds,
    Section,
    SecuritySettings,
    split_address,
)
from .models import ModelSettings, NamedModelSettings
from .retries import AgentRetrySettings, RetrySettings
from .reviews import ReviewSettings
from .routing_rules import Rule
from .shadow import ShadowSettings

__all__ = [
    "AgentSettings",
    "DeadLetterSettings",
    "HealthSettings",
    "HostPort",
    "InputSettings",
    "KafkaName",
    "KafkaSettings",
    "LimitSettings",
    "LogSettings",
    "ModelSettings",
    "Origin",
    "ProducerSettings",
    "Seconds",
    "SecuritySettings",
    "Settings",
    "ThresholdSettings",
    "TracingSettings",
]


class LimitSettings(Section):
    max_value_bytes: Positive = 1024 * 1024
    """A request with a larger value becomes a dead letter `too_large`."""
    max_hops: Positive = 16
    """A record that was routed more often becomes a dead letter `hop_limit`: this ends routing loops."""
    max_waiting_bytes: Positive = 128 * 1024 * 1024
    """Memory for all records of the process: three quarters for waiting ones, divided equally among its partitions, one for
    those in progress. A partition is paused at its share, which always allows one record."""
    max_partition_waiting_bytes: Positive = 16 * 1024 * 1024
    """Maximum for the waiting records of a partition, if its share is larger."""
    max_uncommitted: Positive = 20_000
    """Maximum number of fetched and uncommitted records of a partition; it is paused at that."""


class ThresholdSettings(Thresholds):
    """Overrides of the manifest's thresholds: only fields that are set apply (`model_fields_set`)."""

    model_config = ConfigDict(extra="forbid")


class AgentSettings(Section):
    """Overrides for one agent; unset fields stay as the agent declares them."""

    model: AgentName | None = None
    """One of `models`; needed where there are several."""
    topics: Annotated[list[KafkaName], Field(min_length=1)] | None = None
    tasks: Annotated[list[str], Field(min_length=1)] | None = None
    output: KafkaName | None = None
    thresholds: dict[str, ThresholdSettings] = Field(default_factory=dict)
    """By task."""
    options: dict[str, Any] = Field(default_factory=dict, repr=False)
    """Validated by the agent's `options_model` when the agent is known; may contain secrets."""
    timeout_s: Seconds | None = None
    """For a handler: a record that it has not finished by then becomes a dead letter."""
    max_age_s: Seconds | None = None
    """A request with an older record is answered `expired` without computing it. Default: no limit."""
    max_waiting: Positive | None = None
    """Maximum number of records per partition that wait while the agent is suspended; then the partition is paused.
    Default: 1,000."""
    max_waiting_bytes: Positive | None = None
    """Maximum size of those records. Default: 4 MiB."""
    failing_share: Annotated[float, Field(gt=0, le=1)] | None = None
    """The agent is suspended when more than this share of its latest records fail. Default: 0.5; 1: never."""
    failing_latest: Positive | None = None
    """Number of latest records for that share. Default: 200."""
    probe_pause_s: Annotated[float, Field(gt=0, le=60)] | None = None
    """Pause before the first probe of a suspended agent; doubled each time, up to a minute. Default: 1."""
    give_up_s: Seconds | None = None
    """After this time of suspension the waiting records become dead letters. Default: never."""
    retries: AgentRetrySettings = AgentRetrySettings()
    """The retry policy."""
    long_texts: Literal["cut", "windows"] | None = None
    """For texts above the model's limit: read only the beginning (`cut`), or all in overlapping windows. Must be the same for
    all agents of a topic. Default: as the agent declares, else `cut`."""
    max_windows: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Maximum number of windows of a text; the rest is not read, and the result has `truncated` set. Default: 64."""
    window_tokens: Annotated[int, Field(ge=8)] | None = None
    """Tokens of a window. Default: the model's limit. With a model trained on short texts, shorter windows find more and cost
    more."""
    window_overlap: Annotated[int, Field(ge=0)] | None = None
    """Tokens shared by adjacent windows, at most half of a window. Default: a quarter."""
    window_scores: Literal["max", "mean"] | None = None
    """How the label scores of the windows are combined. Default: `max`."""

    @model_validator(mode="after")
    def _windows_are_asked_for(self) -> Self:
        names = ("max_windows", "window_tokens", "window_overlap", "window_scores")
        if self.long_texts == "cut" and (given := [name for name in names if getattr(self, name) is not None]):
            raise ValueError(f"{given[0]} clashes with long_texts cut: set long_texts to windows")
        return self


def _check_field_path(text: str) -> str:
    FieldPath.parse(text)
    return text


FieldPathText = Annotated[str, AfterValidator(_check_field_path)]


class InputSettings(Section):
    """Field paths of requests in the values of a topic; unset fields are at the top level, as in Murmura's requests."""

    text: FieldPathText | None = None
    """For example `$.payload.body`."""
    id: FieldPathText | None = None
    tasks: FieldPathText | None = None
    metadata: FieldPathText | None = None
    text_pair: FieldPathText | None = None

    @property
    def fields(self) -> FieldPaths | None:
        """The paths that are set; None without any."""
        paths = {name: FieldPath.parse(text) for name, text in self.model_dump(exclude_none=True).items()}
        return FieldPaths(paths) if paths else None


class TracingSettings(Section):
    """Export of record spans to OpenTelemetry; needs the extra `tracing`."""

    exporter: Literal["none", "otlp", "console"] = "none"
    """otlp: OTLP over HTTP; console: to the log's stream, for development."""
    sample_ratio: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Share of requests without a `traceparent` that start a trace; the others follow their `traceparent`."""
    endpoint: Annotated[str, StringConstraints(pattern="^https?://.+")] = "http://localhost:4318/v1/traces"
    """The collector."""


class DeadLetterSettings(Section):
    """Settings of dead letters."""

    compatible: Literal["spring"] | None = None
    """`spring`: also write Spring Kafka's headers, for tools that use them."""
    per_s: Annotated[float, Field(gt=0, le=1000)] = 10.0
    """Maximum rate of dead letters of agents that are suspended for longer than their `give_up_s`."""
    give_up_s: Seconds = 300.0
    """The process ends with an error when the dead-letter topic accepts no record for this time."""


class HealthSettings(Section):
    progress_overdue_s: Seconds = 60.0
    """`/readyz` fails when work waits and nothing was finished, or no fetch succeeded, for this time."""
    give_up_s: Seconds = 60.0
    """The process ends with an error when a permanent error fails every fetch for this time."""


class LogSettings(Section):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "pretty"] = "auto"
    """auto: pretty on a terminal, else JSON lines."""


class Origin(NamedTuple):
    """The origin of a key."""

    source: str
    folder: Path | None = None
    """The folder of the settings file, if a file set the key."""


class Settings(Section):
    """All settings. Two processes with equal settings behave the same."""

    app: KafkaName = "default"
    prefix: KafkaName = "murmura"
    kafka: KafkaSettings = KafkaSettings()
    model: ModelSettings = ModelSettings()
    models: dict[AgentName, NamedModelSettings] = Field(default_factory=dict)
    """Several models of the process, by name; `model` has what they share."""
    limits: LimitSettings = LimitSettings()
    producer: ProducerSettings = ProducerSettings()
    queue_budgets: Annotated[float, Field(ge=1)] = 4.0
    """Waiting texts at which a partition is paused, in token budgets; the last fetch may exceed it."""
    commit_interval_ms: Positive = 100
    agents: dict[AgentName, AgentSettings] = Field(default_factory=dict)
    inputs: dict[KafkaName, InputSettings] = Field(default_factory=dict)
    """By topic: field paths of requests in its values, for all agents of the topic."""
    routing: tuple[Rule, ...] = ()
    """Rules that publish records to further topics, by an agent's answers."""
    reviews: ReviewSettings = ReviewSettings()
    shadow: ShadowSettings = ShadowSettings()
    experiments: ExperimentSettings = ExperimentSettings()
    tracing: TracingSettings = TracingSettings()
    deadletters: DeadLetterSettings = DeadLetterSettings()
    retries: RetrySettings = RetrySettings()
    http: HostPort = "127.0.0.1:9464"
    """HOST:PORT of health and metrics; port 0 takes a free one."""
    health: HealthSettings = HealthSettings()
    log: LogSettings = LogSettings()
    console: ConsoleSettings = ConsoleSettings()

    _origins: dict[str, Origin] = PrivateAttr(default_factory=dict)
    """Origins of the keys that are validated when the agents are known."""

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

    @model_validator(mode="after")
    def _models_fit(self) -> Self:
        if self.models:
            for key in ("folder", "store", "name"):
                if getattr(self.model, key) is not None:
                    raise ValueError(f"model.{key} is set beside models: set it for one of them, models.NAME")
        for agent, overrides in self.agents.items():
            if overrides.model is not None and overrides.model not in self.models:
                known = ", ".join(self.models) or "none"
                raise ValueError(f"agents.{agent}.model names none of models, which are: {known}")
        return self

    @property
    def model_names(self) -> tuple[str, ...]:
        """The names of `models`; one empty name where there is only `model`."""
        return tuple(self.models) or ("",)

    def for_model(self, name: str) -> "Settings":
        """Return the settings as one model of the process sees them: its own are in `model`.

        Of a name that is none of `models`: what they share.
        """
        own = self.models.get(name)
        if own is None:
            return self
        changed = own.model_dump(exclude={"weight"}, exclude_none=True) | ({"name": name} if own.store else {})
        return self.model_copy(update={"model": self.model.model_copy(update=changed)})

    def for_agent(self, agent: str) -> "Settings":
        """Return the settings as the model that an agent asks sees them."""
        overrides = self.agents.get(agent)
        return self.for_model("" if overrides is None else overrides.model or "")

    @property
    def stores(self) -> tuple[str, ...]:
        """The model stores whose releases are followed, each once."""
        stores = (self.for_model(name).model.store for name in self.model_names)
        return tuple(dict.fromkeys(store for store in stores if store is not None))

    @property
    def has_store(self) -> bool:
        """Whether releases are followed."""
        return bool(self.stores)

    def weight(self, name: str) -> float:
        """Return the weight of a model."""
        return self.models[name].weight if self.models else 1.0

    def place(self, key: str) -> str:
        """Return the source of a key and the key itself, for error messages."""
        return f"{self.source(key)}: {key}"

    def source(self, key: str) -> str:
        """Return the file and line, variable or flag that set a key, else that of its section."""
        return self._origin(key).source

    def find_source(self, key: str) -> str | None:
        """Return the source of a key; None for a default."""
        return self._origins[key].source if key in self._origins else None

    def folder(self, key: str) -> Path | None:
        """Return the folder of the settings file that set a key; None for other sources."""
        return self._origin(key).folder

    def _origin(self, key: str) -> Origin:
        while key and key not in self._origins:
            key = key.rpartition(".")[0]
        return self._origins.get(key, Origin("settings"))

    def set_origins(self, origins: Mapping[str, Origin]) -> None:
        self._origins.update(origins)

    @property
    def fields(self) -> dict[str, FieldPaths]:
        """Field paths of requests, by topic; only for topics with another format."""
        return {topic: fields for topic, each in self.inputs.items() if (fields := each.fields) is not None}

    @property
    def group(self) -> str:
        """The consumer group; never derived from the agents, so that adding one does not reset offsets."""
        return self.kafka.group or f"murmura.{self.app}"

    @property
    def http_address(self) -> tuple[str, int]:
        return split_address(self.http)

    @property
    def spring_group(self) -> str | None:
        """The group for Spring Kafka's headers; None when they are not written."""
        return self.group if self.deadletters.compatible == "spring" else None

    @property
    def dead_letters(self) -> str:
        return f"{self.prefix}.deadletters"

    @property
    def retry_topic(self) -> str:
        return f"{self.prefix}.retries"
