"""How feedback is divided and weighted: each label keeps rows to learn from, and a rare one is seen as often as others."""

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from ..data.example import Example, labels_of

MOST_REPEATS: Final = 20
VALIDATION_SHARE: Final = 0.1
DIVISIBLE: Final = 5
"""A label with fewer rows gives none away."""


def divided(rows: Iterable[Example], seed: int) -> tuple[list[Example], list[Example]]:
    """Return rows to learn from and rows to validate on: of each label a tenth, of five rows one, of fewer none."""
    shuffled = list(rows)
    random.Random(seed).shuffle(shuffled)
    counted = count(shuffled)
    strata: dict[str | None, list[Example]] = defaultdict(list)
    for example in shuffled:
        strata[rarest(example, counted)].append(example)
    kept: list[Example] = []
    validation: list[Example] = []
    for label, rows_of_label in strata.items():
        # Of a text with several labels the rarest decides: it has the least to give away.
        few = 0 if len(rows_of_label) < DIVISIBLE else max(1, round(VALIDATION_SHARE * len(rows_of_label)))
        assert label is None or few < len(rows_of_label)
        validation += rows_of_label[:few]
        kept += rows_of_label[few:]
    random.Random(seed).shuffle(kept)
    return kept, validation


def by_repeats(rows: Iterable[Example], before: float) -> dict[int, list[Example]]:
    """Return the rows by how often each is to be seen, `before` being how often an old label is on average."""
    rows = list(rows)
    counted = count(rows)
    found: dict[int, list[Example]] = defaultdict(list)
    for example in rows:
        label = rarest(example, counted)
        wanted = 1 if label is None else round(before / counted[label])
        found[min(MOST_REPEATS, max(1, wanted))].append(example)
    return dict(sorted(found.items()))


def replayed(rows: Sequence[Example], share: float, seed: int, least: int = DIVISIBLE) -> list[Example]:
    """Draw a share of the rows, and of each label at least `least` rows where it has so many: none is to go missing."""
    if not share:
        return []
    chosen = random.Random(seed).sample(range(len(rows)), round(share * len(rows)))
    drawn, counts = set(chosen), count(rows[at] for at in chosen)
    for at, example in enumerate(rows):
        if at not in drawn and any(counts[label] < least for label in set(labels_of(example))):
            chosen.append(at)
            counts.update(set(labels_of(example)))
    return [rows[at] for at in chosen]


def count(rows: Iterable[Example]) -> Counter[str]:
    """Count the rows that name each label."""
    return Counter(label for example in rows for label in set(labels_of(example)))


def rarest(example: Example, counted: Mapping[str, int]) -> str | None:
    """Return the label of an example that the fewest rows have; None when it has no label."""
    return min(sorted(set(labels_of(example))), key=lambda label: counted[label], default=None)
