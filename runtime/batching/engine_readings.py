"""What an engine says of itself: what waits, how much room there is, and whether the device answers."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from ..errors import Closed
from .batcher import Batcher
from .callers.request_checks import RequestChecks
from .costs.calibration import Calibration
from .costs.pass_costs import PassCosts
from .queues.version_queue import VersionTerms


class EngineReadings(RequestChecks):
    """The readings of an engine, which sets the attributes. Before its start and after its stop nothing waits."""

    _batcher: Batcher | None
    _costs: PassCosts
    _max_rows: int
    _most: int
    candidate: Any
    """A second version, which answers the entries that name it."""

    @property
    def calibration(self) -> Calibration | None:
        """The measurement at start; None when the budget was given."""
        return self._costs.calibration

    @property
    def run_slots(self) -> int:
        """Maximum number of forward passes in flight."""
        return self._most

    @property
    def token_budget(self) -> int:
        """Tokens that a batch may hold. Known once the engine has started."""
        if self._costs.token_budget is None:
            raise RuntimeError("the token budget is measured by start()")
        return self._costs.token_budget

    @property
    def trouble(self) -> str | None:
        """Why the device fails; None while it answers. Texts wait in the meantime."""
        return self._batcher.guard.trouble if self._batcher else None

    @property
    def failed_probes(self) -> int:
        """Number of failed probes of the serving version since the device started to fail."""
        return self._batcher.guard.failed_probes(self.model) if self._batcher else 0

    @property
    def queued_tokens(self) -> int:
        """Tokens of the entries that are not in a batch yet."""
        return self._batcher.backlog.tokens if self._batcher else 0

    @property
    def queued_rows(self) -> int:
        """Number of entries that are not in a batch yet."""
        return self._batcher.backlog.rows if self._batcher else 0

    @property
    def lookahead(self) -> tuple[int, int]:
        """Tokens and rows to keep queued so that no run slot waits for its next batch: one batch; 0 while the device fails.

        A batch is tokenised in a fraction of its running time, so queueing more only adds latency.
        """
        if self.trouble is not None:
            return 0, 0
        return self.token_budget, self._max_rows

    @property
    def room(self) -> tuple[int, int]:
        """Tokens and rows that the fullest queue of the loaded versions lacks to the `lookahead`."""
        tokens, rows = self.lookahead
        if self._batcher is None:
            return tokens, rows
        queued = [self._batcher.backlog.queued(model) for model in (self.model, self.candidate) if model is not None]
        return tokens - max(each[0] for each in queued), rows - max(each[1] for each in queued)

    @property
    def is_idle(self) -> bool:
        """Whether nothing of any model on the device waits or runs, and the device answers."""
        batcher = self._batcher
        if batcher is None or batcher.in_flight or not batcher.loading.is_idle:
            return False
        return batcher.backlog.is_empty and not batcher.guard.trouble

    def turn(self) -> AbstractContextManager[None]:
        """Return what has a turn on the device, for a pass of a version that is being loaded. In a thread; see `LoadingPasses`."""
        batcher = self._batcher
        return nullcontext() if batcher is None else batcher.loading.turn()

    def watch_idle(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back whenever nothing waits or runs any more; returns what ends that. Raises Closed when not running."""
        if self._batcher is None:
            raise Closed("the engine is not running")
        return self._batcher.backlog.watch_idle(callback)

    def estimate_terms(self, model: Any) -> VersionTerms:
        """Return the terms that a version beside the serving one has on this device."""
        return self._costs.estimate(model, model.pass_time)

    @property
    def in_flight(self) -> int:
        """Number of running batches."""
        return self._batcher.in_flight if self._batcher else 0
