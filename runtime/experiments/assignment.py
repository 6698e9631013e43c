"""Assigns units to the sides of an experiment.

A unit's place between 0 and 1 is a hash of the experiment and the unit: every process finds the same one, and two
experiments divide the same units differently. The candidate has the places below its share, so that a larger share moves
units in one direction only.
"""

from dataclasses import dataclass
from hashlib import sha256
from typing import Final, Literal

Side = Literal["candidate", "control"]

PLACES: Final = 2**53
"""Number of places that a float tells apart."""


def place_unit(experiment: str, unit: str) -> float:
    """Return the unit's place in [0, 1)."""
    return hash_unit(experiment, unit) / PLACES


def hash_unit(experiment: str, unit: str) -> int:
    """Return the unit's place among `PLACES`: the first 53 bits of SHA-256 over both, each after its length."""
    return _read_number(_hash(experiment, unit)) >> 11


def draw_review(experiment: str, unit: str) -> tuple[float, int]:
    """Return the unit's place in [0, 1) among those whose answers people may be asked about, and 64 bits that name the unit.

    Both come of SHA-256 over the experiment, `review` and the unit: they say nothing of the unit's side, nor of each other.
    """
    digest = _hash(experiment, "review", unit)
    return (_read_number(digest) >> 11) / PLACES, _read_number(digest[8:])


def _hash(*texts: str) -> bytes:
    digest = sha256()
    for text in texts:
        raw = text.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(4, "big") + raw)
    return digest.digest()


def _read_number(digest: bytes) -> int:
    return int.from_bytes(digest[:8], "big")


def choose_side(place: float, share: float) -> Side:
    """Return the side that answers a unit at this place."""
    return "candidate" if place < share else "control"


@dataclass(frozen=True, slots=True)
class Shares:
    """The share that an experiment began with, and those that it was raised to, each from a minute on."""

    first: float
    raises: tuple[tuple[int, float], ...] = ()

    def raised(self, minute: int, share: float) -> "Shares":
        """Return the shares with one more; ValueError for a smaller one, which moves units back, or an earlier minute."""
        latest_minute, latest = self.raises[-1] if self.raises else (-1, self.first)
        if not latest <= share <= 1.0:
            raise ValueError(f"a share only grows: {share:g} is outside {latest:g} to 1")
        if minute < latest_minute:
            raise ValueError(f"minute {minute} is before that of the last raise, {latest_minute}")
        return Shares(self.first, (*self.raises, (minute, share)))

    def share_until(self, minute: int) -> float:
        """Return the share that held just before this minute."""
        return next((share for since, share in reversed(self.raises) if since < minute), self.first)

    def is_moved(self, place: float, until: int) -> bool:
        """Return whether a unit at this place, seen until this minute, changed sides, or may have. It is in no effect."""
        return self.first <= place < self.share_until(until)

    def expected_until(self, minute: int) -> float:
        """Return the candidate's expected part of the units, seen until this minute, that did not move."""
        share = self.share_until(minute)
        return self.first / (self.first + 1.0 - share)
