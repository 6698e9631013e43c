"""The interface for measurements of passes, steps and replies."""

from typing import Literal, Protocol

Outcome = Literal["end", "length", "failed", "late"]
"""How a reply ended: by itself, at the maximum number of pieces, or without a text."""


class BatchObserver(Protocol):
    """Notified on the event loop."""

    def batch(self, rows: int, tokens: int, queue_seconds: list[float], run_seconds: float) -> None:
        """A forward pass ended. `queue_seconds`: each row's wait until its run began. `run_seconds`: spent in `model.run`."""

    def step(self, rows: int, run_seconds: float, first_step_seconds: list[float]) -> None:
        """A step of a decoder ended. `first_step_seconds`: of the replies that began with it, the time since their text was
        queued.
        """

    def reply(self, outcome: Outcome, pieces: int = 0) -> None:
        """A reply ended, of so many pieces."""
