"""What an agent is: a declaration (topics, tasks, output) and a decision about one request and its prediction."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from ..schemas.manifest import ModelManifest, TaskKind, TaskSpec, Thresholds
from .errors import Retry as Retry  # noqa: PLC0414 - handed on
from .errors import SetupError
from .long_texts import Windows
from .routing import Rule

if TYPE_CHECKING:
    from aiokafka.structs import ConsumerRecord, TopicPartition

    from .agent_options import Options
    from .changelog import Restored
    from .settings import Settings
    from .telemetry import Metrics

Output = dict[str, Any]
"""One task's answer as a plain dict, in the form of `schemas.result`."""


class Incoming:
    """One request as an agent sees it: its fields, and the record that it came in.

    `request_id` is never empty. `source` is the record's `ce_source`, else its topic. `value` and `headers` are the
    record's own bytes, so that a record can be handed on as it came.
    """

    __slots__ = (
        "headers",
        "hops",
        "key",
        "metadata",
        "offset",
        "partition",
        "request_id",
        "source",
        "tasks",
        "text",
        "timestamp",
        "topic",
        "traceparent",
        "value",
    )

    def __init__(
        self,
        text: str,
        *,
        request_id: str,
        topic: str = "test",
        partition: int = 0,
        offset: int = 0,
        timestamp: int = 0,
        key: bytes | None = None,
        value: bytes = b"",
        headers: tuple[tuple[str, bytes], ...] = (),
        tasks: tuple[str, ...] | None = None,
        metadata: dict[str, str] | None = None,
        source: str | None = None,
        traceparent: bytes | None = None,
        hops: int = 0,
    ) -> None:
        self.text = text
        self.request_id = request_id
        self.topic = topic
        self.partition = partition
        self.offset = offset
        self.timestamp = timestamp
        self.key = key
        self.value = value
        self.headers = headers
        self.tasks = tasks
        self.metadata = metadata
        self.source = source or topic
        self.traceparent = traceparent
        self.hops = hops


class Prediction(Mapping[str, Output]):
    """What the model said of one text: task name to output, and whether only the text's beginning was read."""

    __slots__ = ("model", "outputs", "truncated")

    def __init__(self, outputs: dict[str, Output], truncated: bool, model: tuple[str, int]) -> None:
        self.outputs = outputs
        self.truncated = truncated
        self.model = model

    def __getitem__(self, task: str) -> Output:
        return self.outputs[task]

    def __iter__(self) -> Iterator[str]:
        return iter(self.outputs)

    def __len__(self) -> int:
        return len(self.outputs)

    def __repr__(self) -> str:
        return f"Prediction({self.outputs!r}, truncated={self.truncated}, model={self.model})"


@dataclass(frozen=True, slots=True)
class Publish:
    """A record for any topic, another agent's input among them. A dict becomes JSON; bytes go out as they are."""

    topic: str
    value: bytes | dict[str, Any] | None
    key: bytes | str | None = None
    headers: tuple[tuple[str, bytes], ...] = ()
    """Added to those that every record handed on has. Request id, cause, hops and traceparent stay the runtime's."""
    partition: int | None = None
    """Default: by the key."""
    essential: bool = False
    """Of a handler: when the broker will never take it, the process ends and the record is not finished. Otherwise a
    dead letter takes its place."""


Decision = Mapping[str, Output] | Publish | Iterable["Mapping[str, Output] | Publish"] | None
"""Outputs for the result, any number of `Publish`, both in a tuple, or None for no result at all."""

Decide = Callable[[Incoming, Prediction], Decision]


def answer(request: Incoming, prediction: Prediction) -> Decision:
    """Answer with everything that was predicted: the decision of an agent that adds nothing of its own."""
    return prediction.outputs


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent's declaration.

    `topics` are full names. With `tasks` None the agent may answer every task of the model whose kind is in `kinds`, and
    a request that names none is answered on those that `by_default` picks. A request that names tasks is answered on
    those among them that the agent may answer. `output` None means that results are not published (the agent only hands
    on). What `thresholds` set replaces the manifest's for the tasks that they name.
    """

    name: str
    topics: tuple[str, ...]
    tasks: tuple[str, ...] | None = None
    output: str | None = None
    decide: Decide = answer
    kinds: frozenset[TaskKind] = frozenset({"classification", "multi_label", "tagging"})
    by_default: Callable[[TaskSpec], bool] = lambda task: True
    thresholds: Mapping[str, Thresholds] = field(default_factory=dict)
    windows: Windows | None = None
    """How texts are read that are longer than the model's limit; None: their beginning is answered, and `truncated` says so."""
    retry_on: tuple[type[Exception], ...] = ()
    """Errors of `decide` after which a record is tried again, as after `Retry`; any other makes it a dead letter."""
    ordering: Literal["none"] = "none"
    routing: tuple[Rule, ...] = ()
    """By the settings: where a request goes on to, by the outputs that were decided on."""

    def __post_init__(self) -> None:
        if not self.name or not self.name.replace("-", "").replace("_", "").isalnum():
            raise SetupError(f"agent name {self.name!r}: use letters, digits, - and _")
        if not self.topics:
            raise SetupError(f"agent {self.name}: it reads no topic; give it at least one in `topics`")
        if self.output in self.topics:
            raise SetupError(f"agent {self.name}: output topic {self.output} is one of its input topics")
        if inspect.iscoroutinefunction(self.decide):
            raise SetupError(
                f"agent {self.name}: its decision is an async function, expected a plain one: "
                "the model has answered when it is called; an agent that has to await something is a Handler"
            )

    @property
    def outputs(self) -> tuple[str, ...]:
        """Topics that it is known to publish to: its results' and those of its rules."""
        results = () if self.output is None else (self.output,)
        return (*results, *dict.fromkeys(rule.topic for rule in self.routing))

    def may_answer(self, task: TaskSpec) -> bool:
        """Say whether a request may ask it for this task."""
        return task.name in self.tasks if self.tasks else task.kind in self.kinds


