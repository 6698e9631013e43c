"""Handles texts that arrive one at a time: collects them into chunks for the tokenizer, and answers each by a future."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from itertools import takewhile
from typing import Any, Protocol

from ...errors import Closed, DeviceFailed, ModelFailed, describe_origin
from ...model.inputs import Input
from ...model.texts.long_texts import Windows
from ..batcher import Batcher
from ..queues.entry import Entry

CHUNK = 256
_PLAIN = "a"
_PLAIN_AND_LONG = "a " * 2000
"""More tokens than a model's limit, so that it is split into windows."""


class Encodes(Protocol):
    """A model that tokenises."""

    def encode(self, texts: Sequence[Input], /) -> Sequence[Any]: ...
    def encode_windows(self, texts: Sequence[Input], windows: Sequence[Windows | None], /) -> Sequence[Any]: ...


class Callers:
    """The callers that await one answer each. It is the sink of its entries; an entry's context is the caller's future.

    Invariant: at most `most` entries are queued; other callers wait for their turn. While one chunk is tokenised, the next
    one is collected.
    """

    def __init__(
        self,
        tokenizer: Executor,
        batcher: Batcher,
        most: int,
        renew: Callable[[Entry], None] = lambda entry: None,
    ) -> None:
        """`renew` assigns the serving model to an entry, or raises the error for its caller."""
        self._renew = renew
        self._tokenizer = tokenizer
        self._batcher = batcher
        self._loop = asyncio.get_running_loop()
        self._turn = asyncio.Semaphore(most)
        self._gathered: list[Entry] = []
        self._chunk: list[Entry] = []
        self._encoding: asyncio.Future[list[Any]] | None = None
        self._closed = False

    async def answer(self, entry: Entry) -> Entry:
        """Return the entry with outputs or an error; its `model` encodes and answers it. Cancelling the caller cancels only
        this entry.
        """
        async with self._turn:
            if self._closed:
                raise Closed("the engine is not running")
            answered = entry.context = self._loop.create_future()
            self._gathered.append(entry)
            if len(self._gathered) == 1:
                self._loop.call_soon(self._encode_next)  # callers of the same loop iteration share the chunk
            try:
                await answered
            except asyncio.CancelledError:
                entry.cancelled = True
                raise
        return entry

    def deliver(self, entries: list[Entry]) -> None:
        """Wake the callers, which read their entries."""
        for entry in entries:
            if not entry.context.done():
                entry.context.set_result(None)

    def take_back(self, entries: list[Entry]) -> None:
        """Encode entries again for the serving model."""
        for entry in entries:
            entry.error = None
            try:
                self._renew(entry)
            except Exception as error:  # noqa: BLE001 - a caller's function is asked, too
                self._fail([entry], error)
            else:
                self._gathered.append(entry)
        self._encode_next()

    async def finish_encoding(self, budget_s: float) -> None:
        """Refuse new callers, and wait until all entries are submitted to the batcher, for at most `budget_s`."""
        self._closed = True
        with suppress(TimeoutError):
            async with asyncio.timeout(budget_s):
                while self._encoding is not None or self._gathered:
                    if self._encoding is not None:
                        await asyncio.wait([self._encoding])
                    else:
                        await asyncio.sleep(0)

    def close(self) -> None:
        """End the entries that are not submitted to the batcher with Closed, even if they are being tokenised."""
        self._closed = True
        self._fail(self._chunk + self._gathered, Closed("stopped before the model answered"))
        self._gathered = []

    def _encode_next(self) -> None:
        self._gathered = [entry for entry in self._gathered if not entry.cancelled]
        if self._encoding is not None or not self._gathered:
            return
        model: Encodes = self._gathered[0].model
        same = takewhile(lambda entry: entry.model is model, self._gathered[:CHUNK])
        self._chunk = list(same)
        del self._gathered[: len(self._chunk)]
        texts = [entry.text for entry in self._chunk]
        self._encoding = self._loop.run_in_executor(self._tokenizer, _encode_each, model, texts)
        self._encoding.add_done_callback(self._submit)

    def _submit(self, done: asyncio.Future[list[Any]]) -> None:
        self._encoding = None
        chunk, self._chunk = self._chunk, []
        closed = Closed("stopped before the model answered")
        results = [closed] * len(chunk) if done.cancelled() else _find_results(done, len(chunk))
        ready: list[Entry] = []
        again: list[Entry] = []
        if broken := next((result for result in results if isinstance(result, DeviceFailed)), None):
            results = [closed] * len(chunk)
            self._batcher.fail_version(chunk[0].model, broken)
        for entry, result in zip(chunk, results, strict=True):
            if entry.variant == "candidate" and self._must_renew(entry, result):
                again.append(entry)
            elif isinstance(result, Exception):
                self._fail([entry], result)
            else:
                entry.encoded = result
                ready.append(entry)
        try:
            self._batcher.submit(ready)
        except Closed as error:
            self._fail(ready, error)
        self.take_back(again)

    def _must_renew(self, entry: Entry, result: Any) -> bool:
        """Return whether a candidate cannot answer: it cannot tokenise the text, or has left meanwhile."""
        return isinstance(result, Exception) or not self._batcher.backlog.policy.is_loaded(entry.model)

    def _fail(self, entries: list[Entry], error: Exception) -> None:
        for entry in entries:
            entry.error = error
        self.deliver(entries)


def _find_results(done: asyncio.Future[list[Any]], count: int) -> list[Any]:
    """Return what a chunk gave by text; the tokenizer that did not come back is the error of all."""
    error = done.exception()
    return done.result() if error is None else [error] * count


def _encode_each(model: Encodes, texts: list[Input]) -> list[Any]:
    """Tokenise a chunk; if that fails, text by text, so that only the causing text fails. Runs in the thread."""
    try:
        return [*encode(model, texts)]
    except DeviceFailed as error:
        return [error] * len(texts)
    except Exception:  # noqa: BLE001
        return [_encode_or_error(model, text) for text in texts]


def _encode_or_error(model: Encodes, text: Input) -> Any:
    try:
        return encode(model, [text])[0]
    except Exception as error:  # noqa: BLE001
        return error


def encode(model: Encodes, texts: Sequence[Input], windows: Sequence[Windows | None] | None = None) -> Sequence[Any]:
    """Tokenise a chunk, with its long texts split into `windows` if given.

    An error of a text is raised unchanged; a panic of the library, which is a BaseException, is raised as ModelFailed.
    DeviceFailed is raised when not even a plain text can be tokenised: the tokenizer of this process is broken.
    """
    try:
        return _encode(model, texts, windows)
    except BaseException as error:
        _refuse_broken(model, windows)
        if isinstance(error, Exception):
            raise
        raise ModelFailed(f"the tokenizer failed: {type(error).__name__}") from error


def _encode(model: Encodes, texts: Sequence[Input], windows: Sequence[Windows | None] | None) -> Sequence[Any]:
    return model.encode(texts) if windows is None else model.encode_windows(texts, windows)


def _refuse_broken(model: Encodes, windows: Sequence[Windows | None] | None) -> None:
    """Raise DeviceFailed when plain texts cannot be tokenised either, without windows and with each kind of windows."""
    ways = [None, *dict.fromkeys(windows or ())]
    try:
        _encode(model, [_PLAIN], None)
        _encode(model, [_PLAIN_AND_LONG] * len(ways), ways)
    except BaseException as error:
        why = f"the tokenizer fails on a plain text too: {describe_origin(error)}"
        raise DeviceFailed(why, lost=True) from error
