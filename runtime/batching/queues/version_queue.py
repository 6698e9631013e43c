"""The queue of one loaded version. Pure."""

from collections import deque
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from .entry import Entry

ROWS_ON_CPU: Final = 32
ROWS_ON_ACCELERATOR: Final = 256
"""Replies that are decoded together, where no setting says how many."""
SHORTEST_PASS_S: Final = 0.001
"""Times of passes below this count as this where they are compared with their calibration.

The overhead of a small pass is calibrated on larger ones that run one after another. A pass that comes alone takes up to twice
as long, since the caches are cold, and two calibrations of one model differ by a third of it. Both are fractions of a
millisecond, which delay nobody.
"""
SHORTEST_DEADLINE_S: Final = 5.0
"""Minimum deadline of a forward pass, regardless of the time measured at start."""


@dataclass(frozen=True, slots=True)
class VersionTerms:
    """What a batch of a loaded version may hold, what it costs, and whose share of the device it uses."""

    token_budget: int
    max_rows: int
    max_cells: int
    """Rows times the longest text."""
    name: str = ""
    """Versions of one name share its weight."""
    weight: float = 1.0
    """Share of the device time while other names have work, relative to their weights."""
    overhead_s: float = 0.0
    token_s: float = 1.0
    """Calibrated: a pass over n tokens takes `overhead_s` + n * `token_s` seconds of device time."""
    reply_rows: int = ROWS_ON_CPU
    """Replies of a task that are decoded together."""
    is_calibrated: bool = False
    """Whether the times are measured."""
    deadline_s: float = SHORTEST_DEADLINE_S
    """Time limit of a pass over a full batch, of a step, and of the reference sample."""

    def __post_init__(self) -> None:
        if self.weight <= 0 or self.overhead_s < 0 or self.token_s <= 0:
            raise ValueError(f"weight and time of a token must be positive, found {self}")

    def seconds(self, tokens: int) -> float:
        """Return the device time of a pass over `tokens`."""
        return self.overhead_s + self.token_s * tokens

    def find_pass_ratio(self, device_s: float | None, tokens: int) -> float | None:
        """Return the device time of a pass over `tokens`, divided by its calibrated time; None where either is not known.

        Each of the two is at least `SHORTEST_PASS_S`.
        """
        if not self.is_calibrated or device_s is None:
            return None
        return max(device_s, SHORTEST_PASS_S) / max(self.seconds(tokens), SHORTEST_PASS_S)


class Batch(NamedTuple):
    """Entries that left the queue together, oldest first."""

    entries: list[Entry]
    tokens: int
    full: bool
    """Whether a limit closed it, rather than the end of the queue."""
    terms: VersionTerms
    """Those of its version."""


class VersionQueue:
    """First in, first out. Its head is kept as the next batch, so that each entry is examined once; the batch stays open
    until it is closed.
    """

    __slots__ = (
        "_head",
        "_longest",
        "_rest",
        "_tokens",
        "draining",
        "full",
        "loaded",
        "model",
        "queued_tokens",
        "terms",
    )

    def __init__(self, model: Any, terms: VersionTerms) -> None:
        self.model = model
        """Kept alive, so that its identity is not reused."""
        self.terms = terms
        self.loaded = False
        """Whether the queue stays when it is empty."""
        self.draining = False
        """Whether another version has replaced this one: what waits leaves first, and nothing is held."""
        self.queued_tokens = 0
        """Waiting tokens; a cancelled entry counts until its turn."""
        self.full = False
        """Whether nothing more fits into the next batch."""
        self._rest: deque[Entry] = deque()
        self._head: list[Entry] = []
        self._tokens = 0
        self._longest = 0

    def __len__(self) -> int:
        return len(self._head) + len(self._rest)

    @property
    def oldest(self) -> float:
        """When the first entry of the next batch arrived. Only after `fill` has returned True."""
        return self._head[0].arrived

    @property
    def fullness(self) -> float:
        """The part of the tokens or the rows of a full batch that the next one has."""
        return max(self._tokens / self.terms.token_budget, len(self._head) / self.terms.max_rows)

    def push(self, entry: Entry) -> None:
        """Append an entry."""
        self.queued_tokens += entry.encoded.tokens
        self._rest.append(entry)

    def fill(self) -> bool:
        """Move entries to the next batch until one would not fit; False when there is none."""
        if self.full:
            return True
        terms, rest, head = self.terms, self._rest, self._head
        tokens, longest = self._tokens, self._longest
        while rest:
            entry = rest[0]
            size = entry.encoded.tokens
            if entry.cancelled:
                rest.popleft()
                self.queued_tokens -= size
                continue
            wider = max(longest, size)
            if head and (tokens + size > terms.token_budget or wider * (len(head) + 1) > terms.max_cells):
                self.full = True
                break
            rest.popleft()
            head.append(entry)
            tokens += size
            longest = wider
            if tokens >= terms.token_budget or len(head) >= terms.max_rows:
                self.full = True
                break
        self._tokens, self._longest = tokens, longest
        return bool(head)

    def drop_cancelled(self) -> bool:
        """Remove cancelled entries from the next batch; True if there were any, so that it has room again."""
        kept = [entry for entry in self._head if not entry.cancelled]
        if len(kept) == len(self._head):
            return False
        before = self._tokens
        self._reset(kept)
        self.queued_tokens -= before - self._tokens
        return True

    def close(self) -> Batch:
        """Remove and return the next batch."""
        batch = Batch(self._head, self._tokens, self.full, self.terms)
        self.queued_tokens -= self._tokens
        self._reset([])
        return batch

    def drain(self) -> list[Entry]:
        """Empty the queue; returns its entries that are not cancelled."""
        left = [entry for entry in (*self._head, *self._rest) if not entry.cancelled]
        self._rest.clear()
        self._reset([])
        self.queued_tokens = 0
        return left

    def _reset(self, entries: list[Entry]) -> None:
        self._head = entries
        self._tokens = sum(entry.encoded.tokens for entry in entries)
        self._longest = max((entry.encoded.tokens for entry in entries), default=0)
        self.full = False
