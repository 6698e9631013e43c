"""The interface of the model for agents: texts in, predictions out; batches and threads are internal."""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ..agent.result_envelope import Variant
from ..cores import count_cores
from ..errors import Closed, DeviceFailed, ModelFailed, SetupError
from ..model.inputs import Input
from ..model.pass_time import PassTime
from ..model.texts.long_texts import Windows
from .backlog import OnFailed
from .batcher import Batcher
from .callers.model_calls import ModelCalls
from .callers.request_checks import EngineModel
from .callers.sides import CandidateSide
from .callers.single_callers import Callers, encode
from .callers.tokenizer_thread import TokenizerThread
from .costs.pass_costs import PassCosts
from .device.breaker import BreakerLimits
from .device.device_slots import STEPS_BETWEEN_PASSES
from .device.observer import BatchObserver
from .device.runs import ON_CPU
from .engine_readings import EngineReadings
from .queues.entry import Entry
from .queues.policy import MAX_HOLD_S, BatchLimits
from .queues.reply_places import ReplyPlaces
from .queues.version_queue import ROWS_ON_ACCELERATOR, ROWS_ON_CPU, SHORTEST_DEADLINE_S

ACCELERATOR_IN_FLIGHT = 2
MAX_CALLERS = 1024


class Engine(ModelCalls, EngineReadings):
    """Owns the batcher and the tokeniser's thread for one model on one device. Used on one event loop.

    Invariants: a waiting caller gets a result, an error or its own cancellation; failures and cancellations do not affect
    other callers; tokenising and forward passes never run on the event loop.

    On a CPU up to `max_in_flight` runs (default: the cores available to the process) are started with any batch. On an
    accelerator one is, and further ones (`max_in_flight`, default 2) only with a full batch. `padded`: the model's graph
    pads, so a batch costs its rows times its longest text, and the budget bounds that.
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
        max_hold_ms: float = MAX_HOLD_S * 1000,
        max_callers: int = MAX_CALLERS,
        padded: bool = False,
        observer: BatchObserver | None = None,
        clock: Callable[[], float] = time.perf_counter,
        shortest_deadline_s: float = SHORTEST_DEADLINE_S,
        breaker: BreakerLimits | None = None,
        reply_rows: int | None = None,
        steps_between_passes: int = STEPS_BETWEEN_PASSES,
        name: str = "",
        weight: float = 1.0,
        beside: "Engine | None" = None,
    ) -> None:
        """`shortest_deadline_s`: minimum deadline of a forward pass; a slow model gets 20 times its measured time.

        `reply_rows`: replies that are decoded together (default: 32 on a CPU, 256 on an accelerator).
        `steps_between_passes`: maximum number of decoder steps between two passes while texts wait. `max_hold_ms`: how long a
        batch that is not full waits while another version has work.

        `beside`: the engine of another model in the process, whose device, threads and limits in flight this one shares. It is
        started first and stopped last. `weight`: the share of the device time of the model `name` while others have work.
        """
        super().__init__(model)
        on_cpu = model.device == ON_CPU
        most = max_in_flight or (count_cores() if on_cpu else ACCELERATOR_IN_FLIGHT)
        self._most, self._eager = most, eager_in_flight or (most if on_cpu else 1)
        self.candidate: EngineModel | None = None
        self.reply_rows = reply_rows or (ROWS_ON_CPU if on_cpu else ROWS_ON_ACCELERATOR)
        """Maximum number of replies that are decoded together."""
        self._costs = PassCosts(
            token_budget,
            max_rows,
            padded=padded,
            deadline_s=shortest_deadline_s,
            name=name,
            weight=weight,
            reply_rows=self.reply_rows,
        )
        self._max_rows, self._max_wait_s, self._max_hold_s = max_rows, max_wait_ms / 1000, max_hold_ms / 1000
        self._steps_between_passes = steps_between_passes
        self.places = ReplyPlaces(self.reply_rows)
        self._max_callers = max_callers
        self.observer, self._clock = observer, clock
        self._beside = beside
        self._tokenizer: TokenizerThread = beside._tokenizer if beside else TokenizerThread()
        self._batcher: Batcher | None = None
        self._callers: Callers | None = None
        self._breaker = breaker
        self.on_trouble: Callable[[str | None], None] = lambda why: None
        """Called with the reason when the device starts to fail, and with None when it answers again."""
        self.on_lost: Callable[[DeviceFailed], None] = lambda error: None
        """Called when the device is given up, before all waiting callers end with Closed."""

    @property
    def most_replies(self) -> int:
        """Maximum number of replies of a task that take memory: with a row, or on their way to one."""
        return self.reply_rows + self.places.count

    async def start(self) -> None:
        """Warm the model up, measure the token budget unless it was given, and open. Takes about a second.

        Raises SetupError when the model cannot run a batch of plain texts.
        """
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._tokenizer, self._costs.measure, self.model)
        except ModelFailed as error:
            raise SetupError(f"model {self.model.manifest.name}: its first forward pass failed: {error}") from error
        self._batcher = self._share_batcher() if self._beside else self._start_batcher()
        self._callers = Callers(self._tokenizer, self._batcher, self._max_callers, self.renew)
        self._tokenizer.watch()

    def _share_batcher(self) -> Batcher:
        assert self._beside is not None
        batcher = self._beside._batcher
        if batcher is None:
            raise Closed("the engine of the other model is not running")
        if self.model.device != self._beside.model.device:
            raise SetupError(
                f"model {self.model.manifest.name} runs on {self.model.device}, {self._beside.model.manifest.name} on "
                f"{self._beside.model.device}: the models of a process share one device"
            )
        batcher.load(self.model, self._costs.terms)
        return batcher

    def _start_batcher(self) -> Batcher:
        limits = BatchLimits(
            token_budget=self.token_budget,
            max_rows=self._max_rows,
            max_cells=self._costs.terms.max_cells,
            max_wait_s=self._max_wait_s,
            eager_in_flight=self._eager,
            max_in_flight=self._most,
            max_hold_s=self._max_hold_s,
        )
        batcher = Batcher(
            self.model,
            limits,
            terms=self._costs.terms,
            observer=self.observer,
            clock=self._clock,
            breaker=self._breaker,
            steps_between_passes=self._steps_between_passes,
        )
        batcher.guard.on_change = self._change
        batcher.on_lost = self._lose
        batcher.start()
        return batcher

    async def stop(self, budget_s: float = 20.0) -> None:
        """Refuse new texts, answer the waiting ones for at most `budget_s`, then end the rest with Closed."""
        batcher, self._batcher = self._batcher, None
        callers, self._callers = self._callers, None
        deadline = time.monotonic() + budget_s
        try:
            if callers is not None:
                await callers.finish_encoding(budget_s)
        finally:
            try:
                if batcher is not None and self._beside is None:
                    await batcher.stop(max(deadline - time.monotonic(), 0.0))
            finally:
                if callers is not None:
                    callers.close()
                if self._beside is None:
                    self._tokenizer.shutdown(wait=False, cancel_futures=True)

    def find_callers(self) -> Callers:
        if self._callers is None:
            raise Closed("the engine is not running")
        return self._callers

    def on_side(self, variant: Variant) -> "Engine | CandidateSide":
        """Return what answers a side of an experiment; without a candidate that is the serving version."""
        return CandidateSide(self) if variant == "candidate" else self

    def swap(self, model: EngineModel, passes: PassTime | None = None) -> None:
        """Replace the serving model. Load, warm up and check the new one before.

        `passes`: what was measured of them. Each version has a deadline of its own by that.

        Texts that were checked or encoded before are answered by the old model in separate batches; it is freed when its
        last batch ends. While the device fails, waiting entries are returned to their sinks and encoded for the new model.
        """
        before, self.model = self.model, model
        self.candidate = None if model is self.candidate else self.candidate
        self._costs.replace(model, passes)
        if self._batcher is not None:
            self._batcher.swap(before, model, self._costs.terms)

    def load_candidate(self, model: EngineModel, passes: PassTime | None, on_failed: OnFailed) -> None:
        """Load a second version. What it fails on returns to its sink, for the serving one.

        `passes`: what was measured of them. `on_failed` is called when it has failed and was unloaded.
        """
        if self._batcher is None:
            raise Closed("the engine is not running")
        if self.candidate is not None:
            raise ValueError("a candidate is loaded already: drop it first")

        def forget(fault: DeviceFailed) -> None:
            self.candidate = None
            on_failed(fault)

        self.candidate = model
        self._batcher.load(model, self._costs.estimate(model, passes), forget)

    def drop_candidate(self) -> None:
        """Unload the second version: what waits for it returns to its sink, for the serving one."""
        if self._batcher is not None and self.candidate is not None:
            self._batcher.drop_candidate(self.candidate)
        self.candidate = None

    async def encode(
        self,
        texts: Sequence[Input],
        model: EngineModel | None = None,
        windows: Sequence[Windows | None] | None = None,
    ) -> Sequence[Any]:
        """Tokenise a chunk in the tokeniser's thread, in turn with other chunks. Call `check` on the texts before.

        `model` (default: the serving one) must be the `model` of the entries made of the result. `windows`: for each text
        how to split it above the model's limit; None: only its beginning is read. Raises the error of a text, or
        DeviceFailed when not even a plain text can be tokenised or the tokenizer does not come back; then a candidate is unloaded,
        and without one the device is given up.
        """
        if self._batcher is None:
            raise Closed("the engine is not running")
        loop, model = asyncio.get_running_loop(), model or self.model
        try:
            return await loop.run_in_executor(self._tokenizer, encode, model, texts, windows)
        except DeviceFailed as error:
            if self._batcher is not None:
                self._batcher.fail_version(model, error)
            raise

    def submit(self, entries: Iterable[Entry]) -> None:
        """Queue tokenised entries, first in, first out, without waiting. Raises Closed when not running."""
        if self._batcher is None:
            raise Closed("the engine is not running")
        self._batcher.submit(entries)

    def close_waiting(self) -> None:
        """While the device fails, end all waiting entries with Closed; otherwise do nothing."""
        if self._batcher is not None:
            self._batcher.close_waiting()

    def on_room(self, callback: Callable[[], None]) -> None:
        """Call `callback` on the loop whenever `queued_tokens` has decreased. Only after `start`."""
        if self._batcher is None:
            raise Closed("the engine is not running")
        self._batcher.on_room(callback)

    def _change(self, why: str | None) -> None:
        self.on_trouble(why)

    def _lose(self, error: DeviceFailed) -> None:
        self.on_lost(error)
