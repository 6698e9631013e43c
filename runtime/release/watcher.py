"""Follows the releases of one model and gives each new one to the slot. Reads without a group, from the beginning."""

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Protocol

from aiokafka.errors import KafkaError

from ...schemas.release import Candidate, Release, ReleaseState
from ...schemas.serving_event import RejectReason, ServingEventKind
from ..errors import SetupError
from ..kafka.groupless_reader import open_reader
from ..model.model import Model
from ..observe.logs import get_logger
from ..observe.metrics import Metrics
from ..output.serving_events import ServingEvents
from ..settings.settings import Settings
from .first_model import Begun
from .slot import give_memory_back
from .staging import Refusal, Stages, refusal_of
from .states import Heard, ReleaseLog, hear_on, hear_to_end

log = get_logger(__name__)

_AFTER_ERROR_S: Final = 2.0
_FIRST_WAIT_S: Final = 1.0
_LONGEST_WAIT_S: Final = 60.0


class Slot(Protocol):
    """Where a model is put to serve."""

    @property
    def model(self) -> Model: ...
    def put(self, model: Model) -> None: ...


@dataclass
class _Trial:
    """A release under consideration, and what has been said of it."""

    state: ReleaseState
    wait_s: float
    refused: Refusal | None = None
    tried: int = 0
    began: float = field(default_factory=time.monotonic)


