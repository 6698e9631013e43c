"""A circuit breaker: when a failing device is paused, probed and finally given up. Pure: the caller passes the time."""

from dataclasses import dataclass
from typing import Final, Literal

LONGEST_PAUSE_S: Final = 10.0
State = Literal["closed", "open", "probing", "trial"]


@dataclass(frozen=True, slots=True)
class BreakerLimits:
    """The pauses and the time limit for a failing device."""

    first_pause_s: float = 0.5
    """Pause before the first probe; doubled after each failed probe."""
    longest_pause_s: float = LONGEST_PAUSE_S
    give_up_s: float = 60.0
    """The device is given up when no batch was answered for this time after the first failure."""

    def __post_init__(self) -> None:
        if not 0 < self.first_pause_s <= self.longest_pause_s or self.give_up_s <= 0:
            raise ValueError(f"pauses must be positive and grow, found {self}")


class Breaker:
    """Decides whether batches may run, and when to probe.

    closed: batches run. open: nothing runs until `wake_at`. probing: one probe runs. trial: the probe has passed and held
    batches run; the first answered one closes the breaker, a failed one opens it again.

    Invariants:
    - pauses grow from the first to the longest until a batch has been answered;
    - a device that answers probes but no batch is given up like one that answers nothing.
    """

    def __init__(self, limits: BreakerLimits) -> None:
        self._limits = limits
        self._pause_s = limits.first_pause_s
        self._probe_at = 0.0
        self.state: State = "closed"
        self.since: float | None = None
        """Time of the first failure; None while closed."""
        self.why = ""
        """The last failure, for people."""

    @property
    def allows_runs(self) -> bool:
        """Whether a batch may be started."""
        return self.state in {"closed", "trial"}

    def record_failure(self, why: str, now: float) -> None:
        """Record that a batch failed because of the device. The state becomes open, or stays probing."""
        self.why = why
        if self.since is None:
            self.since = now
        if self.allows_runs:
            self._open(now)

    def record_answer(self) -> bool:
        """Record that a batch was answered; True when that closes the breaker.

        It does so in a trial only: while the breaker is open, a batch that was started before may still succeed.
        """
        if self.state != "trial":
            return False
        self.state, self.since, self.why = "closed", None, ""
        self._pause_s = self._limits.first_pause_s
        return True

    def start_probe(self, now: float) -> bool:
        """Return whether to start a probe now; then the state becomes probing."""
        if self.state != "open" or now < self._probe_at:
            return False
        self.state = "probing"
        return True

    def probe_soon(self, now: float) -> None:
        """Make the next probe due now, because the model to probe has changed."""
        if self.state == "open":
            self._probe_at = now

    def record_probe(self, passed: bool, why: str, now: float) -> None:
        """Record the result of a probe: a trial or the next pause starts."""
        if self.state != "probing":
            return
        if passed:
            self.state = "trial"
            return
        self.why = why
        self._open(now)

    def is_over(self, now: float) -> bool:
        """Return whether to give the device up."""
        return self.since is not None and now - self.since >= self._limits.give_up_s

    def wake_at(self) -> float | None:
        """Return when to call `start_probe` or `is_over` next; None while closed."""
        if self.since is None:
            return None
        end = self.since + self._limits.give_up_s
        return min(self._probe_at, end) if self.state == "open" else end

    def _open(self, now: float) -> None:
        self.state = "open"
        self._probe_at = now + self._pause_s
        self._pause_s = min(2 * self._pause_s, self._limits.longest_pause_s)
