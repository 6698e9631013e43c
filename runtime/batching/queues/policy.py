"""Decides when batches are closed, and of which loaded version. Pure: the caller passes the time and the number of runs in
flight, and starts them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from .entry import Entry
from .version_queue import Batch, VersionQueue, VersionTerms

CELLS_PER_TOKEN = 4
MAX_HOLD_S = 0.02
_MAX_RETIRED = 64
"""Number of forgotten versions whose terms are kept."""


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
    max_hold_s: float = MAX_HOLD_S
    """How long a batch that is not full waits for more entries while another version has work."""

    def __post_init__(self) -> None:
        if self.max_cells == 0:
            object.__setattr__(self, "max_cells", CELLS_PER_TOKEN * self.token_budget)
        if min(self.token_budget, self.max_rows, self.max_cells) < 1 or min(self.max_wait_s, self.max_hold_s) < 0:
            raise ValueError(f"batch limits must be positive, found {self}")
        if not 1 <= self.eager_in_flight <= self.max_in_flight:
            raise ValueError(f"eager_in_flight must lie between 1 and max_in_flight, found {self}")

    @property
    def terms(self) -> VersionTerms:
        """The terms of a version of which nothing else is known."""
        return VersionTerms(self.token_budget, self.max_rows, self.max_cells)


class _Account:
    """The device time that the versions of one name have used."""

    __slots__ = ("used_s",)

    def __init__(self, used_s: float) -> None:
        self.used_s = used_s
        """Seconds divided by the weight, on the scale of `BatchPolicy._fair_s`."""


class BatchPolicy:
    """A first in, first out queue for each loaded version; batches are formed by tokens, rows and cells.

    Which one comes next is start-time fair queueing over names (Goyal, Vin, Cheng 1997): of those with a batch that may leave,
    the name that has used the least device time for its weight. Its oldest batch leaves, one of a replaced version first.

    While only one version has work, its batch leaves when a slot is free. While several have, one leaves when it is full, or its
    oldest entry has waited for `max_hold_s`: a version with few requests would otherwise cut the batches of the others and
    leave in many small ones. Where no batch may leave and a slot is free, the fullest one does.

    Invariants: entries of a version leave in order of arrival; a batch exceeds the token budget or the cells only if it is a
    single entry; no batch exceeds the rows or mixes versions; a cancelled entry is in no batch; a name that was idle has no
    claim on the time that others used meanwhile.
    """

    def __init__(self, limits: BatchLimits, terms: VersionTerms | None = None) -> None:
        """`terms`: of versions that were not loaded; default: those of the limits."""
        self.limits = limits
        self._terms = terms or limits.terms
        self._hold_s = max(limits.max_hold_s, limits.max_wait_s)
        self._queues: dict[int, VersionQueue] = {}
        """By the identity of the model."""
        self._retired: dict[int, VersionTerms] = {}
        """Terms of forgotten versions by the identity of the model, the latest last: what was tokenised for one before it was
        replaced may still arrive."""
        self._accounts: dict[str, _Account] = {}
        self._fair_s = 0.0
        """The least that a name with work had used when a batch left last."""

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    @property
    def queued_tokens(self) -> int:
        """Waiting tokens; a cancelled entry counts until its turn."""
        return sum(queue.queued_tokens for queue in self._queues.values())

    def queued(self, model: Any) -> tuple[int, int]:
        """Return the waiting tokens and rows of a version."""
        queue = self._queues.get(id(model))
        return (0, 0) if queue is None else (queue.queued_tokens, len(queue))

    def load(self, model: Any, terms: VersionTerms) -> None:
        """Set the terms of a version. One that was not loaded has the default ones."""
        self._retired.pop(id(model), None)
        queue = self._find_queue(model)
        queue.terms, queue.loaded, queue.draining = terms, True, False
        self._accounts.setdefault(terms.name, _Account(self._fair_s))

    def find_terms(self, model: Any) -> VersionTerms:
        """Return the terms of a version; the default ones where it is not known."""
        queue = self._queues.get(id(model))
        return self._retired.get(id(model), self._terms) if queue is None else queue.terms

    def is_loaded(self, model: Any) -> bool:
        """Return whether a version was loaded and is not retired."""
        queue = self._queues.get(id(model))
        return queue is not None and queue.loaded

    def retire(self, model: Any) -> None:
        """Let what waits of a version leave first, and forget the version after that."""
        queue = self._queues.get(id(model))
        if queue is not None:
            queue.loaded, queue.draining = False, True
            self._forget_if_empty(queue)

    def push(self, entries: Iterable[Entry], now: float) -> None:
        """Append entries to the queues of their versions."""
        queue = None
        for entry in entries:
            entry.arrived = now
            if queue is None or queue.model is not entry.model:
                queue = self._find_queue(entry.model)
                self._end_idleness(queue.terms.name)
            queue.push(entry)

    def take(self, now: float, in_flight: int) -> Batch | None:
        """Return the batch to start now in addition to `in_flight` others, or None; then `wake_at` may give a time."""
        if in_flight >= self.limits.max_in_flight:
            return None
        while (queue := self._choose(now, in_flight)) is not None:
            if not queue.drop_cancelled():
                return self._close(queue)
        return None

    def wake_at(self, in_flight: int = 0) -> float | None:
        """Return when a waiting batch may leave in addition to `in_flight` others, if nothing happens before; None: never."""
        if in_flight >= self.limits.max_in_flight:
            return None
        heads = self._fill_heads()
        if not heads:
            return None
        if in_flight < self.limits.eager_in_flight:
            wait_s = self.limits.max_wait_s
        else:
            wait_s = self._hold_s if len(heads) > 1 else 0.0
        return min(queue.oldest for queue in heads) + wait_s if wait_s else None

    def drain(self, model: Any = ...) -> list[Entry]:
        """Empty the queues, or that of a version; returns the entries that are not cancelled, in order of arrival."""
        queues = [queue for queue in self._queues.values() if model is ... or queue.model is model]
        left = sorted((entry for queue in queues for entry in queue.drain()), key=attrgetter("arrived"))
        for queue in queues:
            self._forget_if_empty(queue)
        return left

    def _find_queue(self, model: Any) -> VersionQueue:
        queue = self._queues.get(id(model))
        if queue is None:
            terms = self._retired.get(id(model))
            queue = self._queues[id(model)] = VersionQueue(model, terms or self._terms)
            queue.draining = terms is not None
            self._accounts.setdefault(queue.terms.name, _Account(self._fair_s))
        return queue

    def _fill_heads(self) -> list[VersionQueue]:
        """Return the queues with a next batch, and forget versions of which only cancelled entries were left."""
        heads = [queue for queue in self._queues.values() if queue.fill()]
        for queue in [queue for queue in self._queues.values() if not queue]:
            self._forget_if_empty(queue)
        return heads

    def _end_idleness(self, name: str) -> None:
        """Drop what a name without waiting entries has not used of its share."""
        if not any(queue for queue in self._queues.values() if queue.terms.name == name):
            account = self._accounts[name]
            account.used_s = max(account.used_s, self._fair_s)

    def _choose(self, now: float, in_flight: int) -> VersionQueue | None:
        heads = self._fill_heads()
        is_eager = in_flight < self.limits.eager_in_flight
        if len(heads) > 1:
            ready = [each for each in heads if each.full or each.draining or now >= each.oldest + self._hold_s]
            if ready:
                return min(ready, key=self._order)
        else:
            ready = [queue for queue in heads if queue.full]
        if not ready and is_eager:
            ready = [queue for queue in heads if now >= queue.oldest + self.limits.max_wait_s]
        return max(ready, key=attrgetter("fullness"), default=None)

    def _order(self, queue: VersionQueue) -> tuple[float, bool, float]:
        return self._accounts[queue.terms.name].used_s, not queue.draining, queue.oldest

    def _close(self, queue: VersionQueue) -> Batch:
        names = {each.terms.name for each in self._queues.values() if each}
        self._fair_s = max(self._fair_s, min(self._accounts[name].used_s for name in names))
        batch = queue.close()
        self._accounts[queue.terms.name].used_s += queue.terms.seconds(batch.tokens) / queue.terms.weight
        self._forget_if_empty(queue)
        return batch

    def _forget_if_empty(self, queue: VersionQueue) -> None:
        if queue.loaded or queue:
            return
        del self._queues[id(queue.model)]
        if queue.draining:
            self._keep_terms(queue)
        if all(each.terms.name != queue.terms.name for each in self._queues.values()):
            del self._accounts[queue.terms.name]

    def _keep_terms(self, queue: VersionQueue) -> None:
        self._retired.pop(id(queue.model), None)
        self._retired[id(queue.model)] = queue.terms
        if len(self._retired) > _MAX_RETIRED:
            del self._retired[next(iter(self._retired))]
