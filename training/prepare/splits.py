"""Holds rows back for validation: rows that belong together stay on one side, and every label stays learnable."""

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from ...runtime.model.inputs import Input
from ..data.near_texts import near_form

Labels = frozenset[str]
ROUNDING: Final = 1e-9


@dataclass(frozen=True)
class Unit:
    """Rows that stand on one side: `rows` are their positions, `labels` in how many of them each label occurs.

    Rows without a label count for the label "", so that some of them are trained on, too.
    """

    rows: tuple[int, ...]
    labels: Mapping[str, int]
    order: bytes
    """Decides when the unit is looked at; the same for the same rows, wherever they stand in the file."""


def units_of(
    texts: Sequence[Input],
    labels: Sequence[Labels],
    keys: Sequence[Iterable[Hashable]],
    seed: int,
    *,
    by_text: bool = True,
) -> list[Unit]:
    """Join rows that have a key in common, and `by_text` the same near form; in the order of their seeded digests."""
    near = [near_form(text) for text in texts]
    parents = list(range(len(texts)))
    first: dict[Hashable, int] = {}
    for row, form in enumerate(near):
        joining = [("key", key) for key in keys[row]] + ([("text", form)] if by_text else [])
        for key in joining:
            _join(parents, row, first.setdefault(key, row))
    members: dict[int, list[int]] = {}
    for row in range(len(texts)):
        members.setdefault(_root(parents, row), []).append(row)
    units = []
    for rows in members.values():
        counts = Counter(label for row in rows for label in labels[row] or ("",))
        digest = blake2b(min(near[row] for row in rows), digest_size=16, key=str(seed).encode()).digest()
        units.append(Unit(tuple(rows), counts, digest))
    return sorted(units, key=lambda unit: unit.order)


def _root(parents: list[int], row: int) -> int:
    while parents[row] != row:
        parents[row] = parents[parents[row]]
        row = parents[row]
    return row


def _join(parents: list[int], one: int, other: int) -> None:
    parents[_root(parents, one)] = _root(parents, other)


def hold_back(units: Sequence[Unit], share: float) -> set[int]:
    """Return the positions of the rows to validate on: as near to `share` of all as the units allow, at least one.

    Of every label the same share is held back, rare labels first (Sechidis et al. 2011), and never its last unit: what
    is not trained on cannot be validated. Empty when every unit has the last rows of some label.
    """
    choice = _Choice(units, share)
    choice.take_shares()
    choice.fill_up()
    return {row for number in choice.held for row in units[number].rows}


class _Choice:
    """Which units are held back so far, by their number."""

    def __init__(self, units: Sequence[Unit], share: float) -> None:
        self.held: set[int] = set()
        self._units = units
        self._by_label: dict[str, list[int]] = {}
        self._counts: Counter[str] = Counter()
        for number, unit in enumerate(units):
            self._counts.update(unit.labels)
            for label in unit.labels:
                self._by_label.setdefault(label, []).append(number)
        self._trained = Counter({label: len(numbers) for label, numbers in self._by_label.items()})
        """By label, how many units are trained on."""
        self._wanted = {label: share * count for label, count in self._counts.items()}
        self._rows_held: Counter[str] = Counter()
        self._missing = max(1, round(share * sum(len(unit.rows) for unit in units)))
        """How many more rows are to be held back."""

    def take_shares(self) -> None:
        """Hold back each label's share: first rounded down, then what rounding left over, one unit a label."""
        for label in sorted(self._by_label, key=lambda label: (self._counts[label], label)):
            for number in self._by_label[label]:
                if self._lacking(label) < 1 - ROUNDING:
                    break
                self._take(number)
        for label in sorted(self._by_label, key=lambda label: (-self._lacking(label), -self._counts[label], label)):
            if self._lacking(label) > ROUNDING:
                any(self._take(number) for number in self._by_label[label])

    def fill_up(self) -> None:
        """Where groups or sets of labels did not allow the shares, hold back whatever comes nearer to the number of rows."""
        for number in range(len(self._units)):
            self._take(number, beyond_shares=True)
        if not self.held and (free := [number for number in range(len(self._units)) if self._is_free(number)]):
            self._hold(min(free, key=lambda number: len(self._units[number].rows)))

    def _lacking(self, label: str) -> float:
        return self._wanted[label] - self._rows_held[label]

    def _is_free(self, number: int) -> bool:
        """Say whether every label of the unit stays learnable without it."""
        return number not in self.held and all(self._trained[label] > 1 for label in self._units[number].labels)

    def _take(self, number: int, *, beyond_shares: bool = False) -> bool:
        unit = self._units[number]
        # A large unit is held back only when that comes nearer to the number asked for than leaving it.
        if len(unit.rows) >= 2 * self._missing or not self._is_free(number):
            return False
        if not beyond_shares and any(rows >= self._lacking(label) + 1 for label, rows in unit.labels.items()):
            return False
        self._hold(number)
        return True

    def _hold(self, number: int) -> None:
        unit = self._units[number]
        self.held.add(number)
        self._missing -= len(unit.rows)
        self._rows_held.update(unit.labels)
        self._trained.subtract(unit.labels.keys())
