"""The one door for agents to the model: texts go in, predictions come out, batches and threads stay behind it."""

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import structlog

from ...schemas.deadletter import DeadLetterReason
from ...schemas.manifest import ModelManifest, TaskSpec
from ..agent.prediction import Prediction
from ..errors import Closed, DeviceFailed, ModelFailed, RecordError, SetupError
from ..model.long_texts import Windows
from .batcher import SHORTEST_DEADLINE_S, Batcher, BatchModel, BatchObserver
from .breaker import BreakerLimits
from .calibration import Calibration, calibrate, warm_up
from .policy import BatchLimits, Entry
from .single_callers import Callers, encode

ON_CPU = "cpu"
ACCELERATOR_IN_FLIGHT = 2
MAX_CALLERS = 1024
DEADLINE_RUNS = 20
"""A forward pass over a full batch may take so many times what was measured at start."""


class EngineModel(BatchModel, Protocol):
    """What the engine needs of a model; `encode` is called in the tokeniser's thread on whole chunks."""

    @property
    def device(self) -> str: ...
    @property
    def manifest(self) -> ModelManifest: ...
    @property
    def tasks(self) -> Mapping[str, TaskSpec]: ...
    def encode(self, texts: Sequence[str], /) -> Sequence[Any]: ...
    def encode_windows(self, texts: Sequence[str], windows: Sequence[Windows | None], /) -> Sequence[Any]: ...


class Checks:
    """What the engine and its fake refuse before the model sees anything, and the form in which both answer."""

    def __init__(self, model: EngineModel) -> None:
        self.model: Any = model

    def check(self, text: str, tasks: Iterable[str] | None = None) -> tuple[str, ...]:
        """Return the tasks to answer (None: all of the model's).

        Raises RecordError `unknown_task`, or `invalid` for a text that is empty or holds a lone surrogate: the
        tokenizer would fail on that for its whole chunk.
        """
        known = self.model.tasks
        wanted = tuple(known) if tasks is None else tuple(tasks)
        for number, task in enumerate(wanted, 1):
            if task not in known:
                # It may come out of a request, so it is not quoted.
                raise RecordError(
                    DeadLetterReason.UNKNOWN_TASK,
                    f"task {number} of the {len(wanted)} asked for is not one of the model's, which are {', '.join(known)}",
                )
        if not text:
            raise RecordError(DeadLetterReason.INVALID, "the text is empty")
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise RecordError(
                    DeadLetterReason.INVALID, f"the text holds a lone surrogate at character {error.start}"
                ) from None
        return wanted

    def prediction(self, outputs: dict[str, dict[str, Any]], encoded: Any, model: Any = None) -> Prediction:
        """Return outputs as agents see them; `model` is the one that gave them (default: the one that serves now)."""
        manifest = (model or self.model).manifest
        return Prediction(outputs, encoded.truncated, (manifest.name, manifest.version))


