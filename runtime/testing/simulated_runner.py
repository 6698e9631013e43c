"""A simulated accelerator, for tests and benchmarks of what runs beside a device."""

import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ...schemas.manifest import TaskSpec
from ..model.kinds.forms import Reads
from ..model.kinds.registry import kind_of


class SimulatedRunner:
    """Simulates a session on an accelerator: `runs_at_once` concurrent runs, each of `run_s + row_s * rows`, without CPU use.

    A run sleeps with the GIL released, so that only the host's work is measured. Logits are cheap and deterministic: a row
    of a fixed random table, selected by the sum of the text's token ids (kinds that read tokens: by each id), so they do not
    depend on the batch.
    """

    ROWS = 1024

    def __init__(
        self, tasks: Iterable[TaskSpec], *, runs_at_once: int = 1, run_s: float = 0.002, row_s: float = 30e-6
    ) -> None:
        self.device = "simulated"
        self.run_s, self.row_s = run_s, row_s
        self._slots = threading.BoundedSemaphore(runs_at_once)
        random = np.random.default_rng(7)
        self._tables: dict[str, tuple[bool, npt.NDArray[np.float32]]] = {}
        for task in tasks:
            kind = kind_of(task)
            table = random.normal(scale=3.0, size=(self.ROWS, kind.width(task))).astype(np.float32)
            self._tables[task.name] = kind.reads is Reads.TOKENS, kind.shape_fake_logits(table, task)

    def run(self, feeds: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """Answer a ragged or a padded batch; rows are the rows of `attention_mask`."""
        ids, mask = feeds["input_ids"], feeds["attention_mask"]
        rows = len(mask)
        if ids.ndim == 1:
            lengths = mask.sum(axis=1).astype(np.int64)
            sums = np.add.reduceat(ids, np.cumsum(lengths) - lengths)
        else:
            sums = (ids * (mask > 0)).sum(axis=1)
        logits = {
            name: table[(ids if by_token else sums) % self.ROWS] for name, (by_token, table) in self._tables.items()
        }
        with self._slots:
            time.sleep(self.run_s + self.row_s * rows)
        return logits

    def terminate(self, thread: int | None = None) -> None:
        """Do nothing: a sleep ends without it."""

    def close(self) -> None:
        """Do nothing: there is nothing to release."""
