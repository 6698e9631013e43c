"""Every setting of a process, frozen and checked together before anything starts.

Units stand in the names. A set-up that cannot work is refused here, naming both settings that clash, never at the first
message. These models read nothing by themselves: `settings_sources.load` puts flags, environment and file together.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, PrivateAttr, StringConstraints, model_validator

from ...schemas.manifest import Thresholds
from ...schemas.topics import DEAD_LETTER_ROOM_BYTES
from ..field_paths import FieldPath, FieldPaths
from .kafka import HostPort, KafkaName, KafkaSettings, Positive, ProducerSettings, Seconds, Section, SecuritySettings
from .retries import AgentRetrySettings, RetrySettings
from .routing_rules import Rule

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
    "ReviewSettings",
    "Seconds",
    "SecuritySettings",
    "Settings",
    "ThresholdSettings",
    "TracingSettings",
]


def _available_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _no_address(folder: Any) -> Any:
    if isinstance(folder, str) and "://" in folder:
        raise ValueError("expected a folder, found an address; a model store's address is model.store")
    return folder


class ModelSettings(Section):
    """Which model answers, on what, and how batches are formed."""

    folder: Annotated[Path | None, BeforeValidator(_no_address)] = None
    """A model folder or a delta folder. With `store` it serves until the first release."""
    store: Annotated[str, StringConstraints(min_length=1)] | None = None
    """Folder or fsspec URL of the model store. With it releases of `name` are followed and swapped in."""
    name: Annotated[str, StringConstraints(min_length=1)] | None = None
    """The model of the store that serves."""
    device: Literal["auto", "cuda", "cpu"] = "auto"
    cores: Positive = Field(default_factory=_available_cores)
    """Forward passes at once on a CPU, each on one core. Default: the cores this process may use."""
    graph: Literal["ragged", "padded"] = "ragged"
    token_budget: Positive | None = None
    """Tokens in a batch; default: measured at start."""
    max_rows: Positive = 256
    max_wait_ms: Annotated[float, Field(ge=0)] = 0.0
    """How long a batch may wait for company. 0: never; a batch is closed when the device asks for it."""
    run_deadline_s: Seconds = 5.0
    """A forward pass that takes longer is ended, but none before 20 times what was measured at start."""
    probe_pause_s: Seconds = 0.5
    """Before a device that failed is probed; doubled after each probe that fails, up to 10 s."""
    give_up_s: Seconds = 60.0
    """A device that has answered no batch for so long after its first failure ends the process."""
    trial_timeout_s: Seconds = 60.0
    """How long the process that tries a version before it serves may take."""
    trial_memory_bytes: Positive = 8 * 2**30
    """Address space of that process, of which the libraries alone map about 2 GiB."""

    @model_validator(mode="after")
    def _store_and_name_go_together(self) -> Self:
        if (self.store is None) != (self.name is None):
            alone, other = ("store", "name") if self.store else ("name", "store")
            raise ValueError(f"{alone} is set without {other}: releases are followed for one model of one store")
        return self


class LimitSettings(Section):
    max_value_bytes: Positive = 1024 * 1024
    """A larger value of a request becomes a dead letter `too_large`."""
    max_hops: Positive = 16
    """A record that was handed on more often becomes a dead letter `hop_limit`: agents that hand on in a circle stop."""
    max_waiting_bytes: Positive = 128 * 1024 * 1024
    """Of the records that the process holds: three quarters for those that wait, shared equally by its partitions, one for
    those that are being answered. A partition is paused at its share. One record is taken, however large it is."""
    max_partition_waiting_bytes: Positive = 16 * 1024 * 1024
    """Of the records of a partition that wait, where its share is larger."""
    max_uncommitted: Positive = 20_000
    """Records of a partition that were fetched and cannot be committed yet: it is paused behind one that is not finished."""


class ThresholdSettings(Thresholds):
    """Only what is set here replaces what the manifest says (`model_fields_set`)."""

    model_config = ConfigDict(extra="forbid")


class AgentSettings(Section):
    """Overrides for one agent; what is not set stays as the agent declares it."""

    topics: Annotated[list[KafkaName], Field(min_length=1)] | None = None
    tasks: Annotated[list[str], Field(min_length=1)] | None = None
    output: KafkaName | None = None
    thresholds: dict[str, ThresholdSettings] = Field(default_factory=dict)
    """By task."""
    options: dict[str, Any] = Field(default_factory=dict, repr=False)
    """What the agent's own model (`options_model`) checks once the agent is known; it may hold secrets."""
    timeout_s: Seconds | None = None
    """Of a handler: a record that it has not finished by then is a dead letter."""
    max_age_s: Seconds | None = None
    """A request whose record is older is answered `expired`, and nothing is computed for it. Default: never."""
    max_waiting: Positive | None = None
    """Records of a partition that wait for it while it is suspended; then the partition is paused. Default: 1,000."""
    max_waiting_bytes: Positive | None = None
    """Of those records. Default: 4 MiB."""
    failing_share: Annotated[float, Field(gt=0, le=1)] | None = None
    """It is suspended when more than this share of its latest records fail. Default: 0.5; 1: never for that."""
    failing_latest: Positive | None = None
    """How many of its latest records are looked at. Default: 200."""
    probe_pause_s: Annotated[float, Field(gt=0, le=60)] | None = None
    """Before a suspended agent is first tried again; doubled each time, up to a minute. Default: 1."""
    give_up_s: Seconds | None = None
    """Suspended for so long, its waiting records become dead letters. Default: they wait for as long as it takes."""
    retries: AgentRetrySettings = AgentRetrySettings()
    """Where it asks for another attempt."""
    long_texts: Literal["cut", "windows"] | None = None
    """Texts longer than the model's limit: their beginning is answered, or all of it in overlapping windows. All agents of a
    topic share what is read. Default: as the agent declares, which is `cut`."""
    max_windows: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Of a text; what lies behind them is not read, and the result says `truncated`. Default: 64."""
    window_tokens: Annotated[int, Field(ge=8)] | None = None
    """Default: the model's limit. Shorter ones find more of a model that has learned from short texts, and cost more."""
    window_overlap: Annotated[int, Field(ge=0)] | None = None
    """Tokens that neighbours share, at most half of a window. Default: a quarter."""
    window_scores: Literal["max", "mean"] | None = None
    """How the labels' scores of the windows become the text's. Default: `max`, one window that is sure decides."""

    @model_validator(mode="after")
    def _windows_are_asked_for(self) -> Self:
        names = ("max_windows", "window_tokens", "window_overlap", "window_scores")
        if self.long_texts == "cut" and (given := [name for name in names if getattr(self, name) is not None]):
            raise ValueError(f"{given[0]} clashes with long_texts cut: set long_texts to windows")
        return self


