"""Drives the batch policy: runs batches in threads, and delivers every answer on the event loop."""

import asyncio
import math
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import count
from queue import SimpleQueue
from typing import Any, Final, Protocol

from ..errors import Closed, DeviceFailed
from ..observe.logs import get_logger
from .breaker import BreakerLimits
from .device_guard import DeviceGuard, Job
from .policy import BatchLimits, BatchPolicy, Entry, Sink
from .runs import Answers, BatchModel, BatchRuns

__all__ = ["SHORTEST_DEADLINE_S", "BatchModel", "BatchObserver", "Batcher"]

log = get_logger(__name__)

SHORTEST_DEADLINE_S: Final = 5.0
"""Minimum deadline of a forward pass, regardless of the time measured at start."""
_CHECKS_PER_DEADLINE: Final = 8
_JOIN_S: Final = 0.5


class BatchObserver(Protocol):
    """Notified of every finished batch, on the event loop."""

    def batch(self, rows: int, tokens: int, queue_seconds: list[float], run_seconds: float) -> None:
        """`queue_seconds`: each row's wait until its run began. `run_seconds`: spent in `model.run`."""


class Batcher:
    """Owns the queue and the threads that run the model. Used on one event loop; only the model's calls run in threads.

    Invariants:
    - every submitted entry is delivered once to its sink, with outputs or an error, unless it is cancelled;
    - one entry's failure does not affect the others of its batch;
    - a batch is closed only when a thread is free for it;
    - while the device fails, entries wait in order, and none fails because of it;
    - nothing is awaited, locked or logged per entry.
    """

    def __init__(
        self,
        model: BatchModel,
        limits: BatchLimits,
        *,
        observer: BatchObserver | None = None,
        clock: Callable[[], float] = time.perf_counter,
        deadline_s: float = SHORTEST_DEADLINE_S,
        breaker: BreakerLimits | None = None,
    ) -> None:
        """`deadline_s`: a forward pass that takes longer is terminated; if it has not ended at twice that time, the device is
        given up. A single text above the token budget gets proportionally longer.
        """
        self.model = model
        """Answers the entries without a model of their own."""
        self._policy = BatchPolicy(limits)
        self._observer = observer
        self._clock = clock
        self._work: SimpleQueue[Job | BatchModel | None] = SimpleQueue()
        """A job to run, a model whose reference sample to run as a probe, or None to end the thread."""
        self._threads: list[threading.Thread] = []
        self._runs, self._deadline_s = BatchRuns(deadline_s, limits.token_budget), deadline_s
        self._guard = DeviceGuard(
            breaker or BreakerLimits(), probe=self._probe, resume=self._start_batches, give_up=self.give_up
        )
        self.on_lost: Callable[[DeviceFailed], None] = lambda error: None
        """Called once when the device is given up, before all entries end with Closed."""
        self._lost = False
        self._numbers = count()
        self._running: dict[int, Job] = {}
        self._watch: asyncio.TimerHandle | None = None
        self._room: list[Callable[[], None]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._idle: asyncio.Future[None] | None = None
        self._closing = False

    @property
    def queued_tokens(self) -> int:
        """Tokens of the entries that are not in a batch yet."""
        return self._policy.queued_tokens

    @property
    def queued_rows(self) -> int:
        """Number of entries that are not in a batch yet."""
        return len(self._policy)

    @property
    def in_flight(self) -> int:
        """Number of running batches."""
        return len(self._running)

    @property
    def guard(self) -> DeviceGuard:
        """The state of the device."""
        return self._guard

    def start(self) -> None:
        """Start the threads. Call it on the event loop that calls all other methods."""
        self._loop = asyncio.get_running_loop()
        for number in range(self._policy.limits.max_in_flight):
            # Daemon threads: a forward pass that never ends must not block the end of the process.
            thread = threading.Thread(target=self._serve, name=f"murmura-run-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)
        self._end_overdue_runs()

    def submit(self, entries: Iterable[Entry]) -> None:
        """Queue tokenised entries without waiting: callers check `queued_tokens` and use `on_room`.

        Raises Closed, and queues none, when the batcher is stopping or not started.
        """
        if self._closing or not self._threads:
            raise Closed("the batcher is not running")
        if self._lost:
            left = [entry for entry in entries if not entry.cancelled]
            self._loop.call_soon(self._close, left)
            return
        self._policy.push(entries, self._clock())
        self._start_batches()

    def on_room(self, callback: Callable[[], None]) -> None:
        """Call `callback` on the loop whenever `queued_tokens` has decreased."""
        self._room.append(callback)

    async def stop(self, budget_s: float = 20.0) -> None:
        """Answer queued entries for at most `budget_s`, then end the rest with Closed, also when cancelled."""
        self._closing = True
        try:
            self._start_batches()
            if self._running:
                self._idle = self._loop.create_future()
                async with asyncio.timeout(budget_s):
                    await self._idle
        except TimeoutError:
            pass
        finally:
            self._abandon()
            if self._watch is not None:
                self._watch.cancel()
            for _ in self._threads:
                self._work.put(None)
            threads = self._threads.copy()
            self._threads.clear()
            ended = self._runs.end_all()
        # A thread inside a native library at interpreter exit may abort the process: wait for it to return.
        if ended:
            await asyncio.to_thread(_join, threads, time.monotonic() + _JOIN_S)

    def close_waiting(self) -> None:
        """While the device fails, end all waiting entries with Closed: another process will answer them sooner."""
        if self._guard.trouble is not None:
            self._close([*self._guard.release(), *self._policy.drain()])

    def swap(self, model: BatchModel, deadline_s: float) -> None:
        """Answer what comes from now on by another model; runs that start from now on have its deadline."""
        self.model = model
        self._deadline_s = self._runs.deadline_s = deadline_s
        self.take_back()

    def take_back(self) -> None:
        """While the device fails, return all entries that are not running to their sinks: the model was replaced."""
        if self._guard.trouble is None:
            return
        entries = [entry for entry in (*self._guard.release(), *self._policy.drain()) if not entry.cancelled]
        for sink, part in _group_by_sink(entries):
            self._loop.call_soon(self._call_safely, sink.take_back, part)

    # -- on the event loop -------------------------------------------------------------------------------------------

    def _start_batches(self) -> None:
        if not self._guard.allows_runs or self._lost:
            return
        now = math.inf if self._closing else self._clock()
        queued = self._policy.queued_tokens
        while (job := self._next_job(now)) is not None:
            self._running[job.number] = job
            self._work.put(job)
        self._wake_later(now)
        if self._policy.queued_tokens < queued:
            self._announce_room()

    def _next_job(self, now: float) -> Job | None:
        if len(self._running) < self._policy.limits.max_in_flight and (held := self._guard.next_held()) is not None:
            return held
        if self._guard.on_trial:
            if self._running:
                return None
            self._record_answer()  # no held batch is left
        batch = self._policy.take(now, len(self._running))
        return None if batch is None else Job(next(self._numbers), batch.entries, batch.tokens)

    def _record_answer(self) -> None:
        """Record in the guard that the device answers; if it had failed, announce room to the submitters."""
        if self._guard.record_answer():
            self._announce_room()

    def _announce_room(self) -> None:
        for callback in self._room:
            self._call_safely(callback)

    def _wake_later(self, now: float) -> None:
        """If an eager slot is free, set a timer for when the oldest entry has waited `max_wait_s`."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self._policy.wake_at()
        if due is not None and len(self._running) < self._policy.limits.eager_in_flight:
            self._timer = self._loop.call_later(max(due - now, 0.0), self._start_batches)

    def _finish_job(self, job: Job, answers: Answers, began_at: float) -> None:
        if self._running.pop(job.number, None) is None:
            return  # abandoned: its entries have already ended
        entries = job.entries
        if answers.fault is not None:
            entries = self._hold(job, answers, answers.fault)
            self._start_batches()  # if nothing of the batch is held, the next one can run
        else:
            self._record_answer()
            self._start_batches()  # before delivery: the device is idle, and sinks take time
            for entry, outputs in zip(entries, answers.outputs, strict=True):
                entry.outputs = outputs
            for row, error in answers.errors.items():
                entries[row].error = error
        self._deliver(entries)
        if self._observer is not None and entries:
            waits = [began_at - entry.arrived for entry in entries]
            self._call_safely(self._observer.batch, len(entries), job.tokens, waits, answers.run_seconds)
        if self._idle is not None and not self._running and not self._idle.done():
            self._idle.set_result(None)

    def _hold(self, job: Job, answers: Answers, fault: DeviceFailed) -> list[Entry]:
        """Hold the entries of a batch that the device has not answered; returns those with an answer."""
        answered: list[Entry] = []
        left: list[Entry] = []
        for row, (entry, outputs) in enumerate(zip(job.entries, answers.outputs, strict=True)):
            entry.outputs, entry.error = outputs, answers.errors.get(row)
            (left if outputs is None and entry.error is None else answered).append(entry)
        if left := [entry for entry in left if not entry.cancelled]:
            job.entries = left
            self._guard.hold(job, fault)
            if left[0].model not in {None, self.model}:
                self.take_back()  # the model was replaced while this batch ran
        if fault.lost:
            self.give_up(fault)
        return answered

    def _probe(self) -> None:
        self._work.put(self._guard.model_to_probe(self.model))

    def _end_overdue_runs(self) -> None:
        """Terminate runs past their deadline, and schedule the next check."""
        self._watch = self._loop.call_later(min(self._deadline_s / _CHECKS_PER_DEADLINE, 1.0), self._end_overdue_runs)
        if self._runs.end_overdue(time.monotonic()):
            self.give_up(DeviceFailed("a forward pass did not end at twice its deadline", lost=True))

    def give_up(self, error: DeviceFailed) -> None:
        """End all entries with Closed: this process cannot use its device any more."""
        if self._lost:
            return
        self._lost = True
        log.critical("the device is given up", why=str(error))
        self.on_lost(error)
        self._abandon()

    def _deliver(self, entries: Iterable[Entry]) -> None:
        for sink, part in _group_by_sink(entry for entry in entries if not entry.cancelled):
            self._call_safely(sink.deliver, part)

    def _abandon(self) -> None:
        """End all entries with Closed; batches that finish later are ignored."""
        running = sorted(self._running.values(), key=lambda job: job.number)
        left = [entry for job in running for entry in job.entries] + self._guard.release() + self._policy.drain()
        self._running.clear()
        self._guard.stop()
        if self._timer is not None:
            self._timer.cancel()
        self._close(left)
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    def _close(self, entries: list[Entry]) -> None:
        for entry in entries:
            entry.error = Closed("stopped before the model answered")
        self._deliver(entries)

    def _call_safely(self, call: Callable[..., None], *args: Any) -> None:
        """Call a callback; an error is reported to the loop and does not affect other answers."""
        try:
            call(*args)
        except Exception as error:  # noqa: BLE001
            self._loop.call_exception_handler({"message": f"{call!r} raised in the batcher", "exception": error})

    # -- in the threads ----------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        # A separate method per batch: an idle thread must not keep the last batch, and its model, alive.
        while self._serve_one(self._work.get()):
            pass

    def _serve_one(self, job: Job | BatchModel | None) -> bool:
        if job is None:
            return False
        if isinstance(job, Job):
            began_at = self._clock()
            answers = self._runs.answer(job.entries[0].model or self.model, job.entries, suspect=job.suspect)
            self._call_on_loop(self._finish_job, job, answers, began_at)
        else:
            self._call_on_loop(self._guard.record_probe, self._runs.check(job))
        return True

    def _call_on_loop(self, call: Callable[..., None], *args: Any) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits for the answer
            self._loop.call_soon_threadsafe(call, *args)


def _join(threads: list[threading.Thread], until: float) -> None:
    for thread in threads:
        thread.join(max(until - time.monotonic(), 0.0))


def _group_by_sink(entries: Iterable[Entry]) -> Iterable[tuple[Sink, list[Entry]]]:
    parts: dict[int, tuple[Sink, list[Entry]]] = {}
    for entry in entries:
        sink = entry.sink
        part = parts.get(id(sink))
        if part is None:
            parts[id(sink)] = (sink, [entry])
        else:
            part[1].append(entry)
    return parts.values()
