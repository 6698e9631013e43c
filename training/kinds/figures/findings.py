"""What the report says of a set of rows beside its figures: intervals, labels, confusions, calibration, coverage, mistakes."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .intervals import Interval, Sampled
from .span_scores import Matches

Array = NDArray[np.float64]


class Events(NamedTuple):
    """Published scores [N], and whether that is so which has each [N]."""

    scores: Array
    right: Array


class Choices(NamedTuple):
    """Forced choices on N texts: the score that decides whether each is given (the higher the surer), whether it is right,
    and whether the thresholds of the manifest let it be given.
    """

    scores: Array
    right: Array
    given: Array


@dataclass(frozen=True)
class Details:
    """What a kind knows of its answers to a set. All may be empty."""

    figures: Mapping[str, Sampled] = field(default_factory=dict)
    """Figures of the score as sums over rows, for their intervals."""
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    """Of figures that are no such sums."""
    labels: Mapping[str, Matches] = field(default_factory=dict)
    """By label."""
    confusions: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Label of the row and label answered instead, with the number of rows."""
    events: Events | None = None
    choices: Choices | None = None


class Bin(NamedTuple):
    """Answers with neighbouring scores: mean score, share that is right, how many."""

    score: float
    right: float
    answers: int


class Point(NamedTuple):
    """The share of texts that are answered, and the share of these answers that is right."""

    covered: float
    right: float


class Coverage(NamedTuple):
    """What is right among the answers that are given, from the surest answer alone to all. `chosen` is where the thresholds are."""

    points: list[Point]
    chosen: Point | None


class Mistake(NamedTuple):
    """A row that is answered wrongly. Texts are whole."""

    text: str
    second: str | None
    expected: str
    answered: str
    score: float


class Slice(NamedTuple):
    """Rows with one value of a column, scored as the gate does."""

    column: str
    value: str
    rows: int
    metric: float
    interval: Interval
    from_rows: bool
    """Whether the value is what a row says; the length of a text is not."""


@dataclass(frozen=True)
class Findings:
    """What was found in a set, small enough to be kept."""

    intervals: Mapping[str, Interval] = field(default_factory=dict)
    labels: Mapping[str, Matches] = field(default_factory=dict)
    confusions: list[tuple[str, str, int]] = field(default_factory=list)
    """Label of the row, label answered instead, rows; the most frequent first."""
    bins: list[Bin] = field(default_factory=list)
    coverage: Coverage | None = None
    wrong: int = 0
    mistakes: list[Mistake] = field(default_factory=list)
    """The surest of the `wrong` ones first."""
    slices: list[Slice] = field(default_factory=list)