class ReleaseWatcher:
    """Reads the topic of releases and swaps.

    Invariants:
    - what counts is what `ReleaseLog` says, so this process and those that start later agree; a state that does not
      count changes nothing and is counted as stale;
    - of several releases that arrive during a swap only the newest is considered;
    - a version that is refused leaves an event and a count behind, and the old model in its place. It is tried again
      until a newer state arrives while the reason is the surroundings', and a few times where it may be this machine's;
      the last of these leaves a second event;
    - a state with a candidate, which nothing here can serve beside the current version, leaves an event and a count.
    """

    def __init__(
        self,
        settings: Settings,
        loader: Stages,
        slot: Slot,
        events: ServingEvents,
        metrics: Metrics,
        *,
        begun: Begun | None = None,
        first_wait_s: float = _FIRST_WAIT_S,
    ) -> None:
        """`begun`: what the process began with. `first_wait_s`: before a second try, doubled each time up to a minute."""
        self._begun = begun or Begun()
        self._settings = settings
        self._name = settings.model.name or ""
        self._loader = loader
        self._slot = slot
        self._events = events
        self._metrics = metrics
        self._heard = self._begun.state
        self.serves = self._begun.serves
        """The release whose version answers; None when it is the settings' folder."""
        self._first_wait_s = first_wait_s
        self._newest: ReleaseState | None = None
        self._arrived = asyncio.Event()

    @property
    def state(self) -> ReleaseState | None:
        """What is released, as far as it has been read."""
        return self._heard

    async def follow(self) -> None:
        """Read releases for ever; a broker that is away is waited for."""
        topic = f"{self._settings.prefix}.models"
        while True:
            try:
                async with open_reader(self._settings.kafka, [topic], from_beginning=True) as consumer:
                    known = ReleaseLog()
                    await hear_to_end(consumer, known)
                    self.caught_up(known)
                    async for heard in hear_on(consumer, known):
                        self.hear(heard)
            except (KafkaError, OSError, SetupError) as error:
                log.warning("releases cannot be read", why=type(error).__name__)
            except Exception:
                log.exception("releases cannot be read")
            await asyncio.sleep(_AFTER_ERROR_S)

    def caught_up(self, known: ReleaseLog) -> None:
        """Take what counts after the topic was read from its beginning; of what came before nothing is counted."""
        state = known.states.get(self._name)
        if state is not None and state != self._heard:
            self._take(state)

    def hear(self, heard: Heard) -> None:
        """Take a record that has come since."""
        if heard.name != self._name:
            return
        if heard.kind == "stale":
            self._metrics.swap("stale")
            if heard.state != self._heard:
                # Who lost repeats the winner's state; where it died before that, compaction would keep the loser.
                log.warning(
                    "a release came too late and does not count; unless its command has repeated the one before, "
                    "release that once more with `murmura models release NAME VERSION --again`",
                    model=self._name,
                    generation=heard.state.generation if heard.state else None,
                )
        elif heard.kind == "ended":
            log.warning("the model's releases have been ended; what serves goes on", model=self._name)
        elif heard.state is not None and heard.kind == "new":
            self._take(heard.state)

    def _take(self, state: ReleaseState) -> None:
        self._heard = self._newest = state
        self._arrived.set()
        if state.candidate is not None:
            self._refuse_candidate(state, state.candidate)

    def _refuse_candidate(self, state: ReleaseState, candidate: Candidate) -> None:
        """Tell that a candidate is not served: this version of murmura answers with the current one alone."""
        message = "a candidate beside the current version cannot be served by this version of murmura"
        log.error("candidate refused", model=self._name, version=candidate.version, why=message)
        self._metrics.swap("rejected")
        self._events.emit(
            ServingEventKind.MODEL_REJECTED,
            name=self._name,
            version=candidate.version,
            previous=self._slot.model.manifest.version,
            generation=state.generation,
            reason=RejectReason.UNSUPPORTED,
            message=message,
        )

    async def swap_for_ever(self) -> None:
        """Consider the newest release whenever one has arrived, and again while that can help."""
        begun, trial = self._begun, None
        if begun.state is not None and begun.state.candidate is not None:
            self._refuse_candidate(begun.state, begun.state.candidate)
        if begun.state is not None and begun.refused is not None:
            trial = self._refuse(_Trial(begun.state, self._first_wait_s), begun.refused)
        while True:
            state = await self._next(trial.wait_s if trial else None)
            if state is not None:
                trial = _Trial(state, self._first_wait_s)
            if trial is not None:
                trial = await self._consider(trial)

    async def _next(self, wait_s: float | None) -> ReleaseState | None:
        """Return the newest state that has arrived, None when none does within `wait_s`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._arrived.wait()
        self._arrived.clear()
        state, self._newest = self._newest, None
        return state

    async def _consider(self, trial: _Trial) -> _Trial | None:
        """Stage a release and swap; returns the trial when it is worth another."""
        current = trial.state.current
        if current == self.serves:
            return None
        try:
            model = await self._loader.stage(self._name, Release(version=current.version, digest=current.digest))
            before = self._slot.model.manifest.version
            self._slot.put(model)
        except Exception as error:  # noqa: BLE001  (`refusal_of` logs what is nobody's verdict)
            return self._refuse(trial, refusal_of(error))
        self.serves = current
        self._metrics.swap("swapped")
        log.info("model swapped", model=self._name, version=current.version, previous=before)
        self._tell(ServingEventKind.MODEL_SWAPPED, trial, before)
        del model
        await give_memory_back()
        return None

    def _refuse(self, trial: _Trial, refusal: Refusal) -> _Trial | None:
        """Tell of the first refusal, and of the last one after others. Returns the trial when it is worth another."""
        again = trial.refused is not None
        if again:
            trial.wait_s = min(2 * trial.wait_s, _LONGEST_WAIT_S)
        trial.refused = refusal
        trial.tried += 1
        ends = trial.tried >= refusal.tries
        version = trial.state.current.version
        log.error("release refused", model=self._name, version=version, reason=refusal.reason, why=refusal.message)
        if ends or not again:
            self._metrics.swap("rejected")
            before = self._slot.model.manifest.version
            self._tell(ServingEventKind.MODEL_REJECTED, trial, before, refusal)
        return None if ends else trial

    def _tell(self, kind: ServingEventKind, trial: _Trial, before: int, refusal: Refusal | None = None) -> None:
        self._events.emit(
            kind,
            name=self._name,
            version=trial.state.current.version,
            previous=before,
            generation=trial.state.generation,
            reason=refusal.reason if refusal else None,
            message=refusal.message[:300] if refusal else None,
            seconds=round(time.monotonic() - trial.began, 3),
        )
