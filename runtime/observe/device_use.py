"""Measures device utilisation, and CPU time per text outside the device."""

import time
from collections import deque
from collections.abc import Callable
from typing import Final

WINDOW_S: Final = 30.0


class DeviceUse:
    """Measures device utilisation, and CPU time per text outside the device, over a sliding window of 30 s.

    busy ratio = sum of the passes' and decoder steps' wall seconds / (window * run slots). Each counts when it ends.
    host seconds per record = (CPU seconds of the process - seconds of passes and steps, if they run on this CPU) / texts.
    On a loaded machine a pass's wall time exceeds its CPU time; the second value is then a lower bound.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, cpu_clock: Callable[[], float] = time.process_time
    ) -> None:
        self._clock, self._cpu_clock = clock, cpu_clock
        self._slots, self._runs_on_host = 1, True
        self._busy, self._rows = 0.0, 0
        # (time, busy so far, CPU so far, rows so far), about one per second
        self._marks: deque[tuple[float, float, float, int]] = deque([self._mark()])

    def configure(self, run_slots: int, *, runs_on_host: bool) -> None:
        self._slots, self._runs_on_host = max(run_slots, 1), runs_on_host

    def ran(self, rows: int, seconds: float) -> None:
        self._busy += seconds
        self._rows += rows
        if self._clock() - self._marks[-1][0] >= 1.0:
            self._marks.append(self._mark())
            self._forget()

    def busy_ratio(self) -> float:
        wall, busy, _, _ = self._window()
        return min(busy / (wall * self._slots), 1.0) if wall > 0 else 0.0

    def host_seconds_per_record(self) -> float:
        _, busy, cpu, rows = self._window()
        return max(cpu - (busy if self._runs_on_host else 0.0), 0.0) / rows if rows else 0.0

    def _mark(self) -> tuple[float, float, float, int]:
        return self._clock(), self._busy, self._cpu_clock(), self._rows

    def _window(self) -> tuple[float, float, float, int]:
        self._forget()
        now, then = self._mark(), self._marks[0]
        return now[0] - then[0], now[1] - then[1], now[2] - then[2], now[3] - then[3]

    def _forget(self) -> None:
        # Keep the newest mark older than the window, so that it covers at least 30 s once that much time has passed.
        while len(self._marks) > 1 and self._clock() - self._marks[1][0] >= WINDOW_S:
            self._marks.popleft()
