"""Follows the releases of one model and swaps in each new one. Reads without a group, from the beginning."""

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Protocol

from aiokafka.errors import KafkaError

from ...schemas.release import GeneratedReplies, Release, ReleaseState, is_switch_only, keeps_current
from ...schemas.serving_event import ServingEventKind
from ..errors import SetupError
from ..experiments.unit_assignment import RunningExperiment
from ..kafka.groupless_reader import open_reader
from ..model.model import Model
from ..observe.logs import get_logger
from ..observe.metrics import Metrics
from ..output.serving_events import ServingEvents
from ..settings.settings import Settings
from .candidates import FIRST_WAIT_S, LONGEST_WAIT_S, CandidateWatcher
from .first_model import StartState
from .slot import release_memory
from .staging import Refusal, Stages, make_refusal
from .states import ReleaseLog, ReleaseRecord, follow_records, read_to_end

log = get_logger(__name__)

_AFTER_ERROR_S: Final = 2.0


class Slot(Protocol):
    """Holds the serving model."""

    @property
    def model(self) -> Model: ...
    def put(self, model: Model) -> None: ...


@dataclass
class _Trial:
    """A release being loaded, with its refusals so far."""

    state: ReleaseState
    wait_s: float
    refused: Refusal | None = None
    tried: int = 0
    began: float = field(default_factory=time.monotonic)