def _field_path(text: str) -> str:
    FieldPath.parse(text)
    return text


FieldPathText = Annotated[str, AfterValidator(_field_path)]


class InputSettings(Section):
    """Where the values of a topic hold the fields of a request; what is not set lies at the top, as in our own."""

    text: FieldPathText | None = None
    """For example `$.payload.body`."""
    id: FieldPathText | None = None
    tasks: FieldPathText | None = None
    metadata: FieldPathText | None = None

    @property
    def fields(self) -> FieldPaths | None:
        """The paths that are set; None when none is."""
        paths = {name: FieldPath.parse(text) for name, text in self.model_dump(exclude_none=True).items()}
        return FieldPaths(paths) if paths else None


class ReviewSettings(Section):
    """Which live predictions people are asked to look at."""

    per_minute: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """At most so many of one process; 0: none."""
    margin: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Doubtful when the two best labels are closer than this."""
    out_of_scope_band: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Doubtful when the out-of-scope score is closer than this to its threshold."""


class TracingSettings(Section):
    """Whether spans of records go to OpenTelemetry; needs the extra `tracing`."""

    exporter: Literal["none", "otlp", "console"] = "none"
    """otlp: OTLP over HTTP; console: to the log's stream, for trying out."""
    sample_ratio: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Share of requests without a `traceparent` that begin a trace; others do as theirs says."""
    endpoint: Annotated[str, StringConstraints(pattern="^https?://.+")] = "http://localhost:4318/v1/traces"
    """The collector."""


class DeadLetterSettings(Section):
    """What is written beside a record that could not be answered."""

    compatible: Literal["spring"] | None = None
    """`spring`: Spring Kafka's headers stand beside ours, for tools that know them."""
    per_s: Annotated[float, Field(gt=0, le=1000)] = 10.0
    """At most so many are written of agents that were suspended for longer than their `give_up_s`."""
    give_up_s: Seconds = 300.0
    """When the dead-letter topic takes nothing for so long, the process ends with an error."""