class Engine(Checks):
    """Owns the batcher and the tokeniser's thread for one model on one device. Lives on one event loop.

    Always true: a waiting caller is answered with a result, an error or its own cancellation; nobody's failure or
    cancellation touches another; tokenising and forward passes never run on the event loop.

    On a CPU up to `max_in_flight` runs (default: the cores this process may use) are started with whatever is queued.
    On an accelerator one is, and a second (`max_in_flight`, default 2) only with a full batch. `padded` says that the
    model's graph pads: then a batch costs its rows times its longest text, and that is what the budget bounds.
    """

    def __init__(
        self,
        model: EngineModel,
        *,
        max_in_flight: int | None = None,
        eager_in_flight: int | None = None,
        max_rows: int = 256,
        token_budget: int | None = None,
        max_wait_ms: float = 0.0,
        max_callers: int = MAX_CALLERS,
        padded: bool = False,
        observer: BatchObserver | None = None,
        clock: Callable[[], float] = time.perf_counter,
        shortest_deadline_s: float = SHORTEST_DEADLINE_S,
        breaker: BreakerLimits | None = None,
    ) -> None:
        """`shortest_deadline_s`: no forward pass is ended before; a slow model gets 20 times its measured time."""
        super().__init__(model)
        on_cpu = model.device == ON_CPU
        most = max_in_flight or (_own_cores() if on_cpu else ACCELERATOR_IN_FLIGHT)
        self._most, self._eager = most, eager_in_flight or (most if on_cpu else 1)
        self._max_rows, self._max_wait_s = max_rows, max_wait_ms / 1000
        self._token_budget = token_budget
        self._max_callers = max_callers
        self._padded = padded
        self._observer, self._clock = observer, clock
        self._tokenizer = ThreadPoolExecutor(1, thread_name_prefix="murmura-tokenize")
        self._batcher: Batcher | None = None
        self._callers: Callers | None = None
        self.calibration: Calibration | None = None
        """What was measured at start; None when the budget was given."""
        self._deadline_s, self._breaker = shortest_deadline_s, breaker
        self.on_trouble: Callable[[str | None], None] = lambda why: None
        """Called with the reason when the device begins to fail, and with None once it answers again."""
        self.on_lost: Callable[[DeviceFailed], None] = lambda error: None
        """Called when this process cannot use its device any more; whoever waited has been answered with Closed."""

    @property
    def trouble(self) -> str | None:
        """Why the device answers nothing now; None while it does. Texts that come meanwhile wait."""
        return self._batcher.guard.trouble if self._batcher else None

    @property
    def failed_probes(self) -> int:
        """Probes of the device that have failed since it was well."""
        return self._batcher.guard.failed_probes if self._batcher else 0

    @property
    def token_budget(self) -> int:
        """Tokens that a batch may hold. Known once the engine has started."""
        if self._token_budget is None:
            raise RuntimeError("the token budget is measured by start()")
        return self._token_budget

    @property
    def run_slots(self) -> int:
        """How many forward passes may be in flight at once."""
        return self._most

    @property
    def queued_tokens(self) -> int:
        """Tokens of the entries that are in no batch yet."""
        return self._batcher.queued_tokens if self._batcher else 0

    @property
    def queued_rows(self) -> int:
        """Entries that are in no batch yet."""
        return self._batcher.queued_rows if self._batcher else 0

    @property
    def lookahead(self) -> tuple[int, int]:
        """Tokens and rows to keep queued so that no run slot waits for its next batch: one batch.

        A batch is tokenised in a fraction of the time that it runs; whatever else is queued only adds latency. Nothing
        while the device fails.
        """
        if self.trouble is not None:
            return 0, 0
        return self.token_budget, self._max_rows

    @property
    def in_flight(self) -> int:
        """Batches that are being run."""
        return self._batcher.in_flight if self._batcher else 0

    async def start(self) -> None:
        """Warm the model up, measure the token budget unless it was given, and open. Takes about a second.

        Raises SetupError when the model cannot run a batch of plain texts.
        """
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._tokenizer, self._measure)
        except ModelFailed as error:
            raise SetupError(f"model {self.model.manifest.name}: its first forward pass failed: {error}") from error
        limits = BatchLimits(
            token_budget=self.token_budget,
            max_rows=self._max_rows,
            max_cells=self.token_budget if self._padded else 0,
            max_wait_s=self._max_wait_s,
            eager_in_flight=self._eager,
            max_in_flight=self._most,
        )
        self._batcher = Batcher(
            self.model,
            limits,
            observer=self._observer,
            clock=self._clock,
            deadline_s=self._deadline_s,
            breaker=self._breaker,
        )
        self._batcher.guard.on_change = self._change
        self._batcher.on_lost = self._lose
        self._batcher.start()
        self._callers = Callers(self._tokenizer, self._batcher, self._max_callers, self._renew)

    async def stop(self, budget_s: float = 20.0) -> None:
        """Refuse new texts, answer those that are here for at most `budget_s`, then the rest with Closed."""
        batcher, self._batcher = self._batcher, None
        callers, self._callers = self._callers, None
        deadline = time.monotonic() + budget_s
        try:
            if callers is not None:
                await callers.encoded(budget_s)
        finally:
            try:
                if batcher is not None:
                    await batcher.stop(max(deadline - time.monotonic(), 0.0))
            finally:
                if callers is not None:
                    callers.close()
                self._tokenizer.shutdown(wait=False, cancel_futures=True)

    async def predict(
        self, text: str, tasks: Iterable[str] | None = None, *, thresholds: Mapping[str, Any] | None = None
    ) -> Prediction:
        """Answer one text on `tasks` (default: all). At most `max_callers` wait inside at once, the others before it.

        Raises RecordError (see `check`), ModelFailed when the model fails on this text, Closed after `stop`.
        """
        # Checked and answered by one model, even when another takes its place before the text is encoded.
        model, wanted = self.model, self.check(text, tasks)
        if self._callers is None:
            raise Closed("the engine is not running")
        entry = await self._callers.answer(Entry(text, wanted, None, self._callers, None, thresholds, model))
        if entry.outputs is None:
            raise entry.error or Closed("stopped before the model answered")
        return self.prediction(entry.outputs, entry.encoded, entry.model)

    def swap(self, model: EngineModel) -> None:
        """Let another model answer what comes from now on.

        What was checked or encoded before is answered by the model that did so, in batches of its own, and keeps it
        alive until then: the old model is freed when its last batch ends. Load, warm up and prove the new one before.
        While the device fails, what waits is handed back to its sinks, to be encoded for the new one.
        """
        self.model = model
        if self._batcher is not None:
            self._batcher.model = model
            self._batcher.take_back()

    async def encode(
        self,
        texts: Sequence[str],
        model: EngineModel | None = None,
        windows: Sequence[Windows | None] | None = None,
    ) -> Sequence[Any]:
        """Tokenise a chunk in the tokeniser's thread, in turn with other chunks. `check` the texts before.

        `model` (default: the one that serves now) is then the `model` of the entries that are made of it. `windows` says
        of each text how it is read when it is longer than the model's limit; None: its beginning. Raises what a text
        brings about, and DeviceFailed when not even a plain one can be tokenised.
        """
        if self._batcher is None:
            raise Closed("the engine is not running")
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._tokenizer, encode, model or self.model, texts, windows)
        except DeviceFailed as error:
            if self._batcher is not None:
                self._batcher.give_up(error)
            raise

    def submit(self, entries: Iterable[Entry]) -> None:
        """Queue tokenised entries, first in, first out. Never waits; raises Closed when not running."""
        if self._batcher is None:
            raise Closed("the engine is not running")
        self._batcher.submit(entries)

    def let_go(self) -> None:
        """While the device fails, answer what waits for it with Closed, and do nothing otherwise."""
        if self._batcher is not None:
            self._batcher.let_go()

    def on_room(self, callback: Callable[[], None]) -> None:
        """Call `callback` on the loop whenever `queued_tokens` has dropped. Only after `start`."""
        if self._batcher is None:
            raise Closed("the engine is not running")
        self._batcher.on_room(callback)

    def _measure(self) -> None:
        log = structlog.get_logger(__name__)
        if self._token_budget is not None:
            token_s = warm_up(self.model, max_rows=self._max_rows)
            self._allow(token_s * self._largest_batch(self._token_budget))
            return
        self.calibration = calibrate(self.model, max_rows=self._max_rows, padded=self._padded)
        self._token_budget = self.calibration.token_budget
        self._allow(self.calibration.seconds(self._largest_batch(self._token_budget)))
        log.info("calibrated", device=self.model.device, **self.calibration.figures())

    def _largest_batch(self, budget: int) -> int:
        longest: int = self.model.manifest.limits.max_tokens
        return max(budget, longest)

    def _allow(self, full_batch_s: float) -> None:
        self._deadline_s = max(self._deadline_s, DEADLINE_RUNS * full_batch_s)

    def _change(self, why: str | None) -> None:
        self.on_trouble(why)

    def _lose(self, error: DeviceFailed) -> None:
        self.on_lost(error)

    def _renew(self, entry: Entry) -> None:
        """Let the model that serves now answer a caller; raises RecordError when it cannot."""
        self.check(entry.text, entry.tasks)
        entry.model = self.model


def _own_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
