"""Follows the candidate of a model's release states: loads it beside the current version, and drops it again."""

import asyncio
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from ...schemas.release import Candidate, Release, ReleaseState
from ...schemas.serving_event import RejectReason, ServingEventKind
from ..errors import DeviceFailed
from ..experiments.unit_assignment import Assignment, RunningExperiment
from ..model.model import Model
from ..observe.logs import get_logger
from ..observe.metrics import Metrics
from ..output.serving_events import ServingEvents
from .failed_candidates import FailedCandidates, key_of
from .slot import release_memory
from .staging import Refusal, Stages, make_refusal

log = get_logger(__name__)

FIRST_WAIT_S: Final = 1.0
LONGEST_WAIT_S: Final = 60.0


class CandidateSlot(Protocol):
    """Holds the loaded versions of one model."""

    @property
    def model(self) -> Model: ...
    def put_candidate(
        self, model: Model, assignment: Assignment, on_failed: Callable[[DeviceFailed], None]
    ) -> None: ...
    def put_shadow(self, model: Model, share: float, on_failed: Callable[[DeviceFailed], None]) -> None: ...
    def drop_shadow(self) -> None: ...
    def assign(self, assignment: Assignment) -> None: ...
    def drop_candidate(self) -> None: ...


class Wanted(NamedTuple):
    """The candidate of a release state. Without an assignment it is a shadow, which is only compared."""

    key: tuple[object, ...]
    """Other for another version, and for another experiment with the same one."""
    candidate: Candidate
    assignment: Assignment | None
    state: ReleaseState