class ReleaseWatcher:
    """Reads the topic of releases and swaps the model.

    Invariants:
    - `ReleaseLog` decides which state is valid, so that this process and later ones agree; a stale state changes nothing
      and is counted;
    - of several releases that arrive during a swap only the newest is loaded;
    - a refused version causes an event and a count, and the old model keeps serving. It is tried again until a newer state
      arrives if the environment is the cause, and a few times if this machine may be; the last refusal of these causes a
      second event;
    - a switch of generated replies holds at once and causes an event;
    - a candidate that becomes current is not loaded again.
    """

    def __init__(
        self,
        settings: Settings,
        loader: Stages,
        slot: Slot,
        events: ServingEvents,
        metrics: Metrics,
        candidates: CandidateWatcher,
        *,
        start: StartState | None = None,
        first_wait_s: float = FIRST_WAIT_S,
    ) -> None:
        """`start`: the state at the start of the process. `first_wait_s`: pause before the second attempt, doubled each time
        up to a minute.
        """
        self._start = start or StartState()
        self._settings = settings
        self._name = settings.model.name or ""
        self._loader = loader
        self._slot = slot
        self._events = events
        self._metrics = metrics
        self._candidates = candidates
        self._state = self._start.state
        self._serves = self._start.serves
        self._first_wait_s = first_wait_s
        self._newest: ReleaseState | None = None
        self._arrived = asyncio.Event()
        if self._state is not None:  # conversations ask about its experiment from their first turn on
            candidates.follow(self._state)

    @property
    def state(self) -> ReleaseState | None:
        """The newest valid state read so far."""
        return self._state

    @property
    def serves(self) -> Release | None:
        """The serving release; None when the configured folder serves."""
        return self._serves

    @serves.setter
    def serves(self, release: Release | None) -> None:
        self._serves = release
        self._candidates.allow(release)

    @property
    def generated_replies(self) -> GeneratedReplies:
        """The replies of conversations that may be generated now."""
        return GeneratedReplies() if self._state is None else self._state.generated_replies

    @property
    def experiment(self) -> RunningExperiment | None:
        """The experiment of the newest state."""
        return self._candidates.experiment

    async def follow(self) -> None:
        """Read releases until cancelled; retries while the broker is unavailable."""
        topic = f"{self._settings.prefix}.models"
        while True:
            try:
                async with open_reader(self._settings.kafka, [topic], from_beginning=True) as consumer:
                    known = ReleaseLog()
                    await read_to_end(consumer, known)
                    self.apply_initial(known)
                    async for record in follow_records(consumer, known):
                        self.handle_record(record)
            except (KafkaError, OSError, SetupError) as error:
                log.warning("releases cannot be read", why=type(error).__name__)
            except Exception:
                log.exception("releases cannot be read")
            await asyncio.sleep(_AFTER_ERROR_S)

    def apply_initial(self, known: ReleaseLog) -> None:
        """Accept the valid state after the topic was read from its beginning; earlier stale states are not counted."""
        state = known.states.get(self._name)
        if state is not None and state != self._state:
            self._accept(state)

    def handle_record(self, record: ReleaseRecord) -> None:
        """Handle a new record."""
        if record.name != self._name:
            return
        if record.kind == "stale":
            self._metrics.swap("stale")
            if record.state != self._state:
                # The losing writer publishes the winner's state again. If it dies before, compaction keeps the stale one.
                log.warning(
                    "a release came too late and does not count; unless its command has repeated the one before, "
                    "release that once more with `murmura models release NAME VERSION --again`",
                    model=self._name,
                    generation=record.state.generation if record.state else None,
                )
        elif record.kind == "ended":
            log.warning("the model's releases have been ended; what serves goes on", model=self._name)
        elif record.state is not None and record.kind == "new":
            self._accept(record.state)

    def _accept(self, state: ReleaseState) -> None:
        before, self._state = self._state, state
        if state.generated_replies != (before.generated_replies if before else GeneratedReplies()):
            self._announce_switch(state)
        if before is not None and is_switch_only(before, state):
            return
        self._candidates.follow(state)
        if before is not None and keeps_current(before, state):
            return
        self._newest = state
        self._arrived.set()

    def _announce_switch(self, state: ReleaseState) -> None:
        steps = (step for step in reversed(state.history) if step.generated_replies == state.generated_replies)
        step = next(steps, None)
        by = f", by {step.by}: {step.why}" if step else ""
        log.warning("generated replies switched", model=self._name, replies=str(state.generated_replies))
        self._events.emit(
            ServingEventKind.REPLIES_SWITCHED,
            name=self._name,
            version=state.current.version,
            generation=state.generation,
            message=f"generated replies are {state.generated_replies}{by}",
        )

    async def run_swaps(self) -> None:
        """Load the newest release whenever one has arrived, with retries, until cancelled."""
        start, trial = self._start, None
        if start.state is not None and start.refused is not None:
            trial = self._refuse(_Trial(start.state, self._first_wait_s), start.refused)
        while True:
            self._candidates.allow(self.serves)
            state = await self._next(trial.wait_s if trial else None)
            if state is not None:
                trial = _Trial(state, self._first_wait_s)
            if trial is not None:
                trial = await self._consider(trial)

    async def _next(self, wait_s: float | None) -> ReleaseState | None:
        """Return the newest arrived state; None when none arrives within `wait_s`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._arrived.wait()
        self._arrived.clear()
        state, self._newest = self._newest, None
        return state

    async def _consider(self, trial: _Trial) -> _Trial | None:
        """Stage a release and swap; returns the trial if it must be repeated."""
        current = trial.state.current
        if current == self.serves:
            return None
        try:
            release = Release(version=current.version, digest=current.digest)
            model = self._candidates.take(release) or await self._loader.stage(self._name, release)
            before = self._slot.model.manifest.version
            self._slot.put(model)
        except Exception as error:  # noqa: BLE001  (`make_refusal` logs unexpected errors)
            return self._refuse(trial, make_refusal(error))
        self.serves = current
        self._metrics.swap("swapped")
        log.info("model swapped", model=self._name, version=current.version, previous=before)
        self._emit(ServingEventKind.MODEL_SWAPPED, trial, before)
        del model
        await release_memory()
        return None

    def _refuse(self, trial: _Trial, refusal: Refusal) -> _Trial | None:
        """Report the first refusal, and the last one after others. Returns the trial if it must be repeated."""
        is_repeated = trial.refused is not None
        if is_repeated:
            trial.wait_s = min(2 * trial.wait_s, LONGEST_WAIT_S)
        trial.refused = refusal
        trial.tried += 1
        ends = trial.tried >= refusal.tries
        version = trial.state.current.version
        log.error("release refused", model=self._name, version=version, reason=refusal.reason, why=refusal.message)
        if ends or not is_repeated:
            self._metrics.swap("rejected")
            before = self._slot.model.manifest.version
            self._emit(ServingEventKind.MODEL_REJECTED, trial, before, refusal)
        return None if ends else trial

    def _emit(self, kind: ServingEventKind, trial: _Trial, before: int, refusal: Refusal | None = None) -> None:
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
