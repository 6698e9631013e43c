"""How feedback is divided and weighted: each label keeps rows to learn from, and a rare one is seen as often as others."""

import random
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final

from ..data.example import Example, labels_of
from ..prepare.splits import Unit, units_of
from ..recipe.keys.unused_keys import VALIDATION_SHARE
from .traffic import CONVERSATION

MOST_REPEATS: Final = 20
DIVISIBLE: Final = 5
"""A label with fewer rows gives none away."""
MOST_VALIDATED: Final = 1 / 3
"""No label gives more of its rows to validate on."""


def divided(rows: Iterable[Example], seed: int, learned: Iterable[Example] = ()) -> tuple[list[Example], list[Example]]:
    """Return rows to learn from and rows to validate on: of each label a tenth, of five rows one, of fewer none.

    Rows with equal texts, in whatever spelling, or of one conversation stand on one side: to learn from where the
    conversation has `learned` rows. Where no such group fits into a tenth, a label gives its smallest one, but no label
    gives more than a third of its rows.
    """
    every = list(rows)
    talks = {str(example.meta.get(CONVERSATION) or "") for example in learned} - {""}
    held = {at for unit in _choose_units(_free_units(every, seed, talks), count_unlabelled(every)) for at in unit.rows}
    kept = [example for at, example in enumerate(every) if at not in held]
    random.Random(seed).shuffle(kept)
    return kept, [every[at] for at in sorted(held)]


def _free_units(rows: Sequence[Example], seed: int, talks: Collection[str]) -> Iterator[Unit]:
    """Yield the groups of rows that belong together, without those of some conversations."""
    own = [str(example.meta.get(CONVERSATION) or "") for example in rows]
    texts, labels = [example.given for example in rows], [frozenset(labels_of(example)) for example in rows]
    for unit in units_of(texts, labels, [[talk] if talk else [] for talk in own], seed):
        if not any(own[at] in talks for at in unit.rows):
            yield unit


def _choose_units(units: Iterable[Unit], counted: Mapping[str, int]) -> list[Unit]:
    """Return the groups to validate on; `counted` are the rows of each label."""
    strata: dict[str, list[Unit]] = defaultdict(list)
    for unit in units:
        # Of several labels the rarest decides: it has the least to give away.
        strata[min(sorted(unit.labels), key=lambda label: counted[label])].append(unit)
    given, chosen = Counter[str](), list[Unit]()

    def take(unit: Unit) -> bool:
        for label, rows in unit.labels.items():
            if counted[label] < DIVISIBLE or given[label] + rows > MOST_VALIDATED * counted[label]:
                return False
        given.update(unit.labels)
        chosen.append(unit)
        return True

    for label in sorted(strata):
        wanted, before = max(1, round(VALIDATION_SHARE * sum(u.labels[label] for u in strata[label]))), len(chosen)
        for unit in strata[label]:
            if unit.labels[label] <= wanted and take(unit):
                wanted -= unit.labels[label]
        if len(chosen) == before:
            any(take(unit) for unit in sorted(strata[label], key=lambda unit: len(unit.rows)))
    return chosen


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


def repeat_replies(rows: Iterable[Example], old: Iterable[Example]) -> dict[int, list[Example]]:
    """Return replies by how often each is to be seen: those to one set of acts together twice as often as the `old` replies to it,
    each at least once. A person's wording would be one among many otherwise, and a decoder says the likeliest.
    """
    rows = list(rows)
    own, before = (Counter(example.text for example in part) for part in (rows, old))
    found: dict[int, list[Example]] = defaultdict(list)
    for example in rows:
        wanted = round(2 * before[example.text] / own[example.text])
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


def count_unlabelled(rows: Iterable[Example]) -> Counter[str]:
    """Count the rows that name each label, and under "" those that name none."""
    rows = list(rows)
    return count(rows) + Counter({"": sum(not labels_of(example) for example in rows)})


def rarest(example: Example, counted: Mapping[str, int]) -> str | None:
    """Return the label of an example that the fewest rows have; None when it has no label."""
    return min(sorted(set(labels_of(example))), key=lambda label: counted[label], default=None)
