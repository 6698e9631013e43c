"""What passes of a model cost on this device, and what follows from it: the token budget, the terms, the deadline."""

from dataclasses import replace
from typing import Any

import structlog

from ...model.pass_time import PassTime
from ..queues.policy import CELLS_PER_TOKEN
from ..queues.version_queue import ROWS_ON_CPU, VersionTerms
from .calibration import Calibration, calibrate, measure_passes

DEADLINE_RUNS = 20
"""Deadline of a forward pass over a full batch, as a multiple of the time measured at start."""


class PassCosts:
    """Costs of the serving version of one model. `padded`: a batch costs its rows times its longest text."""

    def __init__(
        self,
        token_budget: int | None,
        max_rows: int,
        *,
        padded: bool,
        deadline_s: float,
        name: str = "",
        weight: float = 1.0,
        reply_rows: int = ROWS_ON_CPU,
    ) -> None:
        """`token_budget` None: it is measured. `deadline_s`: of a forward pass, at least. The others: see `VersionTerms`."""
        self._name, self._weight, self._reply_rows = name, weight, reply_rows
        self.token_budget, self._max_rows, self._padded = token_budget, max_rows, padded
        self._shortest_deadline_s = self.deadline_s = deadline_s
        self.calibration: Calibration | None = None
        """The measurement; None when the budget was given."""
        self._overhead_s, self._token_s, self._is_calibrated = 0.0, 1.0, False

    def measure(self, model: Any) -> None:
        """Warm a model up, and measure its budget unless it was given. Blocks for about a second."""
        if self.token_budget is not None:
            self.replace(model, measure_passes(model, max_rows=self._max_rows))
            return
        self.calibration = found = calibrate(model, max_rows=self._max_rows, padded=self._padded)
        self.token_budget, self._overhead_s, self._token_s = found.token_budget, found.overhead_s, found.token_s
        self._is_calibrated = True
        self.deadline_s = self._find_deadline(found.seconds(self._largest_batch(model)))
        structlog.get_logger(__name__).info("calibrated", device=model.device, **found.figures())

    def replace(self, model: Any, passes: PassTime | None) -> None:
        """Take over what was measured of another version. One of which nothing was measured has the deadline of the one before."""
        self._is_calibrated = passes is not None
        if passes is not None and self.token_budget is not None:
            self._overhead_s, self._token_s = passes.overhead_s, passes.token_s
            self.deadline_s = self._find_deadline(passes.slowest_token_s * self._largest_batch(model))

    def estimate(self, model: Any, passes: PassTime | None) -> VersionTerms:
        """Return the terms of a version beside the serving one."""
        if passes is None:
            return replace(self.terms, is_calibrated=False)
        return replace(
            self.terms,
            overhead_s=passes.overhead_s,
            token_s=passes.token_s,
            is_calibrated=True,
            deadline_s=self._find_deadline(passes.slowest_token_s * self._largest_batch(model)),
        )

    @property
    def terms(self) -> VersionTerms:
        """The terms of the serving version, once measured."""
        budget = self.token_budget or 1
        max_cells = budget if self._padded else CELLS_PER_TOKEN * budget
        return VersionTerms(
            budget,
            self._max_rows,
            max_cells,
            self._name,
            self._weight,
            self._overhead_s,
            self._token_s,
            self._reply_rows,
            self._is_calibrated,
            self.deadline_s,
        )

    def _largest_batch(self, model: Any) -> int:
        longest: int = model.manifest.limits.max_tokens
        return max(self.token_budget or 0, longest)

    def _find_deadline(self, full_batch_s: float) -> float:
        return max(self._shortest_deadline_s, DEADLINE_RUNS * full_batch_s)
