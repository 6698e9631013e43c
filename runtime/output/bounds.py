"""What may be held of delivered records: bytes by partition and in the process, and offsets that are not committed. Pure."""

from collections.abc import Callable
from dataclasses import dataclass
from sys import getsizeof
from typing import Final

from ..wire.message import Record

MIB: Final = 1024 * 1024
# Measured with tracemalloc: the client's record, the request in it, its place in a queue and its offset in the tracker.
RECORD_BYTES: Final = 800
HEADER_BYTES: Final = 200
_UNDER_WAY_SHARE: Final = 4


@dataclass(frozen=True, slots=True)
class Bounds:
    """The limits of a process. One record is always taken, however large it is."""

    partition_bytes: int = 16 * MIB
    """Of the records of a partition that wait."""
    process_bytes: int = 128 * MIB
    """Of all records that are held: three quarters of it for those that wait, one for those that are under way."""
    uncommitted: int = 20_000
    """Offsets of a partition that are delivered and not committed yet."""

    def waiting_bytes(self, partitions: int) -> int:
        """Return what may wait of each of so many partitions: an equal share each, so that none can crowd out another."""
        share = (self.process_bytes - self.under_way_bytes) // max(partitions, 1)
        return min(self.partition_bytes, share)

    @property
    def under_way_bytes(self) -> int:
        """Of records that the model or a handler has, or whose results are being sent."""
        return self.process_bytes // _UNDER_WAY_SHARE


class UnderWay:
    """The bytes of the records that have left their queue and are not finished."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.bytes = 0
        self.on_free: Callable[[], None] = lambda: None
        """Called when there is more room."""

    @property
    def bytes_left(self) -> int:
        """How much may still be begun; the last record may overdraw it."""
        return self.limit - self.bytes

    def begin(self, size: int) -> None:
        self.bytes += size

    def end(self, size: int) -> None:
        self.bytes -= size
        self.on_free()


def held_bytes(record: Record, text: str | None = None) -> int:
    """Return what a delivered record costs in memory while it is held, with the text that was read of it."""
    size = RECORD_BYTES
    if (value := record.value) is not None:
        size += len(value)
    if (key := record.key) is not None:
        size += len(key)
    if headers := record.headers:
        size += sum(HEADER_BYTES + len(name) + len(raw or b"") for name, raw in headers)
    return size if text is None else size + getsizeof(text)


def estimated_tokens(text: str, most: int) -> int:
    """Return about how many tokens a text has for a model that reads `most` of it.

    Four ASCII letters a token are English; a character of three bytes in UTF-8, as in Chinese, is a token of its own. It
    only weighs who goes next: the engine counts exactly.
    """
    characters = len(text)
    if characters < 4 * most - 8 and text.isascii():
        return 2 + characters // 4
    read = text[: 4 * most]
    characters, size = len(read), len(read.encode(errors="replace"))
    return min(2 + characters // 4 + (size - characters) * 3 // 8, most)
