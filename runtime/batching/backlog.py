"""What waits for the device: texts by version, and replies between their steps."""

from collections import Counter
from collections.abc import Callable
from itertools import count
from typing import Any, Final

from ..errors import DeviceFailed
from ..observe.logs import get_logger
from .device.device_guard import Job
from .device.device_slots import DeviceSlots, Turn
from .queues.delivery import call_safely, separate_failed
from .queues.entry import Entry
from .queues.policy import BatchLimits, BatchPolicy
from .queues.reply_lanes import ReplyLanes
from .queues.version_queue import VersionTerms

log = get_logger(__name__)

FAILED_IN_A_ROW: Final = 20
"""Records in a row that a candidate fails on, while its reference sample passes, after which it has failed itself."""

OnFailed = Callable[[DeviceFailed], None]


class Backlog:
    """The loaded versions with their queues and lanes. Used on the batcher's event loop.

    A candidate has its own circuit breaker: it opens at the first failure that is not a record's, and after many records in a
    row that it alone fails on; it stays open.
    """

    def __init__(self, limits: BatchLimits, steps_between_passes: int, terms: VersionTerms | None = None) -> None:
        """`terms`: of versions that were not loaded; default: those of the limits."""
        self.policy, self.lanes = BatchPolicy(limits, terms), ReplyLanes()
        self._slots, self._numbers = DeviceSlots(limits.max_in_flight, steps_between_passes), count()
        self._candidates: dict[int, OnFailed] = {}
        """By the identity of the model, which the policy keeps alive."""
        self._failed_in_a_row = Counter[int]()
        """By the identity of a candidate: those of several models fail apart."""
        self._on_idle: list[Callable[[], None]] = []

    @property
    def tokens(self) -> int:
        """Tokens of the entries that are not in a batch yet, or whose replies have not begun."""
        return self.policy.queued_tokens + self.lanes.queued_tokens

    @property
    def rows(self) -> int:
        """Number of entries that are not in a batch yet, or whose replies have not begun."""
        return len(self.policy) + self.lanes.queued_rows

    @property
    def is_empty(self) -> bool:
        """Whether nothing of any version waits, and no reply is being decoded."""
        return not len(self.policy) and self.lanes.is_empty

    def watch_idle(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back whenever nothing waits or runs any more; returns what ends that."""
        self._on_idle.append(callback)
        return lambda: self._on_idle.remove(callback)

    def announce_idle(self) -> None:
        """Call back those that use an idle device."""
        for callback in self._on_idle:
            call_safely(callback)

    def queued(self, model: Any) -> tuple[int, int]:
        """Return the tokens and rows of a version."""
        (tokens, rows), (reply_tokens, reply_rows) = self.policy.queued(model), self.lanes.queued(model)
        return tokens + reply_tokens, rows + reply_rows

    def load(self, model: Any, terms: VersionTerms, on_failed: OnFailed | None = None) -> None:
        """Add a version, or change its terms. `on_failed`: it is a candidate; called once when it has failed."""
        self.policy.load(model, terms)
        self._forget_candidate(model)
        if on_failed is not None:
            self._candidates[id(model)] = on_failed

    def _forget_candidate(self, model: Any) -> OnFailed | None:
        self._failed_in_a_row.pop(id(model), None)
        return self._candidates.pop(id(model), None)

    def retire(self, model: Any) -> None:
        """Let what waits for a version leave first; it is freed when its last batch and its last reply have ended."""
        self._forget_candidate(model)
        self.policy.retire(model)
        self.free_lanes()

    def free_lanes(self) -> None:
        """Free the lanes of versions that are not loaded any more and have no reply left."""
        self.lanes.retire(self.policy.is_loaded)

    def is_candidate(self, model: Any) -> bool:
        """Return whether a version is a candidate that has not failed."""
        return id(model) in self._candidates

    def is_candidates(self, job: Job) -> bool:
        """Return whether a failure of a run concerns a candidate only: one that is loaded, or was unloaded while it ran."""
        return self.is_candidate(job.model) or (job.is_candidate and not self.policy.is_loaded(job.model))

    def fail_candidate(self, model: Any, fault: DeviceFailed) -> list[Entry]:
        """Unload a candidate that has failed, and tell its owner; returns its entries. At the next failure only these."""
        on_failed = self._forget_candidate(model)
        if on_failed is not None:
            log.error("a candidate failed, the current version answers instead", why=str(fault))
            call_safely(on_failed, fault)
        return self.unload(model)

    def separate_failed(self, entries: list[Entry]) -> tuple[list[Entry], list[Entry]]:
        """Return the answered entries of a candidate to deliver, and those to return to their sinks: those that it failed on, and
        all others if these were too many in a row.
        """
        complete, failed = separate_failed(entries)
        if complete:
            self._failed_in_a_row.pop(id(complete[0].model), None)
        if not failed or not self.is_candidate(model := failed[0].model):
            return complete, failed
        self._failed_in_a_row[id(model)] += len(failed)
        if self._failed_in_a_row[id(model)] >= FAILED_IN_A_ROW:
            failed += self.fail_candidate(model, DeviceFailed(f"it failed on {FAILED_IN_A_ROW} records in a row"))
        return complete, failed

    def unload(self, model: Any) -> list[Entry]:
        """Unload a candidate at once; returns its entries that are in no batch."""
        left = self.drain(running=True, model=model)
        self.retire(model)
        return left

    def take(self, now: float, in_flight: int) -> Job | None:
        """Return the pass or the step to start now in addition to `in_flight` others, or None."""
        for turn in self._slots.turns(in_flight):
            job = self._take_step() if turn is Turn.STEP else self._take_batch(now, in_flight)
            if job is not None:
                self._slots.record(turn)
                return job
        return None

    def _take_batch(self, now: float, in_flight: int) -> Job | None:
        batch = self.policy.take(now, in_flight)
        if batch is None:
            return None
        is_candidate = self.is_candidate(batch.entries[0].model)
        return Job(next(self._numbers), batch.entries, batch.tokens, batch.terms, is_candidate=is_candidate)

    def _take_step(self) -> Job | None:
        lane = self.lanes.claim_ready()
        if lane is None:
            return None
        lane.in_thread = True
        return Job(next(self._numbers), [], 0, lane.terms, lane=lane, is_candidate=self.is_candidate(lane.model))

    def drain(self, *, running: bool, model: Any = ...) -> list[Entry]:
        """Remove and return the entries, of a version if given; those of steps that run only if `running`."""
        return [*self.lanes.drain(running=running, model=model), *self.policy.drain(model)]
