"""Starts batches of texts and steps of replies, and delivers every answer."""

import asyncio
import math
import time
from collections.abc import Callable, Iterable

from ..errors import Closed, DeviceFailed
from ..observe.logs import get_logger
from .backlog import Backlog, OnFailed
from .device.breaker import BreakerLimits
from .device.device_guard import DeviceGuard, Job
from .device.device_slots import STEPS_BETWEEN_PASSES
from .device.job_runs import JobRuns
from .device.loading_passes import LoadingPasses
from .device.observer import BatchObserver
from .device.run_reports import RunReports
from .device.run_threads import join_threads
from .device.runs import ON_CPU, Answers, BatchModel
from .queues.delivery import call_safely, close, deliver, return_entries
from .queues.entry import Entry
from .queues.policy import BatchLimits
from .queues.reply_lanes import ReplyLane, StepResult
from .queues.version_queue import VersionTerms

log = get_logger(__name__)


class Batcher:
    """Owns the queue, the replies and what runs. Used on one event loop.

    Invariants:
    - every submitted entry is delivered once to its sink, with outputs or an error, unless it is cancelled;
    - one entry's failure does not affect the others of its batch;
    - a batch is closed only when a thread is free for it;
    - an entry with tasks that generate goes on from its pass to a lane, and is delivered with its replies;
    - while the device fails, entries wait in order, and none fails because of it;
    - no entry fails because of a candidate, also where a run of it does not end: it returns to its sink, for the current version;
    - nothing is awaited, locked or logged per entry.
    """

    def __init__(
        self,
        model: BatchModel,
        limits: BatchLimits,
        *,
        terms: VersionTerms | None = None,
        observer: BatchObserver | None = None,
        clock: Callable[[], float] = time.perf_counter,
        breaker: BreakerLimits | None = None,
        steps_between_passes: int = STEPS_BETWEEN_PASSES,
    ) -> None:
        """`terms`: those of `model`. A pass or a step that takes longer than its version's deadline is terminated; if it has not
        ended at twice that time, the device is given up, unless it is a candidate's. A single text above the token budget gets
        proportionally longer.
        `steps_between_passes`: see `DeviceSlots`.
        """
        self.model = model
        """Answers the entries without a model of their own."""
        self.limits = limits
        self.backlog = Backlog(limits, steps_between_passes, terms)
        self.backlog.load(model, terms or limits.terms)
        self._clock = clock
        self._reports = RunReports(observer, clock)
        deadline_s = (terms or limits.terms).deadline_s
        self._runs = JobRuns(
            deadline_s, clock, on_pass=self._finish_pass, on_step=self._finish_step, on_stuck=self._leave_stuck
        )
        self._guard = DeviceGuard(
            breaker or BreakerLimits(), probe=self._probe, resume=self._start_batches, give_up=self.give_up
        )
        beside = limits.max_in_flight - 1 if model.device == ON_CPU else 0
        self.loading = LoadingPasses(beside, self._start_batches)
        """The passes of versions that are being loaded."""
        self.on_lost: Callable[[DeviceFailed], None] = lambda error: None
        """Called once when the device is given up, before all entries end with Closed."""
        self._lost = False
        self._running: dict[int, Job] = {}
        self._room: list[Callable[[], None]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._idle: asyncio.Future[None] | None = None
        self._closing = False

    @property
    def in_flight(self) -> int:
        """Number of running passes and steps."""
        return len(self._running)

    @property
    def guard(self) -> DeviceGuard:
        """The state of the device."""
        return self._guard

    def start(self) -> None:
        """Start the threads. Call it on the event loop that calls all other methods."""
        self._loop = asyncio.get_running_loop()
        self.loading.open()
        self._runs.start(self.limits.max_in_flight)

    def submit(self, entries: Iterable[Entry]) -> None:
        """Queue tokenised entries without waiting: callers check `queued_tokens` and use `on_room`.

        Raises Closed, and queues none, when the batcher is stopping or not started.
        """
        if self._closing or not self._runs.running:
            raise Closed("the batcher is not running")
        if self._lost:
            left = [entry for entry in entries if not entry.cancelled]
            self._loop.call_soon(close, left)
            return
        self.backlog.policy.push(entries, self._clock())
        self._start_batches()

    def on_room(self, callback: Callable[[], None]) -> None:
        """Call `callback` on the loop whenever `queued_tokens` has decreased."""
        self._room.append(callback)

    async def stop(self, budget_s: float = 20.0) -> None:
        """Answer queued entries for at most `budget_s`, then end the rest with Closed, also when cancelled."""
        self._closing = True
        self.loading.close()
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
            threads = self._runs.end()
        # A thread inside a native library at interpreter exit may abort the process: wait for it to return.
        if threads:
            await asyncio.to_thread(join_threads, threads)

    def close_waiting(self) -> None:
        """While the device fails, end all waiting entries with Closed: another process will answer them sooner."""
        if self._guard.trouble is not None:
            close(self._drain(running=False))

    def load(self, model: BatchModel, terms: VersionTerms, on_failed: OnFailed | None = None) -> None:
        """Add a version, or change its terms.

        `on_failed`: it is a candidate. When it fails, this is called, and its entries return to their sinks.
        """
        self._runs.note_deadline(terms.deadline_s)
        self.backlog.load(model, terms, on_failed)

    def swap(self, before: BatchModel, model: BatchModel, terms: VersionTerms) -> None:
        """Answer what comes from now on by `model` instead of `before`."""
        self.model = model if before is self.model else self.model
        self.load(model, terms)
        if before is not model:
            self.backlog.retire(before)
        self.take_back()

    def drop_candidate(self, model: BatchModel) -> None:
        """Unload a candidate; what it has not answered and what is in no batch returns to its sink."""
        return_entries(self.backlog.unload(model))
        self._announce_room()

    def fail_version(self, model: BatchModel, fault: DeviceFailed) -> None:
        """A loaded version cannot tokenise: unload it if it is a candidate, otherwise give the device up."""
        if self.backlog.is_candidate(model):
            return_entries(self.backlog.fail_candidate(model, fault))
        elif self.backlog.policy.is_loaded(model):
            self.give_up(fault)

    def take_back(self) -> None:
        """While the device fails, return all entries that are not running to their sinks: a version was replaced."""
        if self._guard.trouble is not None:
            return_entries(self._drain(running=False))

    def _drain(self, *, running: bool) -> list[Entry]:
        """Remove and return all entries that wait, and those of running steps if `running`."""
        return [*self._guard.release(), *self.backlog.drain(running=running)]

    def _start_batches(self) -> None:
        if not self._guard.allows_runs or self._lost:
            self.loading.let_all_run()
            return
        now = math.inf if self._closing else self._clock()
        queued = self.backlog.tokens
        while (job := self._next_job(now)) is not None:
            self._running[job.number] = job
            self._runs.put(job, job.model or self.model)
        self.loading.begin_next(len(self._running))
        self.backlog.free_lanes()
        self._wake_later(now)
        if self.backlog.tokens < queued:
            self._announce_room()
        if not self._running:
            self.backlog.announce_idle()

    def _next_job(self, now: float) -> Job | None:
        in_flight = len(self._running) + self.loading.running
        if self.loading.holds_back(len(self._running)):
            return None
        if in_flight < self.limits.max_in_flight and (held := self._guard.next_held()) is not None:
            return held
        if self._guard.on_trial:
            if self._running:
                return None
            self._record_answer()  # no held batch is left
        return self.backlog.take(now, in_flight)

    def _record_answer(self) -> None:
        """Record in the guard that the device answers; if it had failed, announce room to the submitters."""
        if self._guard.record_answer():
            self._announce_room()

    def _announce_room(self) -> None:
        for callback in self._room:
            call_safely(callback)

    def _wake_later(self, now: float) -> None:
        """If a slot is free, set a timer for when the oldest entry has waited for long enough."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if (self._guard.on_trial and self._running) or self.loading.holds_back(len(self._running)):
            return  # only the end of the trial, or of a pass, starts another batch
        due = self.backlog.policy.wake_at(len(self._running))
        if due is not None:
            self._timer = self._loop.call_later(max(due - now, 0.0), self._start_batches)

    def _finish_pass(self, job: Job, answers: Answers, began_at: float) -> None:
        if self._running.pop(job.number, None) is None:
            return  # abandoned: its entries have already ended
        entries, model = job.entries, job.model or self.model
        job.is_candidate = self.backlog.is_candidates(job)
        ratio = job.terms.find_pass_ratio(answers.device_s, job.tokens)
        for row, (entry, outputs) in enumerate(zip(entries, answers.outputs, strict=True)):
            entry.outputs, entry.error, entry.pass_ratio = outputs, answers.errors.get(row), ratio
        begun = ((entries[row], found) for row, found in answers.memories.items())
        self.backlog.lanes.begin(model, job.terms, begun)
        answered = [entry for entry in entries if entry.outputs is not None or entry.error is not None]
        complete = [entry for entry in answered if not entry.replies_left]
        left = [entry for entry in entries if entry.outputs is None and entry.error is None]
        if job.is_candidate and not self.backlog.policy.is_loaded(model):  # unloaded while this ran
            return_entries(self.backlog.drain(running=True, model=model))
        if answers.fault is not None:
            job.entries = [entry for entry in left if not entry.cancelled]
            self._hold(job, answers.fault)
        else:
            self._record_answer()
        failed = self._settle(job, complete)
        answered = [entry for entry in answered if entry not in failed]
        self._reports.report_batch(answered, job.tokens, began_at, answers.run_seconds)
        self._end_if_idle()

    def _finish_step(self, job: Job, lane: ReplyLane, result: StepResult) -> None:
        if self._running.pop(job.number, None) is None:
            return  # abandoned: its entries have already ended
        lane.in_thread = False
        job.is_candidate = self.backlog.is_candidates(job)
        queued = self.backlog.lanes.queued_tokens
        ended, again = self.backlog.lanes.finish(lane, result)
        complete = [entry for entry, _ in ended if not entry.replies_left]
        if result.fault is None:
            self._record_answer()
        elif result.again:
            tokens = sum(entry.encoded.tokens for entry in again)
            self._hold(Job(job.number, again, tokens, job.terms, is_candidate=job.is_candidate), result.fault)
        lane.claimed = result.fault is not None and not result.again
        if lane.claimed and result.fault is not None:
            self._hold(job, result.fault)
        self._settle(job, complete)
        if self.backlog.lanes.queued_tokens < queued:
            self._announce_room()
        self._reports.report_step(result, ended)
        self._end_if_idle()

    def _settle(self, job: Job, complete: list[Entry]) -> list[Entry]:
        """Deliver complete entries of a job, and return those that a candidate failed on to their sinks. Returns the latter."""
        failed: list[Entry] = []
        if job.is_candidate:
            complete, failed = self.backlog.separate_failed(complete)
        self._start_batches()  # before delivery: the device is idle, and sinks take time
        deliver(complete)
        return_entries(failed)
        return failed

    def _end_if_idle(self) -> None:
        if self._idle is not None and not self._running and not self._idle.done():
            self._idle.set_result(None)

    def _hold(self, job: Job, fault: DeviceFailed) -> None:
        """Hold what the device has not answered of a batch, or a step; a candidate's goes to the current version."""
        if job.entries or job.lane is not None:
            model = job.model
            if job.is_candidate and not fault.lost:
                return_entries([*job.entries, *self.backlog.fail_candidate(model, fault)])
                return
            self._guard.hold(job, fault)
            if model is not None and not self.backlog.policy.is_loaded(model):
                self.take_back()  # the model was replaced while this ran
        if fault.lost:
            self.give_up(fault)

    def _probe(self) -> None:
        model = self._guard.model_to_probe(self.model)
        self._runs.probe(model, self.backlog.policy.find_terms(model).deadline_s, self._guard.record_probe)

    def _leave_stuck(self, model: BatchModel) -> None:
        """A run of a model does not end: unload a candidate and leave its thread to it, otherwise give the device up."""
        fault = DeviceFailed("a forward pass did not end at twice its deadline", lost=True)
        jobs = [job for job in self._running.values() if job.model is model]
        if not jobs or not all(map(self.backlog.is_candidates, jobs)):
            self.give_up(fault)
            return
        for job in jobs:
            del self._running[job.number]
        self._runs.replace_threads(len(jobs))
        return_entries([*(entry for job in jobs for entry in job.entries), *self.backlog.fail_candidate(model, fault)])
        self._start_batches()
        self._end_if_idle()

    def give_up(self, error: DeviceFailed) -> None:
        """End all entries with Closed: this process cannot use its device any more."""
        if self._lost:
            return
        self._lost = True
        log.critical("the device is given up", why=str(error))
        self.on_lost(error)
        self._abandon()

    def _abandon(self) -> None:
        """End all entries with Closed; batches that finish later are ignored."""
        running = sorted(self._running.values(), key=lambda job: job.number)
        left = [entry for job in running for entry in job.entries] + self._drain(running=True)
        self._running.clear()
        self._guard.stop()
        self.loading.close()
        if self._timer is not None:
            self._timer.cancel()
        close(left)
        self._end_if_idle()
