"""What is wrong, or may be wrong, with the rows of a task as a whole: found before training."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Final

from ...runtime.model.texts.words import drop_invisible
from ..data.example import Example, labels_of
from ..data.near_texts import near_form, near_id
from .data_report import Overlap

SEPARATORS: Final = str.maketrans("", "", " _-./:")
SAME_BUT_FOR_A_SLIP: Final = 0.85
"""Similarity of two names, from 0 to 1, from which one may be the other with a slip of the keyboard."""
_LISTED: Final = 5


def count_labels(examples: Iterable[Example], names: Sequence[str]) -> dict[str, int]:
    """Count labels, or types of spans, in the order of `names`, those without a row too; then others."""
    counts = Counter(label for example in examples for label in labels_of(example))
    return {label: counts[label] for label in (*names, *sorted(set(counts) - set(names)))}


def find_equal_names(labels: Sequence[str]) -> tuple[str, str] | None:
    """Return two labels that differ only in case, blanks, the form of their letters or invisible characters; else None."""
    first: dict[bytes, str] = {}
    for label in labels:
        near = near_form(drop_invisible(label))
        if first.setdefault(near, label) != label:
            return first[near], label
    return None


def find_similar_names(labels: Sequence[str]) -> list[tuple[str, ...]]:
    """Return groups of labels that are equal without blanks, hyphens, underscores, dots, slashes and colons."""
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for label in labels:
        groups[near_form(label).decode().translate(SEPARATORS)].append(label)
    return [tuple(group) for bare, group in groups.items() if bare and len(group) > 1]


def suggest(label: str, labels: Iterable[str]) -> str:
    """Return a question that names the most similar label, or nothing."""
    by_form = {near_form(known).decode(): known for known in labels}
    close = get_close_matches(near_form(label).decode(), by_form, n=1)
    return f"; did you mean {by_form[close[0]]!r}?" if close else ""


def is_like(label: str, other: str) -> bool:
    """Return whether a label may be another spelling of the other: a slip, or other case, blanks or separators."""
    one, two = (near_form(drop_invisible(each)).decode().translate(SEPARATORS) for each in (label, other))
    return bool(get_close_matches(one, [two], cutoff=SAME_BUT_FOR_A_SLIP))


def list_names(names: Sequence[str]) -> str:
    """Return names for a message, a handful of them."""
    rest = f" and {len(names) - _LISTED:,} more" if len(names) > _LISTED else ""
    return ", ".join(repr(name) for name in names[:_LISTED]) + rest


class Texts:
    """The texts of a part, as far as others are compared with them."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self._near = [near_id(near_form(example.given)) for example in examples]
        self._examples = examples
        self._seen_exact = {example.given for example in examples}
        self._seen_near = set(self._near)

    @property
    def duplicates(self) -> int:
        """How many rows have a text that stands before."""
        return len(self._near) - len(self._seen_near)

    @property
    def contradictions(self) -> int:
        """How many texts stand with different labels, or with spans of different types."""
        answers: defaultdict[bytes, set[tuple[str, ...]]] = defaultdict(set)
        for near, example in zip(self._near, self._examples, strict=True):
            answers[near].add(tuple(sorted(labels_of(example))))
        return sum(len(each) > 1 for each in answers.values())

    def overlap(self, earlier: "Texts") -> Overlap:
        """Count the rows whose text stands in an earlier part, too."""
        exact = sum(example.given in earlier._seen_exact for example in self._examples)
        return Overlap(exact=exact, near=sum(near in earlier._seen_near for near in self._near) - exact)


def find_overlaps(texts: Mapping[str, Texts], earlier: Sequence[str]) -> dict[str, dict[str, Overlap]]:
    """Return by part what its texts have in common with each of the `earlier` parts that stands before it."""
    found: dict[str, dict[str, Overlap]] = {}
    names = list(texts)
    for at, name in enumerate(names):
        shared = {other: texts[name].overlap(texts[other]) for other in earlier if other in names[:at]}
        if shared := {other: each for other, each in shared.items() if each.exact or each.near}:
            found[name] = shared
    return found
