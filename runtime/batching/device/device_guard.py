"""Handles a failing device for the batcher: holds its batches, probes it, gives up. Runs on the event loop."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from ...errors import DeviceFailed
from ...observe.logs import get_logger
from ..queues.entry import Entry
from ..queues.reply_lanes import ReplyLane
from ..queues.version_queue import VersionTerms
from .breaker import Breaker, BreakerLimits

log = get_logger(__name__)


class Job:
    """A batch for a thread, or a step of a lane. `suspect`: the device failed on it before; it is split if it fails again."""

    __slots__ = ("entries", "is_candidate", "lane", "number", "suspect", "terms", "tokens")

    def __init__(
        self,
        number: int,
        entries: list[Entry],
        tokens: int,
        terms: VersionTerms,
        *,
        lane: ReplyLane | None = None,
        suspect: bool = False,
        is_candidate: bool = False,
    ) -> None:
        self.number = number
        """Increasing, so that held batches run in their original order."""
        self.entries = entries
        """Of a batch. The entries of a step stay in its lane."""
        self.tokens, self.terms = tokens, terms
        self.lane = lane
        self.suspect = suspect
        self.is_candidate = is_candidate
        """Whether a failure concerns only its version."""

    def prepare(self) -> bool:
        """Leave out what nobody waits for any more, just before it runs again; False where nothing is left to run."""
        if self.lane is not None:
            self.lane.claimed = self.lane.in_thread = self.lane.prepare()
            return self.lane.claimed
        self.entries = [entry for entry in self.entries if not entry.cancelled]
        self.tokens = sum(entry.encoded.tokens for entry in self.entries)
        return bool(self.entries)

    @property
    def model(self) -> Any:
        """The model that must run it; None: the serving one."""
        return self.lane.model if self.lane is not None else self.entries[0].model


class DeviceGuard:
    """Drives a breaker with timers of the event loop, and keeps the batches that wait for the device.

    Invariants:
    - held batches leave in the order in which they were first started;
    - while the device fails, exactly one timer is set: for the next probe, or for giving up.
    """

    def __init__(
        self,
        limits: BreakerLimits,
        *,
        probe: Callable[[], None],
        resume: Callable[[], None],
        give_up: Callable[[DeviceFailed], None],
    ) -> None:
        """`probe` has a thread run the reference sample, `resume` starts batches again, `give_up` ends all entries."""
        self._breaker = Breaker(limits)
        self._probe, self._resume, self._give_up = probe, resume, give_up
        self._held: list[Job] = []
        self._failed_probes = Counter[int]()
        """By the identity of the probed model."""
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = False
        self.on_change: Callable[[str | None], None] = lambda why: None
        """Called with the reason at the first failure, and with None when a batch has been answered again."""

    @property
    def trouble(self) -> str | None:
        """Why the device fails; None while it answers."""
        return None if self._breaker.since is None else self._breaker.why

    @property
    def allows_runs(self) -> bool:
        return self._breaker.allows_runs

    @property
    def on_trial(self) -> bool:
        """Whether only held batches run, until one of them has been answered."""
        return self._breaker.state == "trial"

    def failed_probes(self, model: Any) -> int:
        """Return how many probes of a model failed since the first failure; 0 after a batch has been answered."""
        return self._failed_probes[id(model)]

    def next_held(self) -> Job | None:
        """Remove and return the oldest held batch or step that somebody still waits for, ready to run."""
        while self._held:
            if (job := self._held.pop(0)).prepare():
                return job
        return None

    def model_to_probe(self, default: Any) -> Any:
        """Return the model of the oldest held batch, else `default`."""
        return (self._held[0].model if self._held else None) or default

    def hold(self, job: Job, fault: DeviceFailed) -> None:
        """Hold the unanswered rest of a batch that the device failed on, or a step."""
        self._held.append(Job(job.number, job.entries, job.tokens, job.terms, lane=job.lane, suspect=True))
        self._held.sort(key=lambda held: held.number)
        first = self._breaker.since is None
        self._breaker.record_failure(str(fault), time.monotonic())
        log.error("the device fails, batches wait for it", why=str(fault), batches=len(self._held))
        if first:
            self.on_change(str(fault))
        self._wake()

    def record_answer(self) -> bool:
        """Record that a batch was answered, or that no held batch is left; True when this ends the failure."""
        recovered = self._breaker.record_answer()
        if recovered:
            self._failed_probes.clear()
            self._wake()
            log.info("the device answers again")
            self.on_change(None)
        return recovered

    def record_probe(self, model: Any, fault: DeviceFailed | None) -> None:
        """Record the result of a probe of a model."""
        self._failed_probes[id(model)] += fault is not None
        self._breaker.record_probe(fault is None, str(fault), time.monotonic())
        self._wake()
        if fault is None:
            self._resume()

    def release(self) -> list[Entry]:
        """Remove and return the held entries, and make the next probe due now: another model may answer at once."""
        entries = [entry for job in self._held for entry in job.entries]
        self._held.clear()
        self._breaker.probe_soon(time.monotonic())
        self._wake()
        return entries

    def stop(self) -> None:
        """Stop setting timers. A running probe may still report."""
        self._stopped = True
        self._cancel()

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wake(self) -> None:
        self._cancel()
        at = self._breaker.wake_at()
        if at is not None and not self._stopped:
            self._timer = asyncio.get_running_loop().call_later(max(at - time.monotonic(), 0.0), self._check_breaker)

    def _check_breaker(self) -> None:
        now = time.monotonic()
        since = self._breaker.since
        if since is not None and self._breaker.is_over(now):
            message = f"the device has failed for {now - since:.0f} s: {self._breaker.why}"
            self._give_up(DeviceFailed(message, lost=True))
            return
        if self._breaker.start_probe(now):
            self._probe()
        self._wake()
