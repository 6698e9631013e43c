"""How long training took."""

import time

from ..setup import Fitting


class CpuClock:
    """Adds the CPU time of the processes to that of the run before it was interrupted."""

    def __init__(self, run: Fitting) -> None:
        self._run, self._before, self._since = run, run.standing.cpu_seconds, time.process_time()

    @property
    def own(self) -> float:
        """The CPU-seconds of this process since the clock was made."""
        return time.process_time() - self._since

    def stop(self, others: float) -> None:
        """Bring the run's figure up to date; `others` are the CPU-seconds of the other processes."""
        self._run.standing.cpu_seconds = self._before + self.own + others
