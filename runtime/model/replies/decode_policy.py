"""Which replies are decoded together, and whether a step or a pass comes next. Pure: callers tell the time in seconds."""

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from enum import Enum
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)

STEPS_BETWEEN_PASSES: Final = 2


class Turn(Enum):
    """What the device does next."""

    PASS = "pass"  # noqa: S105
    """Encode a batch of texts."""
    STEP = "step"
    """Decode one piece of each reply."""
    IDLE = "idle"


class DecodePolicy(Generic[K]):
    """Replies join at any step, first come, first served, and leave when they have ended.

    Between two passes there are at most `steps_between_passes` steps while texts wait; while none does, steps go on.
    """

    def __init__(self, *, max_rows: int, steps_between_passes: int = STEPS_BETWEEN_PASSES) -> None:
        if max_rows < 1 or steps_between_passes < 1:
            raise ValueError(f"expected a row and a step or more, found {max_rows} and {steps_between_passes}")
        self._max_rows, self._most_steps = max_rows, steps_between_passes
        self._waiting: OrderedDict[K, float | None] = OrderedDict()
        self._live: OrderedDict[K, float | None] = OrderedDict()
        self._steps = 0

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def live(self) -> int:
        return len(self._live)

    def add(self, key: K, deadline: float | None = None) -> None:
        """Let a reply wait for a row. After `deadline` it is of no use to anybody."""
        if key in self._waiting or key in self._live:
            raise ValueError(f"reply {key!r} is there already")
        self._waiting[key] = deadline

    def admit(self) -> Iterator[K]:
        """Yield the replies that begin at the next step, as many as rows are free."""
        while self._waiting and len(self._live) < self._max_rows:
            key, deadline = self._waiting.popitem(last=False)
            self._live[key] = deadline
            yield key

    def retire(self, key: K) -> None:
        """Forget a reply that has ended, failed, or is not wanted any more; one that is not known is ignored."""
        self._waiting.pop(key, None)
        self._live.pop(key, None)

    def drop_late(self, now: float) -> list[K]:
        """Forget the replies whose deadline has passed, and return them."""
        late = [
            key
            for each in (self._live, self._waiting)
            for key, deadline in each.items()
            if deadline is not None and deadline <= now
        ]
        for key in late:
            self.retire(key)
        return late

    def choose(self, *, texts_wait: bool) -> Turn:
        """Return what comes next, and count it as done."""
        decodes = bool(self._live or self._waiting)
        if texts_wait and (not decodes or self._steps >= self._most_steps):
            self._steps = 0
            return Turn.PASS
        if decodes:
            self._steps += 1
            return Turn.STEP
        self._steps = 0
        return Turn.IDLE
