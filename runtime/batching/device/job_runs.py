"""Runs passes and steps in threads, each within its deadline, and gives what came of them to the event loop."""

import asyncio
import time
from collections.abc import Callable
from functools import partial
from threading import Thread
from typing import Final

from ...errors import DeviceFailed
from ..queues.reply_lanes import ReplyLane, StepResult
from .device_guard import Job
from .run_threads import RunThreads
from .runs import Answers, BatchModel, BatchRuns

_CHECKS_PER_DEADLINE: Final = 8
_LONGEST_WAIT_S: Final = 1.0

OnPass = Callable[[Job, Answers, float], None]
OnStep = Callable[[Job, ReplyLane, StepResult], None]


class JobRuns:
    """Owns the threads that run models. Used on one event loop; only the models' calls run in threads.

    Invariant: a run past its deadline is terminated; one that has not ended at twice that time is reported once.
    """

    def __init__(
        self,
        deadline_s: float,
        clock: Callable[[], float],
        *,
        on_pass: OnPass,
        on_step: OnStep,
        on_stuck: Callable[[BatchModel], None],
    ) -> None:
        """`deadline_s`: the shortest of a loaded version. `on_pass` gets the time when a pass began, too. `on_stuck` is called with the model of a run that does not end."""
        self._threads, self._runs, self._clock = RunThreads(), BatchRuns(), clock
        self._on_pass, self._on_step, self._on_stuck = on_pass, on_step, on_stuck
        self._watch: asyncio.TimerHandle | None = None
        self._shortest_deadline_s = deadline_s

    @property
    def running(self) -> bool:
        """Whether there are threads."""
        return self._threads.running

    def start(self, threads: int) -> None:
        """Start threads. Call it on the event loop that calls all other methods."""
        self._threads.start(threads)
        self._end_overdue()

    def replace_threads(self, stuck: int) -> None:
        """Start as many threads as are stuck; these end after their current run, if that ends."""
        self._threads.start(stuck)

    def note_deadline(self, deadline_s: float) -> None:
        """Check runs as often as a version of this deadline needs."""
        self._shortest_deadline_s = min(self._shortest_deadline_s, deadline_s)

    def put(self, job: Job, model: BatchModel) -> None:
        """Have a thread run a pass of a model, or a step of a lane."""
        self._threads.put(partial(self._run, job, model))

    def probe(
        self, model: BatchModel, deadline_s: float, on_probe: Callable[[BatchModel, DeviceFailed | None], None]
    ) -> None:
        """Have a thread run the reference sample of a model."""
        self._threads.put(lambda: partial(on_probe, model, self._runs.check(model, deadline_s)))

    def end(self) -> list[Thread]:
        """End the threads and terminate what runs; returns the threads if something ran."""
        if self._watch is not None:
            self._watch.cancel()
        threads = self._threads.end()
        return threads if self._runs.end_all() else []

    def _run(self, job: Job, model: BatchModel) -> Callable[[], None]:
        """Run a job. In a thread."""
        if job.lane is not None:
            return partial(self._on_step, job, job.lane, self._runs.step(job.lane, suspect=job.suspect))
        began_at = self._clock()
        answers = self._runs.answer(model, job.entries, job.terms, suspect=job.suspect)
        return partial(self._on_pass, job, answers, began_at)

    def _end_overdue(self) -> None:
        """Terminate runs past their deadline, and schedule the next check."""
        wait_s = min(self._shortest_deadline_s / _CHECKS_PER_DEADLINE, _LONGEST_WAIT_S)
        self._watch = asyncio.get_running_loop().call_later(wait_s, self._end_overdue)
        for model in self._runs.end_overdue(time.monotonic()):
            self._on_stuck(model)
