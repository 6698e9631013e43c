"""The driver of the batch policy: runs batches in threads of its own and brings every answer back to the event loop."""

import asyncio
import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, NamedTuple, Protocol

from .batch_policy import Batch, BatchLimits, BatchPolicy, Entry, Sink
from .errors import Closed, ModelFailed

Outputs = dict[str, dict[str, Any]]


class BatchModel(Protocol):
    """What the batcher needs of a model. Both methods are called in its threads, several at once."""

    def run(self, batch: Sequence[Any], /) -> Any: ...

    def decode(
        self,
        logits: Any,
        batch: Sequence[Any],
        texts: Sequence[str],
        wanted: Sequence[tuple[str, ...]],
        thresholds: Mapping[str, Any] | None = None,
    ) -> list[Outputs]: ...


class BatchObserver(Protocol):
    """Told of every batch that was run, on the event loop."""

    def batch(self, rows: int, tokens: int, queue_seconds: list[float], run_seconds: float) -> None:
        """`queue_seconds`: each row's wait until its run began. `run_seconds`: spent in `model.run`."""


class Answers(NamedTuple):
    """What came of a batch: per row its outputs or None, and the errors by row. Made in a thread, applied on the loop."""

    outputs: list[Outputs | None]
    errors: dict[int, Exception]
    run_seconds: float


class Batcher:
    """Owns the queue and the threads that run the model. Lives on one event loop; only `run` and `decode` leave it.

    Always true: every entry that was submitted is delivered once to its sink, with outputs or an error, unless it was
    cancelled; what happens to one entry changes nothing for its neighbours; a batch is closed when a thread is free for
    it and not before. Nothing is awaited, locked or logged for a single entry.
    """

    def __init__(
        self,
        model: BatchModel,
        limits: BatchLimits,
        *,
        observer: BatchObserver | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.model = model
        """Answers the entries that name no model of their own."""
        self._policy = BatchPolicy(limits)
        self._observer = observer
        self._clock = clock
        self._work: SimpleQueue[Batch | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._running: dict[int, Batch] = {}
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

    def start(self) -> None:
        """Start the threads; call it on the event loop that will call everything else."""
        self._loop = asyncio.get_running_loop()
        for number in range(self._policy.limits.max_in_flight):
            # Daemons: a forward pass that never ends must not keep the process from ending.
            thread = threading.Thread(target=self._serve, name=f"murmura-run-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def submit(self, entries: Iterable[Entry]) -> None:
        """Queue tokenised entries. Never waits: who submits looks at `queued_tokens` and `on_room`.

        Raises Closed, and takes none of them, when the batcher is stopping or not started.
        """
        if self._closing or not self._threads:
            raise Closed("the batcher is not running")
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
            for _ in self._threads:
                self._work.put(None)
            self._threads.clear()

    # -- on the event loop -------------------------------------------------------------------------------------------

    def _start_batches(self) -> None:
        now = math.inf if self._closing else self._clock()
        queued = self._policy.queued_tokens
        while (batch := self._policy.take(now, len(self._running))) is not None:
            self._running[id(batch)] = batch
            self._work.put(batch)
        self._wake_later(now)
        if self._policy.queued_tokens < queued:
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

    def _finished(self, batch: Batch, answers: Answers, began_at: float) -> None:
        if self._running.pop(id(batch), None) is None:
            return  # abandoned by stop(): its entries have been answered
        self._start_batches()  # before delivery: the device is waiting, and sinks take their time
        entries = batch.entries
        for entry, outputs in zip(entries, answers.outputs, strict=True):
            entry.outputs = outputs
        for row, error in answers.errors.items():
            entries[row].error = error
        self._deliver(entries)
        if self._observer is not None:
            waits = [began_at - entry.arrived for entry in entries]
            self._guarded(self._observer.batch, len(entries), batch.tokens, waits, answers.run_seconds)
        if self._idle is not None and not self._running and not self._idle.done():
            self._idle.set_result(None)

    def _deliver(self, entries: Iterable[Entry]) -> None:
        by_sink: dict[int, tuple[Sink, list[Entry]]] = {}
        for entry in entries:
            if entry.cancelled:
                continue
            sink = entry.sink
            group = by_sink.get(id(sink))
            if group is None:
                by_sink[id(sink)] = (sink, [entry])
            else:
                group[1].append(entry)
        for sink, group_entries in by_sink.values():
            self._guarded(sink.deliver, group_entries)

    def _abandon(self) -> None:
        """Answer everything that is still here with Closed; batches that come back later are ignored."""
        left = [entry for batch in self._running.values() for entry in batch.entries] + self._policy.drain()
        self._running.clear()
        if self._timer is not None:
            self._timer.cancel()
        for entry in left:
            entry.error = Closed("stopped before the model answered")
        self._deliver(left)

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

    def _serve_one(self, batch: Batch | None) -> bool:
        if batch is None:
            return False
        began_at = self._clock()
        answers = self._answer(batch.entries)
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._finished, batch, answers, began_at)
        return True

    def _answer(self, entries: list[Entry]) -> Answers:
        """Run a batch; if that fails run it once more record by record, so that only the guilty one suffers."""
        try:
            outputs, run_seconds = self._run(entries)
            return Answers([*outputs], {}, run_seconds)
        except BaseException:  # noqa: BLE001 - whatever it was, the callers are waiting
            return self._answer_one_by_one(entries)

    def _answer_one_by_one(self, entries: list[Entry]) -> Answers:
        answers: list[Outputs | None] = [None] * len(entries)
        errors: dict[int, Exception] = {}
        run_seconds = 0.0
        for row, entry in enumerate(entries):
            if entry.cancelled:
                continue
            try:
                (answers[row],), seconds = self._run([entry])
                run_seconds += seconds
            except BaseException as error:  # noqa: BLE001
                errors[row] = _as_model_failed(error)
        return Answers(answers, errors, run_seconds)

    def _run(self, entries: list[Entry]) -> tuple[list[Outputs], float]:
        encoded = [entry.encoded for entry in entries]
        began = time.perf_counter()
        model = entries[0].model or self.model
        logits = model.run(encoded)
        seconds = time.perf_counter() - began
        outputs = self._decode(model, logits, encoded, entries)
        if len(outputs) != len(entries):
            raise ModelFailed(f"the model gave {len(outputs)} answers for {len(entries)} texts")
        return outputs, seconds

    def _decode(self, model: BatchModel, logits: Any, encoded: list[Any], entries: list[Entry]) -> list[Outputs]:
        """Decode the rows that share thresholds together: almost always all rows at once."""
        texts = [entry.text for entry in entries]
        shared = {id(entry.thresholds): entry.thresholds for entry in entries}
        if len(shared) == 1:
            (thresholds,) = shared.values()
            return model.decode(logits, encoded, texts, [entry.tasks for entry in entries], thresholds)
        answers: list[Outputs] = [{}] * len(entries)
        for key, thresholds in shared.items():
            wanted = [entry.tasks if id(entry.thresholds) == key else () for entry in entries]
            decoded = model.decode(logits, encoded, texts, wanted, thresholds)
            answers = [new if mine else old for old, new, mine in zip(answers, decoded, wanted, strict=True)]
        return answers


def _as_model_failed(error: BaseException) -> ModelFailed:
    if isinstance(error, ModelFailed):
        return error
    failed = ModelFailed(f"the forward pass failed: {type(error).__name__}: {error}")
    failed.__cause__ = error
    return failed
