"""What the review queue says of itself, and which items two people judge. Pure."""

from dataclasses import dataclass
from hashlib import blake2b


@dataclass(frozen=True)
class Counts:
    """What the screen shows. `open`: neither judged nor set aside."""

    open: int
    leased: int
    unsent: int
    judged: int
    set_aside: int
    elsewhere: int
    """Items that were judged already when they were read."""


@dataclass(frozen=True)
class Taken:
    """What became of a verdict. `others`: who judged the item besides, where that was not on purpose."""

    feedback_id: str
    others: tuple[str, ...] = ()


def is_doubled(key: str, share: float) -> bool:
    """Return whether two people judge an item: the same in every console and after a restart."""
    drawn = int.from_bytes(blake2b(key.encode(), digest_size=8, person=b"overlap").digest(), "big")
    return drawn < share * 2**64
