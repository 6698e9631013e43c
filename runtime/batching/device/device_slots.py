"""Says what starts on the device next: a pass over texts, or a step of replies. Pure."""

from enum import Enum
from typing import Final

STEPS_BETWEEN_PASSES: Final = 2


class Turn(Enum):
    """What can start on the device."""

    PASS = "pass"  # noqa: S105
    """A forward pass over a batch of texts."""
    STEP = "step"
    """A step of a decoder: it adds one piece to each of its replies."""


class DeviceSlots:
    """At most `most` passes and steps run at the same time, and while texts wait, at most `steps_between_passes` steps start
    between two passes, those of all loaded versions together.
    """

    def __init__(self, most: int, steps_between_passes: int = STEPS_BETWEEN_PASSES) -> None:
        if most < 1 or steps_between_passes < 1:
            raise ValueError(f"expected a slot and a step or more, found {most} and {steps_between_passes}")
        self.most, self._most_steps = most, steps_between_passes
        self._steps = 0
        """Steps started since the last pass."""

    def turns(self, in_flight: int) -> tuple[Turn, ...]:
        """Return what may start beside so many passes and steps, in the order in which to look for it."""
        if in_flight >= self.most:
            return ()
        return (Turn.STEP, Turn.PASS) if self._steps < self._most_steps else (Turn.PASS, Turn.STEP)

    def record(self, turn: Turn) -> None:
        """Record what has started."""
        self._steps = 0 if turn is Turn.PASS else self._steps + 1
