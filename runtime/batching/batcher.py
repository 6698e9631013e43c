"""The driver of the batch policy: runs batches in threads of its own and brings every answer back to the event loop."""

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
"""No forward pass is ended earlier, however short it was at start."""
_LOOKS_A_DEADLINE: Final = 8
_COMES_OUT_S: Final = 0.5


class BatchObserver(Protocol):
    """Told of every batch that was run, on the event loop."""

    def batch(self, rows: int, tokens: int, queue_seconds: list[float], run_seconds: float) -> None:
        """`queue_seconds`: each row's wait until its run began. `run_seconds`: spent in `model.run`."""


class Batcher:
    """Owns the queue and the threads that run the model. Lives on one event loop; only `run` and `decode` leave it.

    Always true: every entry that was submitted is delivered once to its sink, with outputs or an error, unless it was
    cancelled; what happens to one entry changes nothing for its neighbours; a batch is closed when a thread is free for
    it and not before. While the device fails, entries wait in their order, and none of them fails for it. Nothing is
    awaited, locked or logged for a single entry.
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
        """`deadline_s`: a forward pass that takes longer is ended; one that has not ended at twice that is given up.

        A single text above the token budget gets longer, by its tokens.
        """
        self.model = model
        """Answers the entries that name no model of their own."""
        self._policy = BatchPolicy(limits)
        self._observer = observer
        self._clock = clock
        self._work: SimpleQueue[Job | BatchModel | None] = SimpleQueue()
        """A model is a probe: its reference sample is to be run."""
        self._threads: list[threading.Thread] = []
        self._runs, self._deadline_s = BatchRuns(deadline_s, limits.token_budget), deadline_s
        self._guard = DeviceGuard(
            breaker or BreakerLimits(), probe=self._probe, go_on=self._start_batches, give_up=self.give_up
        )
        self.on_lost: Callable[[DeviceFailed], None] = lambda error: None
        """Called once when the process cannot use its device any more; everybody has been answered with Closed."""
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
        """Tokens of the entries that are in no batch yet."""
        return self._policy.queued_tokens

    @property
    def queued_rows(self) -> int:
        """Entries that are in no batch yet."""
        return len(self._policy)

    @property
    def in_flight(self) -> int:
        """Batches that are being run."""
        return len(self._running)

    @property
    def guard(self) -> DeviceGuard:
        """What is known of the device."""
        return self._guard

    def start(self) -> None:
        """Start the threads; call it on the event loop that will call everything else."""
        self._loop = asyncio.get_running_loop()
        for number in range(self._policy.limits.max_in_flight):
            # Daemons: a forward pass that never ends must not keep the process from ending.
            thread = threading.Thread(target=self._serve, name=f"murmura-run-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)
        self._look()

    def submit(self, entries: Iterable[Entry]) -> None:
        """Queue tokenised entries. Never waits: who submits looks at `queued_tokens` and `on_room`.

        Raises Closed, and takes none of them, when the batcher is stopping or not started.
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
        """Call `callback` on the loop whenever `queued_tokens` has dropped."""
        self._room.append(callback)

    async def stop(self, budget_s: float = 20.0) -> None:
        """Answer what is queued for at most `budget_s`, then answer the rest with Closed. Also when cancelled."""
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
        # A thread within a library when the interpreter ends may abort the process: let it come out of there.
        if ended:
            await asyncio.to_thread(_join, threads, time.monotonic() + _COMES_OUT_S)

    def let_go(self) -> None:
        """While the device fails, answer what waits for it with Closed: somebody else will answer it sooner."""
        if self._guard.trouble is not None:
            self._close([*self._guard.release(), *self._policy.drain()])

    def take_back(self) -> None:
        """Hand what is in no run back to its sinks while the device fails: another model has taken the place of its own."""
        if self._guard.trouble is None:
            return
        entries = [entry for entry in (*self._guard.release(), *self._policy.drain()) if not entry.cancelled]
        for sink, part in _by_sink(entries):
            self._loop.call_soon(self._guarded, sink.take_back, part)

    # -- on the event loop -------------------------------------------------------------------------------------------

    def _start_batches(self) -> None:
        if not self._guard.lets_run or self._lost:
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
            self._note_answer()  # nobody waits for what was held any more
        batch = self._policy.take(now, len(self._running))
        return None if batch is None else Job(next(self._numbers), batch.entries, batch.tokens)

    def _note_answer(self) -> None:
        """Tell the guard that the device answers; where it had failed, tell those who were kept from submitting."""
        if self._guard.answered():
            self._announce_room()

    def _announce_room(self) -> None:
        for callback in self._room:
            self._guarded(callback)

    def _wake_later(self, now: float) -> None:
        """Come back when the oldest entry has waited `max_wait_s`, if a free slot waits for nothing else."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self._policy.wake_at()
        if due is not None and len(self._running) < self._policy.limits.eager_in_flight:
            self._timer = self._loop.call_later(max(due - now, 0.0), self._start_batches)

    def _finished(self, job: Job, answers: Answers, began_at: float) -> None:
        if self._running.pop(job.number, None) is None:
            return  # abandoned: its entries have been answered
        entries = job.entries
        if answers.fault is not None:
            entries = self._hold(job, answers, answers.fault)
            self._start_batches()  # where none of the batch is left to be held, the next one can run
        else:
            self._note_answer()
            self._start_batches()  # before delivery: the device is waiting, and sinks take their time
            for entry, outputs in zip(entries, answers.outputs, strict=True):
                entry.outputs = outputs
            for row, error in answers.errors.items():
                entries[row].error = error
        self._deliver(entries)
        if self._observer is not None and entries:
            waits = [began_at - entry.arrived for entry in entries]
            self._guarded(self._observer.batch, len(entries), job.tokens, waits, answers.run_seconds)
        if self._idle is not None and not self._running and not self._idle.done():
            self._idle.set_result(None)

    def _hold(self, job: Job, answers: Answers, fault: DeviceFailed) -> list[Entry]:
        """Keep the entries of a batch that the device has not answered; returns those that have an answer."""
        answered: list[Entry] = []
        left: list[Entry] = []
        for row, (entry, outputs) in enumerate(zip(job.entries, answers.outputs, strict=True)):
            entry.outputs, entry.error = outputs, answers.errors.get(row)
            (left if outputs is None and entry.error is None else answered).append(entry)
        if left := [entry for entry in left if not entry.cancelled]:
            job.entries = left
            self._guard.hold(job, fault)
            if left[0].model not in {None, self.model}:
                self.take_back()  # it was exchanged while this batch ran
        if fault.lost:
            self.give_up(fault)
        return answered

    def _probe(self) -> None:
        self._work.put(self._guard.model_to_probe(self.model))

    def _look(self) -> None:
        """End runs that are past their deadline, for as long as the batcher runs."""
        self._watch = self._loop.call_later(min(self._deadline_s / _LOOKS_A_DEADLINE, 1.0), self._look)
        if self._runs.end_overdue(time.monotonic()):
            self.give_up(DeviceFailed("a forward pass did not end at twice its deadline", lost=True))

    def give_up(self, error: DeviceFailed) -> None:
        """Answer everybody with Closed: this process cannot use its device any more."""
        if self._lost:
            return
        self._lost = True
        log.critical("the device is given up", why=str(error))
        self.on_lost(error)
        self._abandon()

    def _deliver(self, entries: Iterable[Entry]) -> None:
        for sink, part in _by_sink(entry for entry in entries if not entry.cancelled):
            self._guarded(sink.deliver, part)

    def _abandon(self) -> None:
        """Answer everything that is still here with Closed; batches that come back later are ignored."""
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

    def _guarded(self, call: Callable[..., None], *args: Any) -> None:
        """Call somebody else's code: what it raises is reported and stops nobody's answer."""
        try:
            call(*args)
        except Exception as error:  # noqa: BLE001
            self._loop.call_exception_handler({"message": f"{call!r} raised in the batcher", "exception": error})

    # -- in the threads ----------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        # A method of its own for each batch: an idle thread must not hold on to the last one, and so to its model.
        while self._serve_one(self._work.get()):
            pass

    def _serve_one(self, job: Job | BatchModel | None) -> bool:
        if job is None:
            return False
        if isinstance(job, Job):
            began_at = self._clock()
            answers = self._runs.answer(job.entries[0].model or self.model, job.entries, suspect=job.suspect)
            self._call_on_loop(self._finished, job, answers, began_at)
        else:
            self._call_on_loop(self._guard.probed, self._runs.check(job))
        return True

    def _call_on_loop(self, call: Callable[..., None], *args: Any) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(call, *args)


def _join(threads: list[threading.Thread], until: float) -> None:
    for thread in threads:
        thread.join(max(until - time.monotonic(), 0.0))


def _by_sink(entries: Iterable[Entry]) -> Iterable[tuple[Sink, list[Entry]]]:
    parts: dict[int, tuple[Sink, list[Entry]]] = {}
    for entry in entries:
        sink = entry.sink
        part = parts.get(id(sink))
        if part is None:
            parts[id(sink)] = (sink, [entry])
        else:
            part[1].append(entry)
    return parts.values()