class HealthSettings(Section):
    progress_overdue_s: Seconds = 60.0
    """With work waiting and nothing finished, or with no successful fetch, for so long, `/readyz` says no."""
    give_up_s: Seconds = 60.0
    """When the broker refuses every fetch for good for so long, the process ends with an error."""


class LogSettings(Section):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "pretty"] = "auto"
    """auto: pretty on a terminal, else JSON lines."""


class Origin(NamedTuple):
    """Where a key was given."""

    source: str
    folder: Path | None = None
    """Of the settings file, when a file gave it."""


class Settings(Section):
    """All of them. Two processes with equal settings do the same."""

    app: KafkaName = "default"
    prefix: KafkaName = "murmura"
    kafka: KafkaSettings = KafkaSettings()
    model: ModelSettings = ModelSettings()
    limits: LimitSettings = LimitSettings()
    producer: ProducerSettings = ProducerSettings()
    queue_budgets: Annotated[float, Field(ge=1)] = 4.0
    """From how many waiting texts on a partition is paused, in token budgets; a fetch may bring more than is missing."""
    commit_interval_ms: Positive = 100
    agents: dict[str, AgentSettings] = Field(default_factory=dict)
    inputs: dict[KafkaName, InputSettings] = Field(default_factory=dict)
    """By topic: where its values hold the fields of a request. All agents of a topic read the same."""
    routing: tuple[Rule, ...] = ()
    """Where records go on to, by what an agent answered."""
    reviews: ReviewSettings = ReviewSettings()
    tracing: TracingSettings = TracingSettings()
    deadletters: DeadLetterSettings = DeadLetterSettings()
    retries: RetrySettings = RetrySettings()
    http: HostPort = "127.0.0.1:9464"
    """HOST:PORT of health and metrics; port 0 takes a free one."""
    health: HealthSettings = HealthSettings()
    log: LogSettings = LogSettings()

    _origins: dict[str, Origin] = PrivateAttr(default_factory=dict)
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
        """Return where a key was given and the key itself, for whoever has to change it."""
        return f"{self.source(key)}: {key}"

    def source(self, key: str) -> str:
        """Return the file and line, variable or flag that gave a key, or else the section that it is in."""
        return self._origin(key).source

    def given_by(self, key: str) -> str | None:
        """Return the source of a key, or None where its default holds."""
        return self._origins[key].source if key in self._origins else None

    def folder(self, key: str) -> Path | None:
        """Return the folder of the settings file that gave a key; None when something else did."""
        return self._origin(key).folder

    def _origin(self, key: str) -> Origin:
        while key and key not in self._origins:
            key = key.rpartition(".")[0]
        return self._origins.get(key, Origin("settings"))

    def set_origins(self, origins: Mapping[str, Origin]) -> None:
        self._origins.update(origins)

    @property
    def fields(self) -> dict[str, FieldPaths]:
        """By topic: where its values hold the fields of a request, for those that are not as our own."""
        return {topic: fields for topic, each in self.inputs.items() if (fields := each.fields) is not None}

    @property
    def group(self) -> str:
        """The consumer group; never derived from the agents, so that adding one does not reset offsets."""
        return self.kafka.group or f"murmura.{self.app}"

    @property
    def http_address(self) -> tuple[str, int]:
        host, _, port = self.http.rpartition(":")
        return host.strip("[]"), int(port)

    @property
    def spring_group(self) -> str | None:
        """The group that Spring Kafka's headers name; None where they are not written."""
        return self.group if self.deadletters.compatible == "spring" else None

    @property
    def dead_letters(self) -> str:
        return f"{self.prefix}.deadletters"

    @property
    def retry_topic(self) -> str:
        return f"{self.prefix}.retries"
