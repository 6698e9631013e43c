"""Runs a batch in a thread, and finds the cause of a failure: the device, or certain records."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from threading import get_ident
from types import MappingProxyType
from typing import Any, Final, NamedTuple, Protocol

from ...errors import DeviceFailed, ModelFailed
from ...model.device_faults import model_error
from ...model.inputs import Input
from ..queues.entry import Entry
from ..queues.reply_lanes import ReplyLane, StepResult
from ..queues.version_queue import VersionTerms

Outputs = dict[str, dict[str, Any]]


ON_CPU: Final = "cpu"
NO_MEMORIES: Final[Mapping[int, dict[str, Any]]] = MappingProxyType({})


class BatchModel(Protocol):
    """A model that answers batches. All methods are called concurrently from several threads."""

    def run(self, batch: Sequence[Any], /) -> Any: ...

    def decode(
        self,
        logits: Any,
        batch: Sequence[Any],
        texts: Sequence[Input],
        wanted: Sequence[tuple[str, ...]],
        thresholds: Mapping[str, Any] | None = None,
    ) -> list[Outputs]: ...

    @property
    def decoders(self) -> Mapping[str, Any]:
        """The decoders of its tasks that generate."""

    @property
    def device(self) -> str: ...

    def remember(self, logits: Any, wanted: Sequence[tuple[str, ...]], /) -> dict[int, dict[str, Any]]:
        """Return what the replies of a batch are decoded from, by row and task."""

    def check_device(self) -> None:
        """Run the reference sample; raises unless its outputs are as stored."""

    def terminate(self, thread: int, /) -> None:
        """Terminate the run of a thread."""


class Answers(NamedTuple):
    """The result of a batch. Created in a thread, applied on the loop."""

    outputs: list[Outputs | None]
    """By row."""
    errors: dict[int, Exception]
    """By row: failures caused by that record."""
    run_seconds: float
    fault: DeviceFailed | None = None
    """The device failed: rows without outputs and error must be run again."""
    memories: Mapping[int, dict[str, Any]] = NO_MEMORIES
    """By row and task: what the replies are decoded from that its outputs still lack."""
    device_s: float | None = None
    """Device time of the pass; None where the batch was split."""


class _Answered(NamedTuple):
    """What a run gave: by row."""

    outputs: list[Outputs]
    memories: dict[int, dict[str, Any]]
    seconds: float
    device_s: float


class DeviceTimer:
    """Measures the device time of runs, in their threads.

    A CPU's is the time of the thread, as in the calibration. An accelerator does one run after the other: that of a run
    begins with it, or when the run before it ended, so that a short run does not count its wait for a long one.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._free_at = -math.inf

    def begin(self, device: str) -> float:
        """Return what to pass to `end`."""
        return time.thread_time() if device == ON_CPU else self._clock()

    def end(self, device: str, began: float) -> float:
        """Return the device time of a run that began then, s."""
        if device == ON_CPU:
            return time.thread_time() - began
        now = self._clock()
        began, self._free_at = max(began, self._free_at), now
        return max(now - began, 0.0)


class _Run:
    __slots__ = ("began", "ended", "is_stuck", "model", "seconds")

    def __init__(self, model: BatchModel, seconds: float) -> None:
        self.model = model
        self.began = time.monotonic()
        self.seconds = seconds
        """Time limit."""
        self.ended = False
        """Whether it was past its deadline and has been terminated."""
        self.is_stuck = False
        """Whether it has not ended at twice its deadline."""


