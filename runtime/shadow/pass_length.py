"""How long a shadow's passes may be by their calibration, so that they are as short as wanted by the clock. Pure."""

from typing import Final

WORTH_A_LINE: Final = 2.0
_FORGET: Final = 0.2
"""Part of the distance to a faster pass by which the estimate comes back after each."""
PROBE_S: Final = 1.0
"""Pause between passes of one row that take longer than wanted: they find out whether that is still so."""


class PassLength:
    """How many times their calibrated time passes take. A slower pass counts at once, faster ones little by little."""

    def __init__(self, most_s: float) -> None:
        """`most_s`: how long a pass may take."""
        self._most_s, self.slowness = most_s, 1.0
        self._next_long = 0.0

    @property
    def pass_s(self) -> float:
        """How long a pass may be by its calibration."""
        return self._most_s / self.slowness

    def note(self, slowness: float | None) -> bool:
        """Note a pass; returns whether passes have become slow enough to say so."""
        before = self.slowness
        if slowness is not None:
            self.slowness = max(1.0, slowness, before + _FORGET * (slowness - before))
        return before < WORTH_A_LINE <= self.slowness

    def allows(self, calibrated_s: float, now: float) -> bool:
        """Return whether a pass may start now: one that is likely to take too long may once in `PROBE_S`."""
        if calibrated_s <= self.pass_s:
            return True
        if now < self._next_long:
            return False
        self._next_long = now + PROBE_S
        return True
