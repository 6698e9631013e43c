"""Handlers, the asynchronous form of an agent, and the context that the process gives them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Protocol

from ...schemas.acts import Act, Utterance
from ...schemas.manifest import ModelManifest
from ...schemas.release import GeneratedReplies
from ..experiments.unit_assignment import RunningExperiment
from ..model.generated import Generated
from ..wire.message import Publish
from .agent import Agent
from .prediction import Prediction
from .result_envelope import Variant

if TYPE_CHECKING:
    from aiokafka.structs import ConsumerRecord, TopicPartition

    from ..kafka.changelog import Restored
    from ..model.vectors import Embedded, Vectors
    from ..observe.metrics import Metrics
    from ..settings.agent_options import Options
    from ..settings.settings import Settings


class Handler(ABC):
    """The asynchronous form of an agent: it receives the record, asks the engine for predictions, and may keep state.

    Subclass it. A record is finished when everything that `handle` returned has been acknowledged. With `ordering` `key`,
    the next record of a key is passed only after the one before is finished; other keys are not delayed.
    """

    name: str
    topics: tuple[str, ...]
    outputs: tuple[str, ...] = ()
    """Topics that it publishes to, checked at start."""
    tasks: tuple[str, ...] = ()
    """Tasks that the model must have."""
    changelogs: tuple[str, ...] = ()
    """Compacted topics among `outputs` that its state is restored from. Routing rules may not publish to them."""
    reply_topic: str | None = None
    """Topic of its replies to turns, for `murmura ingest`."""
    reply_constants: Mapping[str, str] = MappingProxyType({})
    """Slots that have one value in all its replies, and these values."""
    reply_expiry_ms: int | None = None
    """After so long without a turn, ms, it knows nothing of a conversation any more; None: it forgets none."""
    options_model: type["Options"] | None = None
    """The model that validates `agents.NAME.options` of the settings; None: it has no options."""
    options: Any = None
    """The validated options, an instance of `options_model`; set before `configure` is called."""
    retry_on: tuple[type[Exception], ...] = ()
    """Errors of `handle` after which a record is retried, as after `Retry`."""
    ordering: Literal["none", "key"] = "none"
    timeout_s: float = 60.0
    """A record that `handle` has not finished by then becomes a dead letter; set by `agents.NAME.timeout_s`. The time is
    paused while `handle` waits for the model, which has its own deadlines, and within `engine.untimed()`."""
    freeze_s: float | None = None
    """After the process was frozen for longer, nothing is sent until the ownership of its partitions is certain. A handler
    whose messages must not overtake those of the next owner sets it in `started` to the session timeout."""

    def configure(self, settings: "Settings") -> None:
        """Apply the settings. Called once, first; `topics` and `outputs` must be final when it returns."""

    def started(self, context: "Context") -> None:
        """Prepare with the context of the process. Called once, before consuming; raise SetupError to refuse the start."""

    def check(self, manifest: ModelManifest) -> None:
        """Raise SetupError for a model that this handler cannot work with.

        Called with the serving model before `started`, and with each later version before it replaces that model.
        """

    def prepare(self, model: "LoadedModel") -> None:
        """Compute what depends on a model itself, such as vectors of texts. Called in a thread, where it may block for seconds.

        Called after `check`: with the serving model before `started`, and with each later version before it replaces that
        model. Raise SetupError to refuse it.
        """

    @abstractmethod
    async def handle(self, record: "ConsumerRecord", engine: "Predicts") -> Iterable[Publish]:
        """Return the messages to publish for a record.

        `Retry` and errors in `retry_on` cause another attempt. RecordError makes the record a dead letter with its reason.
        Any other error, CancelledError included, makes it one with `agent_failed`, and so does running past `timeout_s`:
        then it is cancelled, so it must not swallow CancelledError.
        """

    def finished(self, record: "ConsumerRecord") -> None:
        """Called when everything published for a record has been acknowledged."""

    def given_up(self, record: "ConsumerRecord") -> None:
        """Called when a record was not finished and will be delivered again, to this process or to another.

        The next records of its key are not passed before that.
        """

    async def assigned(self, partitions: "frozenset[TopicPartition]") -> Iterable[Publish] | None:
        """Prepare for partitions, for example by restoring state. Their records wait until this returns, and until the
        broker has acknowledged the returned messages.

        Cancelled when the partitions are revoked meanwhile. While it raises, the agent is suspended, and this is called
        again with growing pauses.
        """
        return None

    def revoked(self) -> None:
        """Drop the state of all partitions: records in progress have been finished, or will be delivered again.

        If it raises, the agent is suspended; the next assignment still starts with `assigned`.
        """


@dataclass(frozen=True, slots=True)
class Context:
    """The parts of the process that a handler may use."""

    settings: "Settings"
    metrics: "Metrics"
    engine: "Predicts"
    agents: tuple[str, ...]
    """Names of all agents of the process, handlers included."""
    partitions: Mapping[str, int] = field(default_factory=dict)
    """Current number of partitions by topic."""
    restore: "Restore | None" = None
    """Reads a changelog; None in a rehearsal."""
    predicting: tuple[Agent, ...] = ()
    """The agents of the process that are not handlers."""
    generated_replies: Callable[[], GeneratedReplies] = GeneratedReplies
    """Returns which replies the releases let the model word now; without releases all."""
    experiment: Callable[[], RunningExperiment | None] = lambda: None
    """Returns the experiment of the newest release state."""


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


class LoadedModel(Served, Protocol):
    """A model that answers by itself, off the event loop."""

    def embed(self, texts: Sequence[str], /) -> "Vectors":
        """Return a unit vector for each text, [n, H]. Raises ValueError for a model without the pooled output."""


class Predicts(Protocol):
    """The engine as a handler sees it."""

    @property
    def model(self) -> Served:
        """The serving model. A release replaces it, so do not keep it."""

    def on_side(self, variant: Variant) -> "Predicts":
        """Return the engine for a side of an experiment: of `candidate` the candidate answers while one is loaded, and what it
        does not answer the serving model does. Without it the serving model answers everything.
        """

    async def predict(
        self,
        text: str,
        tasks: Iterable[str] | None = None,
        *,
        thresholds: Mapping[str, Any] | None = None,
        text_pair: str | None = None,
        with_vector: bool = False,
    ) -> Prediction: ...

    async def embed(self, text: str) -> "Embedded": ...

    def untimed(self) -> AbstractContextManager[None]:
        """Pause the deadline of the record within this context: for a wait that ends with the work on others."""

    async def generate(
        self,
        turns: Sequence[Utterance],
        acts: Sequence[Act],
        task: str,
        *,
        slots: Collection[str] | None = None,
        is_forbidden: Callable[[str], bool] | None = None,
        deadline: float | None = None,
    ) -> Generated: ...