class BatchRuns:
    """Runs batches for the threads of a batcher. `answer` and `check` are called in threads, the others on the event loop.

    Invariants:
    - a record fails only when it has failed twice alone and the reference sample has passed in between;
    - no batch raises: every error becomes part of the answers.
    """

    def __init__(self) -> None:
        self._timer = DeviceTimer()
        self._running: dict[int, _Run] = {}

    def answer(self, model: BatchModel, entries: list[Entry], terms: VersionTerms, *, suspect: bool = False) -> Answers:
        """Run a batch. If it fails and the reference sample passes, search for the records that cause it.

        A pass with more tokens than a full batch has by `terms` (one text in windows) gets proportionally longer.
        `suspect`: the device failed on this batch before, and the reference sample has passed since. Then even a run that
        is out of memory or time is split: it may succeed with fewer records.
        """
        try:
            answered = self._run(model, entries, terms)
            return Answers(
                [*answered.outputs], {}, answered.seconds, memories=answered.memories, device_s=answered.device_s
            )
        except BaseException as error:  # noqa: BLE001
            failed = _as_model_failed(error)
        fault = failed if isinstance(failed, DeviceFailed) else self.check(model, terms.deadline_s)
        if fault is not None and (fault.lost or not suspect):
            return Answers([None] * len(entries), {}, 0.0, fault)
        return self._search(model, entries, terms)

    def step(self, lane: ReplyLane, *, suspect: bool = False) -> StepResult:
        """Run a step of a lane. A reply fails when it has failed in company and alone, and the reference sample passes.

        `suspect`: see `answer`; then each reply runs on its own.
        """
        began, device_began = time.perf_counter(), self._timer.begin(lane.model.device)
        try:
            result = self._within_deadline(lane.model, lane.terms.deadline_s, lane.run_step)
            self._timer.end(lane.model.device, device_began)
        except BaseException as error:  # noqa: BLE001
            failed = _as_model_failed(error)
            fault = failed if isinstance(failed, DeviceFailed) else self.check(lane.model, lane.terms.deadline_s)
            if fault is None or (suspect and not fault.lost):
                return self._step_apart(lane, began)
            return StepResult(fault=fault)
        return self._judge(lane, result, began)

    def _step_apart(self, lane: ReplyLane, began: float) -> StepResult:
        try:
            result = self._within_deadline(lane.model, lane.terms.deadline_s, partial(lane.run_step, apart=True))
        except BaseException as error:  # noqa: BLE001
            failed = _as_model_failed(error)
            return StepResult(fault=failed if isinstance(failed, DeviceFailed) else DeviceFailed(str(failed)))
        return self._judge(lane, result, began)

    def _judge(self, lane: ReplyLane, result: StepResult, began: float) -> StepResult:
        """Return the result of a step; where replies failed and the device is the cause, they begin again."""
        result = result._replace(seconds=time.perf_counter() - began)
        failed = [entry for entry, reply in result.ended if isinstance(reply, ModelFailed)]
        fault = self.check(lane.model, lane.terms.deadline_s) if failed else None
        if fault is None:
            return result
        ended = [(entry, reply) for entry, reply in result.ended if not isinstance(reply, ModelFailed)]
        return result._replace(ended=ended, fault=fault, again=failed)

    def check(self, model: BatchModel, deadline_s: float) -> DeviceFailed | None:
        """Run the reference sample; returns the device's failure, or None when the sample passes."""
        try:
            self._within_deadline(model, deadline_s, model.check_device)
        except DeviceFailed as error:
            return error
        except BaseException as error:  # noqa: BLE001
            failed = DeviceFailed(f"the reference sample does not come out any more: {_first_line(error)}")
            failed.__cause__ = error
            return failed
        return None

    def end_overdue(self, now: float) -> list[BatchModel]:
        """Terminate runs past their deadline; returns the models of those that have not ended at twice that time, each run once.

        `now`: monotonic, s.
        """
        stuck = []
        for thread, run in list(self._running.items()):
            taken = now - run.began
            if taken >= run.seconds:
                run.ended = True
                run.model.terminate(thread)  # at each check: the last call may have come between two passes
            if taken >= 2 * run.seconds and not run.is_stuck:
                run.is_stuck = True
                stuck.append(run.model)
        return stuck

    def end_all(self) -> bool:
        """Terminate every run in flight; returns whether there was one."""
        running = list(self._running.items())
        for thread, run in running:
            run.ended = True
            run.model.terminate(thread)
        return bool(running)

    def _search(self, model: BatchModel, entries: list[Entry], terms: VersionTerms) -> Answers:
        """Bisect until failing records are alone: about 2 log2(n) runs for one among n."""
        outputs: list[Outputs | None] = [None] * len(entries)
        errors: dict[int, Exception] = {}
        memories: dict[int, dict[str, Any]] = {}
        run_seconds = 0.0
        parts = _halves(0, len(entries))
        while parts:
            begin, end = parts.pop()
            rows = [row for row in range(begin, end) if not entries[row].cancelled]
            if not rows:
                continue
            part = [entries[row] for row in rows]
            try:
                answered = self._run(model, part, terms)
            except BaseException as error:  # noqa: BLE001
                failed = _as_model_failed(error)
                if isinstance(failed, DeviceFailed) and failed.lost:
                    return Answers(outputs, errors, run_seconds, failed, memories)
                if len(rows) > 1:
                    parts += _halves(begin, end)
                    continue
                fault, verdict = self._run_alone(model, part, terms)
                if fault is not None:
                    return Answers(outputs, errors, run_seconds, fault, memories)
                if isinstance(verdict, Exception):
                    errors[rows[0]] = verdict
                    continue
                assert verdict is not None
                answered = verdict._replace(seconds=0.0)
            run_seconds += answered.seconds
            for row, answer in zip(rows, answered.outputs, strict=True):
                outputs[row] = answer
            memories |= {rows[row]: found for row, found in answered.memories.items()}
        return Answers(outputs, errors, run_seconds, memories=memories)

    def _run_alone(
        self, model: BatchModel, part: list[Entry], terms: VersionTerms
    ) -> tuple[DeviceFailed | None, _Answered | Exception | None]:
        """Decide on a record that failed alone: returns the device's fault, else the record's answer or error."""
        if (fault := self.check(model, terms.deadline_s)) is not None:
            return fault, None
        try:
            return None, self._run(model, part, terms)
        except BaseException as error:  # noqa: BLE001
            failed = _as_model_failed(error)
            return (failed, None) if isinstance(failed, DeviceFailed) and failed.lost else (None, failed)

    def _run(self, model: BatchModel, entries: list[Entry], terms: VersionTerms) -> _Answered:
        encoded = [entry.encoded for entry in entries]
        deadline_s = terms.deadline_s * max(sum(each.tokens for each in encoded) / terms.token_budget, 1.0)
        began, device_began = time.perf_counter(), self._timer.begin(model.device)
        logits = self._within_deadline(model, deadline_s, model.run, encoded)
        seconds, device_s = time.perf_counter() - began, self._timer.end(model.device, device_began)
        outputs = decode_rows(model, logits, encoded, entries)
        if len(outputs) != len(entries):
            raise ModelFailed(f"the model gave {len(outputs)} answers for {len(entries)} texts")
        memories: dict[int, dict[str, Any]] = {}
        if model.decoders:
            wanted = [entry.tasks for entry in entries]
            memories = self._within_deadline(model, deadline_s, model.remember, logits, wanted)
        return _Answered(outputs, memories, seconds, device_s)

    def _within_deadline(self, model: BatchModel, seconds: float, call: Any, *args: Any) -> Any:
        thread = get_ident()
        run = self._running[thread] = _Run(model, seconds)
        try:
            return call(*args)
        except BaseException as error:
            if run.ended:
                raise DeviceFailed(f"a forward pass was not back within {seconds:g} s") from error
            raise
        finally:
            del self._running[thread]


