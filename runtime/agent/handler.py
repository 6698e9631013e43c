"""The longer form of an agent, and what it may know of the process that it runs in."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from ...schemas.manifest import ModelManifest
from ..wire.message import Publish
from .agent import Agent
from .prediction import Prediction

if TYPE_CHECKING:
    from aiokafka.structs import ConsumerRecord, TopicPartition

    from ..kafka.changelog import Restored
    from ..observe.metrics import Metrics
    from ..settings.agent_options import Options
    from ..settings.settings import Settings


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

        Cancelled when they are taken away meanwhile. While it raises, the agent is suspended, and it is called again with
        growing pauses.
        """
        return None

    def revoked(self) -> None:
        """Forget what belongs to partitions: everything under way has been finished, or will be delivered again.

        When it raises, the agent is suspended; `assigned` begins the next assignment all the same.
        """


@dataclass(frozen=True, slots=True)
class Context:
    """What a handler may know of the process that it runs in."""

    settings: "Settings"
    metrics: "Metrics"
    engine: "Predicts"
    agents: tuple[str, ...]
    """Names of everybody who runs here, handlers among them."""
    partitions: Mapping[str, int] = field(default_factory=dict)
    """How many partitions each topic has now."""
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
