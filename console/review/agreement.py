"""How often two people who judged one answer without knowing of each other said the same. Pure."""

from collections import Counter
from dataclasses import dataclass, field

from .tasks import EntryForm, ReviewTask


def add_pair(agreements: "dict[str, Agreement]", task: ReviewTask, first: str, second: str) -> None:
    """Count the verdicts of two people on one answer, by task. Of labels what they were, of others whether they are the same."""
    if task.form is not EntryForm.LABEL:
        first, second = "same", "same" if first == second else "other"
    agreements.setdefault(task.name, Agreement()).add(first, second)


@dataclass
class Agreement:
    """Pairs of verdicts on one answer, the first person's and the second's.

    Cohen's kappa (J. Cohen, A Coefficient of Agreement for Nominal Scales, Educational and Psychological Measurement 20, 1960)
    sets the observed share against the one that chance would give. People differ from pair to pair, so the two raters are
    `first` and `second`, pooled over people.
    """

    pairs: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, first: str, second: str) -> None:
        self.pairs[first, second] += 1

    @property
    def count(self) -> int:
        return self.pairs.total()

    @property
    def share(self) -> float | None:
        """The share of pairs that agree; None without any."""
        return self._agreed / self.count if self.count else None

    @property
    def kappa(self) -> float | None:
        """Cohen's kappa, from -1 to 1; None without pairs, and where both raters gave one answer to everything."""
        if not self.count:
            return None
        first: Counter[str] = Counter()
        second: Counter[str] = Counter()
        for (one, other), pairs in self.pairs.items():
            first[one] += pairs
            second[other] += pairs
        chance = sum(first[value] * second[value] for value in first) / self.count**2
        return None if chance == 1 else (self._agreed / self.count - chance) / (1 - chance)

    @property
    def _agreed(self) -> int:
        return sum(pairs for (one, other), pairs in self.pairs.items() if one == other)