def _halves(begin: int, end: int) -> list[tuple[int, int]]:
    """Return the halves of a failed range, the first half last, since the next part is taken from the end."""
    if end - begin == 1:
        return [(begin, end)]
    middle = (begin + end) // 2
    return [(middle, end), (begin, middle)]


class Asked(Protocol):
    """What is asked about a text."""

    @property
    def text(self) -> Input: ...
    @property
    def tasks(self) -> tuple[str, ...]: ...
    @property
    def thresholds(self) -> Mapping[str, Any] | None: ...


def decode_rows(model: BatchModel, logits: Any, encoded: list[Any], entries: Sequence[Asked]) -> list[Outputs]:
    """Decode rows with the same thresholds together: almost always all rows at once."""
    texts = [entry.text for entry in entries]
    rows_by_thresholds: dict[int, list[int]] = {}
    for row, entry in enumerate(entries):
        rows_by_thresholds.setdefault(id(entry.thresholds), []).append(row)
    if len(rows_by_thresholds) == 1:
        return model.decode(logits, encoded, texts, [entry.tasks for entry in entries], entries[0].thresholds)
    answers: list[Outputs] = [{}] * len(entries)
    for rows in rows_by_thresholds.values():
        wanted: list[tuple[str, ...]] = [()] * len(entries)
        for row in rows:
            wanted[row] = entries[row].tasks
        decoded = model.decode(logits, encoded, texts, wanted, entries[rows[0]].thresholds)
        for row in rows:
            answers[row] = decoded[row]
    return answers


def _as_model_failed(error: BaseException) -> ModelFailed:
    return model_error(error, f"the forward pass failed: {type(error).__name__}")


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
