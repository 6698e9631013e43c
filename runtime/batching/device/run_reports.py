"""Reports passes, steps and replies to an observer."""

from collections.abc import Callable, Iterable

from ...errors import ModelFailed
from ...model.generated import Generated
from ..queues.delivery import call_safely
from ..queues.entry import Entry
from ..queues.reply_lanes import StepResult
from .observer import BatchObserver


class RunReports:
    """Computes waits and counts for an observer; without one it does nothing."""

    def __init__(self, observer: BatchObserver | None, clock: Callable[[], float]) -> None:
        self._observer, self._clock = observer, clock

    def report_batch(self, entries: list[Entry], tokens: int, began_at: float, seconds: float) -> None:
        """Report a pass that began at a time of the clock and took `seconds` in `model.run`."""
        if self._observer is not None and entries:
            waits = [began_at - entry.arrived for entry in entries]
            call_safely(self._observer.batch, len(entries), tokens, waits, seconds)

    def report_step(self, result: StepResult, ended: Iterable[tuple[Entry, Generated | ModelFailed]]) -> None:
        """Report a step, and the replies that ended with it."""
        if self._observer is None or not result.rows:
            return
        now = self._clock()
        waits = [now - entry.arrived for entry in result.joined]
        call_safely(self._observer.step, result.rows, result.seconds, waits)
        for _, reply in ended:
            if isinstance(reply, Generated):
                call_safely(self._observer.reply, reply.finish, len(reply.tokens))
            else:
                call_safely(self._observer.reply, "failed")
