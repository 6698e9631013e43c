"""The units that have entered an experiment's sums, in order, as chunks of fixed size that never change once full."""

from collections.abc import Iterable

CHUNK = 4096
"""Units of a full chunk."""


class EnteredUnits:
    """A set that remembers the order in which it grew: chunks may be kept apart, and written once."""

    def __init__(self, units: Iterable[int] = ()) -> None:
        self._ordered: list[int] = []
        self._known: set[int] = set()
        for unit in units:
            self.add(unit)

    def __contains__(self, unit: object) -> bool:
        return unit in self._known

    def __len__(self) -> int:
        return len(self._ordered)

    def add(self, unit: int) -> None:
        """Add a unit; ValueError for one that is there."""
        if unit in self._known:
            raise ValueError(f"unit {unit} has entered before")
        self._known.add(unit)
        self._ordered.append(unit)

    @property
    def full_chunks(self) -> int:
        """Number of full chunks."""
        return len(self._ordered) // CHUNK

    def chunk(self, number: int) -> list[int]:
        """Return the units of a full chunk, from 0."""
        if not 0 <= number < self.full_chunks:
            raise IndexError(f"there is no full chunk {number}")
        return self._ordered[number * CHUNK : (number + 1) * CHUNK]

    @property
    def tail(self) -> list[int]:
        """The units behind the last full chunk."""
        return self._ordered[self.full_chunks * CHUNK :]
