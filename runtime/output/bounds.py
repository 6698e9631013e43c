"""Limits on delivered records in memory: bytes per partition and per process, and uncommitted offsets. Pure."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from sys import getsizeof
from typing import Final

from ..model.inputs import Input
from ..model.texts.long_texts import Windows
from ..wire.message import Record

MIB: Final = 1024 * 1024
# Measured with tracemalloc: the client's record, the parsed request, its queue entry and its offset in the tracker.
RECORD_BYTES: Final = 800
HEADER_BYTES: Final = 200
_UNDER_WAY_SHARE: Final = 4


@dataclass(frozen=True, slots=True)
class Bounds:
    """The limits of a process. One record is always accepted, whatever its size."""

    partition_bytes: int = 16 * MIB
    """Limit on the waiting records of one partition."""
    process_bytes: int = 128 * MIB
    """Limit on all records in memory: three quarters for waiting records, one quarter for records in progress."""
    uncommitted: int = 20_000
    """Limit on the delivered offsets of one partition that are not committed."""

    def waiting_bytes(self, partitions: int) -> int:
        """Return the limit for each of `partitions` partitions: an equal share, so that none can starve another."""
        share = (self.process_bytes - self.under_way_bytes) // max(partitions, 1)
        return min(self.partition_bytes, share)

    @property
    def under_way_bytes(self) -> int:
        """Limit on records that the model or a handler is processing, or whose results are being sent."""
        return self.process_bytes // _UNDER_WAY_SHARE


class UnderWay:
    """Bytes of the records that have left their queue and are not finished."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.bytes = 0
        self.on_free: Callable[[], None] = lambda: None
        """Called when bytes become available."""

    @property
    def bytes_left(self) -> int:
        """Bytes that may still be started; the last record may exceed it."""
        return self.limit - self.bytes

    def begin(self, size: int) -> None:
        self.bytes += size

    def end(self, size: int) -> None:
        self.bytes -= size
        self.on_free()


class PartitionBytes:
    """Bytes by partition, and their sum."""

    def __init__(self) -> None:
        self.total = 0
        self._by_partition: dict[Hashable, int] = {}

    def __getitem__(self, partition: Hashable) -> int:
        return self._by_partition.get(partition, 0)

    def add(self, partition: Hashable, size: int) -> None:
        """Add bytes; a negative `size` removes them."""
        self.total += size
        left = self[partition] + size
        if left:
            self._by_partition[partition] = left
        else:
            self._by_partition.pop(partition, None)

    def clear(self) -> None:
        self.total = 0
        self._by_partition.clear()


def held_bytes(record: Record, *texts: str | None) -> int:
    """Return the bytes that a delivered record occupies in memory, including the texts parsed from it."""
    size = RECORD_BYTES
    if (value := record.value) is not None:
        size += len(value)
    if (key := record.key) is not None:
        size += len(key)
    if headers := record.headers:
        size += sum(HEADER_BYTES + len(name) + len(raw or b"") for name, raw in headers)
    return size + sum(getsizeof(text) for text in texts if text is not None)


def estimated_tokens(text: str, most: int) -> int:
    """Estimate the number of tokens of a text for a model that reads at most `most` of them.

    Assumes four ASCII characters per token, as in English, and one token per character of three bytes in UTF-8, as in
    Chinese. Used for scheduling only: the engine counts exactly.
    """
    characters = len(text)
    if characters < 4 * most - 8 and text.isascii():
        return 2 + characters // 4
    read = text[: 4 * most]
    characters, size = len(read), len(read.encode(errors="replace"))
    return min(2 + characters // 4 + (size - characters) * 3 // 8, most)


def estimated_cost(given: Input, limit: int, windows: Windows | None) -> int:
    """Estimate the number of tokens that the model computes for a text, or for two read together.

    Of a text read alone they are those of each of its windows, overlaps included.

    `limit`: the model's limit of tokens. `windows`: None: only the beginning of a longer text is read.
    """
    if not isinstance(given, str):
        text, second, alone = given
        both = min(estimated_tokens(text, limit) + estimated_tokens(second, limit), limit)
        return both + estimated_cost(text, limit, windows) if alone else both
    text = given
    if windows is None:
        return estimated_tokens(text, limit)
    size = min(windows.tokens or limit, limit)
    step = size - min(size // 4 if windows.overlap is None else windows.overlap, size // 2)
    tokens = estimated_tokens(text, max(windows.most * size, limit))
    if tokens <= limit:
        return tokens
    count = min(1 + -(-(tokens - size) // step), windows.most)
    return min(tokens + (count - 1) * (size - step), count * size)