def agent(
    *,
    topics: Iterable[str],
    tasks: Iterable[str] | None = None,
    output: str | None = None,
    name: str | None = None,
    thresholds: Mapping[str, float] | None = None,
    retry_on: Iterable[type[Exception]] = (),
) -> Callable[[Decide], Agent]:
    """Make an agent of a function `(request, prediction) -> decision`.

    The function's name is the agent's unless `name` is given. `thresholds` maps a task to the score from which its
    answer is accepted.
    """

    def declare(decide: Decide) -> Agent:
        return Agent(
            name=name or decide.__name__,
            topics=_several("topics", topics),
            tasks=None if tasks is None else _several("tasks", tasks),
            output=output,
            decide=decide,
            retry_on=tuple(retry_on),
            thresholds={task: Thresholds(accept=score, label=score) for task, score in (thresholds or {}).items()},
        )

    return declare


def _several(what: str, names: Iterable[str]) -> tuple[str, ...]:
    if isinstance(names, str):  # its letters would be the names
        raise SetupError(f"@agent: {what}={names!r}: expected a list, {what}=[{names!r}]")
    return tuple(names)


class Handler(ABC):
    """The longer form of an agent: it gets the record itself, asks the engine as it likes, and may keep state.

    Subclass it. A record is finished when everything that `handle` returned has been acknowledged. With `ordering`
    `key`, a key's next record is handed over only after the one before is finished; other keys go on meanwhile.
    """

    name: str
    topics: tuple[str, ...]
    outputs: tuple[str, ...] = ()
    """Topics that it publishes to, checked at start."""
    tasks: tuple[str, ...] = ()
    """Tasks that the model must have."""
    changelogs: tuple[str, ...] = ()
    """Compacted topics among `outputs` that its state is restored from. No rule may lead to them."""
    options_model: type["Options"] | None = None
    """What checks `agents.NAME.options` of the settings; None: it has no options."""
    options: Any = None
    """The checked options, an instance of `options_model`; there before `configure` is called."""
    retry_on: tuple[type[Exception], ...] = ()
    """Errors of `handle` after which a record is tried again, as after `Retry`."""
    ordering: Literal["none", "key"] = "none"
    timeout_s: float = 60.0
    """A record that `handle` has not finished by then is a dead letter; `agents.NAME.timeout_s` sets it. While `handle`
    waits for the model, this time stands still: the model has deadlines of its own."""
    freeze_s: float | None = None
    """Nothing is sent after the process stood still for longer, until it is certain whose its partitions are. Set in
    `started`, to the session's time-out, by whoever writes what others may have written meanwhile."""

    def configure(self, settings: "Settings") -> None:
        """Take what the settings say, `topics` and `outputs` above all: they are looked for next. Called once, first."""

    def started(self, context: "Context") -> None:
        """Take what is needed of the process. Called once, before anything is consumed; SetupError refuses the start."""

    def check(self, manifest: ModelManifest) -> None:
        """Refuse a model that this handler could not work with; SetupError says why.

        Called before `started` with the model that answers, and with each later version before it takes that one's place.
        """

    @abstractmethod
    async def handle(self, record: "ConsumerRecord", engine: "Predicts") -> Iterable[Publish]:
        """Return what is to be published for a record. RecordError makes it a dead letter with its reason; any other
        exception one with `agent_failed`, also CancelledError and running past `timeout_s`. At that deadline it is
        cancelled, so it may not swallow CancelledError.
        """

    def finished(self, record: "ConsumerRecord") -> None:
        """Hear that everything published for a record has been acknowledged."""

    def given_up(self, record: "ConsumerRecord") -> None:
        """Hear that a record was not finished and will be delivered again: here after the next assignment, or elsewhere.

        Its key's next records are not handed over before that.
        """

    async def assigned(self, partitions: "frozenset[TopicPartition]") -> Iterable[Publish] | None:
        """Get ready for partitions, restoring state for example; their records wait until this returns, and until the
        broker has what it returns.

        Cancelled when they are taken away meanwhile. Whatever it raises ends the process.
        """
        return None

    def revoked(self) -> None:
        """Forget what belongs to partitions: everything under way has been finished, or will be delivered again."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a handler may know of the process that it runs in."""

    settings: "Settings"
    metrics: "Metrics"
    engine: "Predicts"
    agents: tuple[str, ...]
    """Names of everybody who runs here, handlers among them."""
    partitions: Mapping[str, int] = field(default_factory=dict)
    """How many each topic of the broker has."""
    restore: "Restore | None" = None
    """Reads a changelog; None in a rehearsal, where there is none."""
    predicting: tuple[Agent, ...] = ()
    """Those among them that predict, as they are declared here."""


class Restore(Protocol):
    """`changelog.read_to_end` on this process's broker."""

    async def __call__(
        self,
        topic: str,
        partitions: Iterable[int],
        take: Callable[[int, bytes | None, bytes | None], None],
        *,
        timeout_s: float,
    ) -> "Restored": ...


class Served(Protocol):
    """The model as a handler sees it."""

    @property
    def manifest(self) -> ModelManifest: ...


class Predicts(Protocol):
    """The engine as a handler sees it."""

    @property
    def model(self) -> Served:
        """The one that answers now; another after a release, so do not keep it."""

    async def predict(
        self, text: str, tasks: Iterable[str] | None = None, *, thresholds: Mapping[str, Any] | None = None
    ) -> Prediction: ...