class CandidateWatcher:
    """Owns the candidate that is loaded beside the current version of one model.

    Invariants:
    - whatever becomes of a candidate, the current version serves;
    - a changed share is in force at once and loads nothing, and so is the end of a candidate;
    - it is loaded only while the current version of its own state serves, not beside one that the process fell back to;
    - a refused candidate causes an event for each reason, one that fails causes one event; refused for good or failed, it is
      the end of its experiment, and is not loaded for that again.
    """

    def __init__(
        self,
        name: str,
        loader: Stages,
        slot: CandidateSlot,
        events: ServingEvents,
        metrics: Metrics,
        failed: FailedCandidates,
        *,
        first_wait_s: float = FIRST_WAIT_S,
    ) -> None:
        """`first_wait_s`: pause before the second attempt to load a candidate, doubled each time up to a minute."""
        self._name, self._loader, self._slot = name, loader, slot
        self._events, self._metrics, self._failed = events, metrics, failed
        self._first_wait_s = first_wait_s
        self._wanted: Wanted | None = None
        self._loaded: tuple[Wanted, Model] | None = None
        self._ended: tuple[object, ...] | None = None
        """Key of the candidate that was refused for good or has failed."""
        self._serves: Release | None = None
        self._changed = asyncio.Event()

    @property
    def experiment(self) -> RunningExperiment | None:
        """The experiment of the newest state; None without one."""
        wanted = self._wanted
        if wanted is None or wanted.assignment is None:
            return None
        return RunningExperiment(wanted.assignment, self._loaded is not None)

    def follow(self, state: ReleaseState) -> None:
        """Follow a newer state: change the share or drop the candidate at once. A new one is loaded by `run`.

        A candidate that has become current stays until `take`.
        """
        before, self._wanted = self._wanted, _find_wanted(state)
        wanted = self._wanted
        self._count_end(before, state)
        if self._loaded is not None and wanted is not None and wanted.key == self._loaded[0].key:
            if wanted.assignment is not None:
                self._slot.assign(wanted.assignment)
        elif self._loaded is not None and not self._is_loaded(state.current):
            self._drop(self._loaded[0].candidate)
        self._changed.set()

    def _drop(self, candidate: Candidate) -> None:
        log.info("candidate dropped", model=self._name, version=candidate.version)
        self._loaded = None
        if candidate.shadow is not None:
            self._slot.drop_shadow()
        else:
            self._slot.drop_candidate()

    def _count_end(self, before: Wanted | None, state: ReleaseState) -> None:
        """Count the end of an experiment that this process followed."""
        step = state.history[-1].experiment if state.history else None
        if before is not None and self._wanted is None and step in ("stopped", "completed"):
            self._metrics.versions.count_candidate(step)

    def allow(self, serves: Release | None) -> None:
        """Allow a candidate beside the release that serves now; one that is loaded beside another is dropped."""
        self._serves = serves
        wanted = self._wanted
        if wanted is not None and serves != wanted.state.current:
            if self._loaded is not None and self._loaded[0].key == wanted.key:
                self._drop(wanted.candidate)
            if self._loaded is None:
                log.warning(
                    "the candidate is not loaded before the current version of its release state serves",
                    model=self._name,
                    version=wanted.candidate.version,
                    current=wanted.state.current.version,
                )
        self._changed.set()

    def take(self, release: Release) -> Model | None:
        """Return the loaded candidate if it is this release, to be put in the current one's place; None otherwise."""
        if self._loaded is None or not self._is_loaded(release):
            return None
        (_, model), self._loaded = self._loaded, None
        return model

    def _is_loaded(self, release: Release) -> bool:
        if self._loaded is None:
            return False
        candidate = self._loaded[0].candidate
        return (candidate.version, candidate.digest) == (release.version, release.digest)

    async def run(self) -> None:
        """Load candidates until cancelled. What is being loaded for a candidate that is not wanted any more is given up."""
        loading: asyncio.Task[None] | None = None
        key: tuple[object, ...] | None = None
        try:
            while True:
                await self._changed.wait()
                self._changed.clear()
                due = self._find_due()
                if loading is not None and (due is None or due.key != key):
                    await _cancel(loading)
                    loading = None
                if due is not None and (loading is None or loading.done()):
                    key, loading = due.key, asyncio.create_task(self._load(due))
        finally:
            if loading is not None:
                await _cancel(loading)

    def _find_due(self) -> Wanted | None:
        """Return the candidate to load now."""
        wanted = self._wanted
        if wanted is None or self._loaded is not None or wanted.key == self._ended or self._serves is None:
            return None
        return wanted if self._serves == wanted.state.current else None

    async def _load(self, wanted: Wanted) -> None:
        """Load a candidate, with attempts as for a release."""
        candidate, reported, tried, wait_s = wanted.candidate, None, 0, self._first_wait_s
        while True:
            refusal = await self._try(wanted)
            if refusal is None:
                return
            tried += 1
            log.error(
                "candidate refused",
                model=self._name,
                version=candidate.version,
                reason=refusal.reason,
                why=refusal.message,
            )
            if refusal.reason != reported:
                reported = refusal.reason
                self._metrics.swap("rejected")
                self._metrics.versions.count_candidate("rejected")
                self._emit(ServingEventKind.CANDIDATE_REJECTED, wanted, refusal.message, refusal.reason)
            if tried >= refusal.tries:
                self._ended = wanted.key
                self._failed.add(candidate, f"the candidate was refused ({refusal.reason}): {refusal.message}")
                return
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)

    async def _try(self, wanted: Wanted) -> Refusal | None:
        candidate = wanted.candidate
        if candidate.share is not None and wanted.assignment is None:
            return Refusal(RejectReason.UNSUPPORTED, "a candidate with a share and without an experiment has no unit")
        try:
            release = Release(version=candidate.version, digest=candidate.digest)
            model = await self._loader.stage(self._name, release, beside=True)
            self._put(wanted, model)
        except Exception as error:  # noqa: BLE001  (`make_refusal` logs unexpected errors)
            return make_refusal(error)
        del model
        await release_memory()
        return None

    def _put(self, wanted: Wanted, model: Model) -> None:
        newest = self._wanted
        if newest is None or newest.key != wanted.key:
            return
        if newest.candidate.shadow is not None:
            self._slot.put_shadow(model, newest.candidate.shadow, lambda fault: self._fail(newest, fault))
        else:
            assert newest.assignment is not None
            self._slot.put_candidate(model, newest.assignment, lambda fault: self._fail(newest, fault))
        self._loaded = newest, model
        self._metrics.versions.count_candidate("loaded")
        share = newest.candidate.share or newest.candidate.shadow
        log.info("candidate loaded", model=self._name, version=newest.candidate.version, share=share)

    def _fail(self, wanted: Wanted, fault: DeviceFailed) -> None:
        """The candidate has failed, and the slot has dropped it."""
        self._loaded, self._ended = None, wanted.key
        self._metrics.versions.count_candidate("failed")
        log.error("candidate failed", model=self._name, version=wanted.candidate.version, why=str(fault))
        self._emit(ServingEventKind.CANDIDATE_FAILED, wanted, str(fault))
        self._failed.add(wanted.candidate, f"the candidate failed: {fault}")

    def _emit(self, kind: ServingEventKind, wanted: Wanted, message: str, reason: RejectReason | None = None) -> None:
        self._events.emit(
            kind,
            name=self._name,
            version=wanted.candidate.version,
            previous=self._slot.model.manifest.version,
            generation=wanted.state.generation,
            reason=reason,
            message=message[:300],
        )


def _find_wanted(state: ReleaseState) -> Wanted | None:
    candidate = state.candidate
    if candidate is None:
        return None
    experiment, assignment = candidate.experiment, None
    if experiment is not None:
        assignment = Assignment(experiment.id, experiment.unit, experiment.share_now)
    return Wanted(key_of(candidate), candidate, assignment, state)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
