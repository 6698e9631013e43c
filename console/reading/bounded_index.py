"""The latest values by key, bounded in number and bytes: the oldest leave first. Pure."""

from collections.abc import Iterator
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")
ENTRY_BYTES = 200
"""What an entry costs beside its value: the key, the size and the places in the table."""


class BoundedIndex(Generic[K, V]):
    """A mapping in the order of arrival. A key that comes again keeps its place; its value and size are replaced."""

    def __init__(self, max_records: int, max_bytes: int) -> None:
        self._max_records, self._max_bytes = max_records, max_bytes
        self._entries: dict[K, tuple[V, int]] = {}
        self.bytes = 0
        self.dropped = 0
        """Number of entries that left for lack of room."""

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, key: K, value: V, size: int) -> list[V]:
        """Keep a value of about `size` bytes; return those that left for it, which may be itself."""
        if (before := self._entries.get(key)) is not None:
            self.bytes -= before[1]
        size += ENTRY_BYTES
        self._entries[key] = (value, size)
        self.bytes += size
        left = []
        while len(self._entries) > self._max_records or self.bytes > self._max_bytes:
            oldest, gone_size = self._entries.pop(next(iter(self._entries)))
            self.bytes -= gone_size
            self.dropped += 1
            left.append(oldest)
        return left

    def get(self, key: K) -> V | None:
        found = self._entries.get(key)
        return None if found is None else found[0]

    def remove(self, key: K) -> V | None:
        """Forget a value and return it; None where there is none."""
        found = self._entries.pop(key, None)
        if found is None:
            return None
        self.bytes -= found[1]
        return found[0]

    def newest(self) -> Iterator[V]:
        """Yield the values, the one that came last first. The index must not change meanwhile."""
        for value, _ in reversed(self._entries.values()):
            yield value
