"""What a comparison found: differences by task, how the gradients of tasks agree, and what each training cost. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Final

from ..gate.seed_statistics import SeedsDifference
from ..run_folders.curves import Entry

_COSINE: Final = "cosine/"
_LOSS: Final = "loss/"


@dataclass(frozen=True)
class Cost:
    """What the trainings of all tasks jointly, or of one alone, cost; means over the seeds."""

    task: str | None
    """None: all jointly."""
    cpu_seconds: float
    parameters: int
    steps: float


@dataclass(frozen=True)
class Affinity:
    """Two tasks, and the mean cosine between their gradients by seed."""

    one: str
    other: str
    by_seed: list[float]

    @property
    def mean(self) -> float:
        return mean(self.by_seed)


@dataclass(frozen=True)
class Transfer:
    """Joint training against training alone, for one task."""

    task: str
    set: str
    """The set that both answered."""
    rows: int
    difference: SeedsDifference
    smallest_loss: float | None
    """In points, as `SeedsDifference.smallest_loss`, at least what one row makes; None of one seed."""
    losses: tuple[float, float] | None = None
    """The smoothed training loss at the end, alone and jointly, means over the seeds; None where it is not known."""


def mean_cosines(curves: Sequence[Entry]) -> dict[tuple[str, str], float]:
    """Return the mean over a training of the cosine between the gradients of each pair of tasks, from its curves."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for entry in curves:
        for name, value in entry.items():
            if name.startswith(_COSINE):
                one, _, other = name.removeprefix(_COSINE).partition("/")
                found[one, other].append(value)
    return {pair: mean(values) for pair, values in found.items()}


def last_losses(curves: Sequence[Entry]) -> dict[str, float]:
    """Return the smoothed training loss of each task at the end of a training, from its curves."""
    return {
        name.removeprefix(_LOSS): value for entry in curves for name, value in entry.items() if name.startswith(_LOSS)
    }


def gather_affinities(by_seed: Iterable[Mapping[tuple[str, str], float]]) -> list[Affinity]:
    """Return the affinity of each pair of tasks, those that disagree most first."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for cosines in by_seed:
        for pair, value in cosines.items():
            found[pair].append(value)
    return sorted((Affinity(*pair, values) for pair, values in found.items()), key=lambda each: each.mean)


def affinity_with_others(task: str, affinities: Iterable[Affinity]) -> Affinity | None:
    """Return the other task that disagrees most with `task` and their affinity; None where no gradients were compared."""
    own = [each for each in affinities if task in {each.one, each.other}]
    return min(own, key=lambda each: each.mean, default=None)
