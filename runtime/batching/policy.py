"""Decides when batches are closed. Pure: the caller passes the time and the number of runs in flight, and starts them."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from ...schemas.acts import Act, Utterance
from ..model.generated import Generated
from ..model.inputs import Input
from .reply_places import Place

CELLS_PER_TOKEN = 4


class Sink(Protocol):
    """Receives answered entries. Its methods are called on the event loop, once per batch, and must not block."""

    def deliver(self, entries: "list[Entry]") -> None:
        """Receive answered entries in order of arrival, each with `outputs` or `error`, without cancelled ones."""

    def take_back(self, entries: "list[Entry]") -> None:
        """Encode and submit entries again for the serving model: their own model failed on this device."""


class ReplyRequest(NamedTuple):
    """What a reply is worded from."""

    turns: Sequence[Utterance]
    acts: Sequence[Act]
    slots: frozenset[str] | None
    """The slots that it may name; None: all of the task."""
    is_forbidden: Callable[[str], bool] | None = None
    """Which other pieces it must not have."""


class Entry:
    """One text (or two, read together) to answer. `outputs` and `error` are set on the event loop, just before delivery.

    The submitter may set `cancelled` at any time: then the entry is left out of the next batch, or its answer is dropped.
    """

    __slots__ = (
        "arrived",
        "cancelled",
        "context",
        "encoded",
        "error",
        "generated",
        "model",
        "outputs",
        "place",
        "replies_left",
        "reply",
        "sink",
        "tasks",
        "text",
        "thresholds",
    )

    def __init__(
        self,
        text: Input,
        tasks: tuple[str, ...],
        encoded: Any,
        sink: Sink,
        context: Any = None,
        thresholds: Mapping[str, Any] | None = None,
        model: Any = None,
        reply: ReplyRequest | None = None,
        place: Place | None = None,
    ) -> None:
        self.text = text
        self.tasks = tasks
        self.encoded = encoded
        self.sink = sink
        self.context = context
        """An object of the sink, not used here."""
        self.thresholds = thresholds
        """Overrides by task. Share one mapping between entries: rows with the same object are decoded together."""
        self.model = model
        """The model that encoded it and must answer it; a batch has one model. A waiting entry keeps it alive."""
        self.reply = reply
        """What a reply is worded from, where one is asked for on its own."""
        self.place = place
        """Given back after the first step of its first reply, held again where its replies begin anew."""
        self.cancelled = False
        self.arrived = 0.0
        self.outputs: dict[str, dict[str, Any]] | None = None
        self.error: Exception | None = None
        self.replies_left = 0
        """Number of tasks that generate whose replies have not ended."""
        self.generated: Generated | None = None
        """The reply that ended last."""


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """The limits of a batch, and of the batches in flight."""

    token_budget: int
    max_rows: int = 256
    max_cells: int = 0
    """Rows times the longest text: the memory of padded attention. 0: four times the budget."""
    max_wait_s: float = 0.0
    """How long a batch that is not full may wait for more entries. Waiting does not increase throughput while runs queue
    up; it saves launches."""
    eager_in_flight: int = 1
    """Number of runs that are started with any batch, full or not."""
    max_in_flight: int = 2
    """Beyond the eager runs, a run is started only with a full batch: a small batch queued on a busy device adds latency
    and gains nothing."""

    def __post_init__(self) -> None:
        if self.max_cells == 0:
            object.__setattr__(self, "max_cells", CELLS_PER_TOKEN * self.token_budget)
        if min(self.token_budget, self.max_rows, self.max_cells) < 1 or self.max_wait_s < 0:
            raise ValueError(f"batch limits must be positive, found {self}")
        if not 1 <= self.eager_in_flight <= self.max_in_flight:
            raise ValueError(f"eager_in_flight must lie between 1 and max_in_flight, found {self}")


@dataclass(frozen=True, slots=True)
class Batch:
    """Entries that left the queue together, oldest first."""

    entries: list[Entry]
    tokens: int
    full: bool
    """Whether a limit closed it, rather than the end of the queue."""


class BatchPolicy:
    """A first in, first out queue that forms batches by tokens, rows and cells.

    Invariants: entries leave in order of arrival; a batch exceeds the token budget or the cells only if it is a single
    entry; no batch exceeds the rows or mixes models; a cancelled entry is in no batch.

    The head of the queue is kept as the next batch (`_head`), so that each entry is examined once. It stays open until it
    is taken: late binding.
    """

    def __init__(self, limits: BatchLimits) -> None:
        self.limits = limits
        self.queued_tokens = 0
        """Waiting tokens; a cancelled entry counts until its turn."""
        self._rest: deque[Entry] = deque()
        self._head: list[Entry] = []
        self._head_tokens = 0
        self._head_longest = 0
        self._full = False

    def __len__(self) -> int:
        return len(self._head) + len(self._rest)

    def push(self, entries: Iterable[Entry], now: float) -> None:
        """Append entries to the queue."""
        tokens = 0
        append = self._rest.append
        for entry in entries:
            entry.arrived = now
            tokens += entry.encoded.tokens
            append(entry)
        self.queued_tokens += tokens

    def take(self, now: float, in_flight: int) -> Batch | None:
        """Return the batch to start now in addition to `in_flight` others, or None; then `wake_at` may give a time."""
        if in_flight >= self.limits.max_in_flight:
            return None
        self._fill()
        while self._may_leave(now, in_flight):
            if not self._drop_cancelled():
                return self._close()
            self._fill()
        return None

    def wake_at(self) -> float | None:
        """Return when the oldest entry has waited for `max_wait_s`; None without a wait."""
        return self._head[0].arrived + self.limits.max_wait_s if self._head and self.limits.max_wait_s else None

    def drain(self) -> list[Entry]:
        """Empty the queue; returns its entries that are not cancelled."""
        left = [entry for entry in (*self._head, *self._rest) if not entry.cancelled]
        self._rest.clear()
        self._reset_head([])
        self.queued_tokens = 0
        return left

    def _may_leave(self, now: float, in_flight: int) -> bool:
        if self._full:
            return True
        if not self._head or in_flight >= self.limits.eager_in_flight:
            return False
        return now >= self._head[0].arrived + self.limits.max_wait_s

    def _fill(self) -> None:
        """Move entries from the queue to the head until the next one would not fit."""
        if self._full:
            return
        limits, rest, head = self.limits, self._rest, self._head
        tokens, longest = self._head_tokens, self._head_longest
        while rest:
            entry = rest[0]
            size = entry.encoded.tokens
            if entry.cancelled:
                rest.popleft()
                self.queued_tokens -= size
                continue
            wider = max(longest, size)
            if head and (
                tokens + size > limits.token_budget
                or wider * (len(head) + 1) > limits.max_cells
                or entry.model is not head[0].model
            ):
                self._full = True
                break
            rest.popleft()
            head.append(entry)
            tokens += size
            longest = wider
            if tokens >= limits.token_budget or len(head) >= limits.max_rows:
                self._full = True
                break
        self._head_tokens, self._head_longest = tokens, longest

    def _drop_cancelled(self) -> bool:
        """Remove cancelled entries from the head; True if there were any, so that it has room again."""
        kept = [entry for entry in self._head if not entry.cancelled]
        if len(kept) == len(self._head):
            return False
        before = self._head_tokens
        self._reset_head(kept)
        self.queued_tokens -= before - self._head_tokens
        return True

    def _close(self) -> Batch:
        batch = Batch(self._head, self._head_tokens, self._full)
        self.queued_tokens -= self._head_tokens
        self._reset_head([])
        return batch

    def _reset_head(self, entries: list[Entry]) -> None:
        self._head = entries
        self._head_tokens = sum(entry.encoded.tokens for entry in entries)
        self._head_longest = max((entry.encoded.tokens for entry in entries), default=0)
        self._full = False
