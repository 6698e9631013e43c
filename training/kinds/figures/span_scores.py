"""Compares spans with those that should be there: the one F1 for report, gate, validation and the demos' exam. Pure.

Two spans are the same where they have the label and touch the same words of the text, so that blanks, zero-width
characters and half-words at their ends decide nothing. `exactly` compares characters instead, as a receiver gets them.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ....runtime.model.texts.words import find_words, split_words, trim_span

Spans = Iterable[tuple[int, int, str]]
"""Start, end and label; code points, `end` exclusive."""
Located = Counter[tuple[int, int, str]]
"""First and last word (or start and end), and label, with how often each occurs."""


@dataclass(frozen=True, slots=True)
class Matches:
    """Numbers of spans: found and right, found but wrong, not found. Sums of these are what an F1 is made of."""

    right: int = 0
    wrong: int = 0
    missed: int = 0

    def __add__(self, other: "Matches") -> "Matches":
        return Matches(self.right + other.right, self.wrong + other.wrong, self.missed + other.missed)

    @property
    def f1(self) -> float | None:
        """None where nothing was to be found and nothing was: no number says how good that is."""
        every = 2 * self.right + self.wrong + self.missed
        return 2 * self.right / every if every else None

    @property
    def precision(self) -> float | None:
        return self.right / (self.right + self.wrong) if self.right + self.wrong else None

    @property
    def recall(self) -> float | None:
        return self.right / (self.right + self.missed) if self.right + self.missed else None


def match(truth: Located, found: Located) -> Matches:
    """Count what two sets of spans have in common, and what only one of them has."""
    return Matches((truth & found).total(), (found - truth).total(), (truth - found).total())


def locate(text: str, spans: Spans) -> Located:
    """Return the spans by the words that they touch. A span of blanks alone touches none and is left out."""
    words = split_words(text)
    places = ((find_words(words, start, end), label) for start, end, label in _trimmed(text, spans))
    return Counter((*place, label) for place, label in places if place is not None)


def locate_exactly(text: str, spans: Spans) -> Located:
    """Return the spans by their characters, blanks at their ends apart."""
    return Counter(_trimmed(text, spans))


def _trimmed(text: str, spans: Spans) -> Iterator[tuple[int, int, str]]:
    for start, end, label in spans:
        if (place := trim_span(text, start, end)) is not None:
            yield (*place, label)
