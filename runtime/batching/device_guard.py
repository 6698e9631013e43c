"""What the batcher does about a device that fails: holds its batches, probes, gives up. Lives on the event loop."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

from ..errors import DeviceFailed
from ..observe.logs import get_logger
from .breaker import Breaker, BreakerLimits
from .policy import Entry

log = get_logger(__name__)


class Job:
    """A batch for a thread. `suspect`: it failed by the device before, and is to be split if it fails again."""

    __slots__ = ("entries", "number", "suspect", "tokens")

    def __init__(self, number: int, entries: list[Entry], tokens: int, *, suspect: bool = False) -> None:
        self.number = number
        """Counts up, so that batches that were held run in their old order."""
        self.entries = entries
        self.tokens = tokens
        self.suspect = suspect


class DeviceGuard:
    """Drives a breaker by the event loop's timers, and keeps the batches that wait for the device.

    Invariants:
    - what is held leaves in the order in which it was started first;
    - while the device fails, exactly one timer is set: for the next probe, or for the end.
    """

    def __init__(
        self,
        limits: BreakerLimits,
        *,
        probe: Callable[[], None],
        go_on: Callable[[], None],
        give_up: Callable[[DeviceFailed], None],
    ) -> None:
        """`probe` has a thread run the reference sample, `go_on` starts batches again, `give_up` answers everybody."""
        self._breaker = Breaker(limits)
        self._probe, self._go_on, self._give_up = probe, go_on, give_up
        self._held: list[Job] = []
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = False
        self.on_change: Callable[[str | None], None] = lambda why: None
        """Called with the reason when the device fails first, and with None once a batch has been answered again."""

    @property
    def trouble(self) -> str | None:
        """Why nothing new is to be taken in; None while the device answers."""
        return None if self._breaker.since is None else self._breaker.why

    @property
    def lets_run(self) -> bool:
        return self._breaker.lets_run

    @property
    def on_trial(self) -> bool:
        """What was held runs, and nothing else until one of it has been answered."""
        return self._breaker.state == "trial"

    @property
    def failed_probes(self) -> int:
        """Since the device failed first; 0 once a batch has been answered."""
        return self._breaker.failed_probes

    def next_held(self) -> Job | None:
        """Return the oldest batch that waits for the device."""
        return self._held.pop(0) if self._held else None

    def model_to_probe(self, default: Any) -> Any:
        """Return the model of the oldest batch that waits: its answers are what is needed."""
        return (self._held[0].entries[0].model if self._held else None) or default

    def hold(self, job: Job, fault: DeviceFailed) -> None:
        """Keep what is left of a batch that the device failed on."""
        self._held.append(Job(job.number, job.entries, job.tokens, suspect=True))
        self._held.sort(key=lambda held: held.number)
        first = self._breaker.since is None
        self._breaker.fail(str(fault), time.monotonic())
        log.error("the device fails, batches wait for it", why=str(fault), batches=len(self._held))
        if first:
            self.on_change(str(fault))
        self._wake()

    def answered(self) -> bool:
        """Note that a batch was answered, or that none is left to try; True when the device had failed until now."""
        recovered = self._breaker.answer()
        if recovered:
            self._wake()
            log.info("the device answers again")
            self.on_change(None)
        return recovered

    def probed(self, fault: DeviceFailed | None) -> None:
        """Note how a probe ended."""
        self._breaker.probed(fault is None, str(fault), time.monotonic())
        self._wake()
        if fault is None:
            self._go_on()

    def release(self) -> list[Entry]:
        """Let go of what is held, and return it; what is probed next may answer at once."""
        entries = [entry for job in self._held for entry in job.entries]
        self._held.clear()
        self._breaker.probe_soon(time.monotonic())
        self._wake()
        return entries

    def stop(self) -> None:
        """Set no timer any more: a probe may still come back."""
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
            self._timer = asyncio.get_running_loop().call_later(max(at - time.monotonic(), 0.0), self._look)

    def _look(self) -> None:
        now = time.monotonic()
        since = self._breaker.since
        if since is not None and self._breaker.is_over(now):
            message = f"the device has failed for {now - since:.0f} s: {self._breaker.why}"
            self._give_up(DeviceFailed(message, lost=True))
            return
        if self._breaker.probe(now):
            self._probe()
        self._wake()
