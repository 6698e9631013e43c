"""The rule by which a device that fails is left alone, tried again and at last given up. Pure: it is given the time."""

from dataclasses import dataclass
from typing import Final, Literal

LONGEST_PAUSE_S: Final = 10.0
State = Literal["closed", "open", "probing", "trial"]


@dataclass(frozen=True, slots=True)
class BreakerLimits:
    """How long a device that fails is waited for."""

    first_pause_s: float = 0.5
    """Before the first probe; doubled after each that fails."""
    longest_pause_s: float = LONGEST_PAUSE_S
    give_up_s: float = 60.0
    """With no batch answered for so long after the first failure, the device is given up."""

    def __post_init__(self) -> None:
        if not 0 < self.first_pause_s <= self.longest_pause_s or self.give_up_s <= 0:
            raise ValueError(f"pauses must be positive and grow, found {self}")


class Breaker:
    """Says whether batches may run, and when to probe.

    closed: batches run. open: nothing runs until `wake_at`. probing: one probe runs. trial: the probe has passed, and
    the batches that were held run; the first that is answered closes the breaker, one that fails opens it again.

    Invariants:
    - pauses grow from the first to the longest until a batch has been answered;
    - a device that answers probes and no batch is given up as one that answers nothing.
    """

    def __init__(self, limits: BreakerLimits) -> None:
        self._limits = limits
        self._pause_s = limits.first_pause_s
        self._probe_at = 0.0
        self.state: State = "closed"
        self.since: float | None = None
        """When the device failed first; None while closed."""
        self.why = ""
        """What was wrong last; for people."""
        self.failed_probes = 0
        """Since the device failed first."""

    @property
    def lets_run(self) -> bool:
        """Whether a batch may be started."""
        return self.state in {"closed", "trial"}

    def fail(self, why: str, now: float) -> None:
        """Note that a batch has failed by the device's fault. The state is then open, or stays probing."""
        self.why = why
        if self.since is None:
            self.since = now
        if self.lets_run:
            self._open(now)

    def answer(self) -> bool:
        """Note that a batch was answered; True when that closes the breaker.

        Only in a trial: while it is open, a batch that was started before may still come back well.
        """
        if self.state != "trial":
            return False
        self.state, self.since, self.why = "closed", None, ""
        self._pause_s, self.failed_probes = self._limits.first_pause_s, 0
        return True

    def probe(self, now: float) -> bool:
        """Return whether a probe is to be started now; the state is then probing."""
        if self.state != "open" or now < self._probe_at:
            return False
        self.state = "probing"
        return True

    def probe_soon(self, now: float) -> None:
        """Let the next probe come now: what is probed has been exchanged."""
        if self.state == "open":
            self._probe_at = now

    def probed(self, passed: bool, why: str, now: float) -> None:
        """Note how a probe ended: a trial begins, or the next pause."""
        if self.state != "probing":
            return
        if passed:
            self.state = "trial"
            return
        self.why = why
        self.failed_probes += 1
        self._open(now)

    def is_over(self, now: float) -> bool:
        """Return whether the device is to be given up."""
        return self.since is not None and now - self.since >= self._limits.give_up_s

    def wake_at(self) -> float | None:
        """Return when `probe` or `is_over` is to be asked next; None while closed."""
        if self.since is None:
            return None
        end = self.since + self._limits.give_up_s
        return min(self._probe_at, end) if self.state == "open" else end

    def _open(self, now: float) -> None:
        self.state = "open"
        self._probe_at = now + self._pause_s
        self._pause_s = min(2 * self._pause_s, self._limits.longest_pause_s)
