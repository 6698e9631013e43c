"""The thread that tokenises for all versions: a chunk that does not end is left to its thread, and a new one goes on."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from queue import SimpleQueue
from typing import Any, Final, ParamSpec, TypeVar

from ...errors import DeviceFailed

DEADLINE_S: Final = 30.0
"""Of a chunk; texts take milliseconds, one of a megabyte about a second."""
S_PER_MEGABYTE: Final = 10.0
"""Added for the length of its texts."""
_CHECK_S: Final = 1.0

P = ParamSpec("P")
T = TypeVar("T")


class TokenizerThread(Executor):
    """Runs work one after the other. Work past its deadline fails with DeviceFailed; its thread ends when it comes back.

    A pattern with catastrophic backtracking never comes back, and such work cannot be terminated: the threads are daemons.
    """

    def __init__(self, deadline_s: float | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        """`deadline_s`: of a chunk of short texts; default: `DEADLINE_S`."""
        self._deadline_s, self._clock = DEADLINE_S if deadline_s is None else deadline_s, clock
        self._work: SimpleQueue[_Work | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._running: _Work | None = None
        self._closed = threading.Event()
        self._is_watched = False
        self._start()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        """Queue work. RuntimeError after `shutdown`."""
        if self._closed.is_set():
            raise RuntimeError("the tokenizer's thread has ended")
        future: Future[T] = Future()
        self._work.put(_Work(future, lambda: fn(*args, **kwargs), count_characters(args)))
        return future

    def watch(self) -> None:
        """Give work its deadlines from now on: what is measured at start takes as long as it takes."""
        if not self._is_watched:
            self._is_watched = True
            threading.Thread(target=self._watch, name="murmura-tokenize-watch", daemon=True).start()

    def end_overdue(self) -> bool:
        """Fail the work that runs if it is past its deadline; returns whether it was."""
        with self._lock:
            work = self._running
            if work is None or self._clock() - work.began < (deadline_s := self._find_deadline(work)):
                return False
            self._running = None
        self._start()
        work.future.set_exception(DeviceFailed(f"the tokenizer did not come back within {deadline_s:.3g} s", lost=True))
        return True

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the thread after its current work. It is not waited for; what is queued is cancelled if wanted."""
        self._closed.set()
        while cancel_futures and not self._work.empty():
            if (work := self._work.get()) is not None:
                work.future.cancel()
        self._work.put(None)

    def _find_deadline(self, work: "_Work") -> float:
        return self._deadline_s + S_PER_MEGABYTE * work.characters / 1e6

    def _start(self) -> None:
        threading.Thread(target=self._serve, name="murmura-tokenize", daemon=True).start()

    def _watch(self) -> None:
        while not self._closed.wait(min(self._deadline_s / 4, _CHECK_S)):
            self.end_overdue()

    def _serve(self) -> None:
        # A separate method for each piece: an idle thread must not keep the last texts, and their model, alive.
        while self._serve_one(self._work.get()):
            pass

    def _serve_one(self, work: "_Work | None") -> bool:
        if work is None:
            return False
        if not work.future.set_running_or_notify_cancel():
            return True
        with self._lock:
            work.began = self._clock()
            self._running = work
        result, error = None, None
        try:
            result = work.call()
        except BaseException as raised:  # noqa: BLE001 - a panic of the tokenizer is not an Exception
            error = raised
        with self._lock:
            if self._running is not work:
                return False  # it was past its deadline: another thread goes on
            self._running = None
        if error is not None:
            work.future.set_exception(error)
        else:
            work.future.set_result(result)
        return True


class _Work:
    __slots__ = ("began", "call", "characters", "future")

    def __init__(self, future: "Future[Any]", call: Callable[[], Any], characters: int) -> None:
        self.future, self.call, self.characters, self.began = future, call, characters, 0.0


def count_characters(given: Any) -> int:
    """Return the length of all texts in nested lists and tuples."""
    if isinstance(given, str):
        return len(given)
    return sum(map(count_characters, given)) if isinstance(given, (list, tuple)) else 0
