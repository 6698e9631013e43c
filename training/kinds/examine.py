"""Finds what the report shows of a kind's answers to a set. Pure."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...schemas.manifest import TaskSpec
from .answers import Answer
from .figures.calibration_error import starts_of_bins
from .figures.findings import Bin, Choices, Coverage, Events, Findings, Mistake, Point, Slice
from .figures.intervals import find_interval, sample_outcome
from .kind import Kind

BINS: Final = 10
MOST_CONFUSIONS: Final = 25
MOST_MISTAKES: Final = 20
MOST_POINTS: Final = 120
MOST_COLUMNS: Final = 6
MOST_VALUES: Final = 12
LEAST_ROWS: Final = 10
"""A value of fewer rows is no slice: nothing can be said of it."""
LENGTH: Final = "length of the text"


def examine(kind: Kind, answers: Sequence[Answer], task: TaskSpec, scope: str | None) -> Findings:
    """Return what is found in the answers to a set. `scope` is the out-of-scope label, learned or not."""
    if not answers:
        return Findings()
    details = kind.detail(answers, task, scope)
    found = {name: find_interval(figure) for name, figure in details.figures.items()}
    wrong = [answer for answer in answers if kind.is_wrong(answer, task, scope)]
    return Findings(
        intervals={name: each for name, each in found.items() if each is not None} | dict(details.intervals),
        labels=details.labels,
        confusions=[(*pair, rows) for pair, rows in details.confusions.most_common(MOST_CONFUSIONS)],
        bins=divide(details.events) if details.events is not None else [],
        coverage=cover(details.choices) if details.choices is not None else None,
        wrong=len(wrong),
        mistakes=find_mistakes(kind, wrong, task),
        slices=[*find_slices(kind, answers, task, scope)],
    )


def divide(events: Events, bins: int = BINS) -> list[Bin]:
    """Return bins of as many answers each, by their scores; equal scores share a bin."""
    if not len(events.scores):
        return []
    order = np.argsort(events.scores, kind="stable")
    scores, right = events.scores[order], events.right[order]
    starts = starts_of_bins(scores, bins)
    return [
        Bin(float(part.mean()), float(hits.mean()), len(part))
        for part, hits in zip(np.split(scores, starts[1:]), np.split(right, starts[1:]), strict=True)
    ]


def cover(choices: Choices) -> Coverage | None:
    """Return how many choices are right among the surest ones, at every share of them; None without choices."""
    if not len(choices.scores):
        return None
    order = np.argsort(-choices.scores, kind="stable")
    hits, count = np.cumsum(choices.right[order]), np.arange(1, len(order) + 1)
    ends = np.flatnonzero(np.append(np.diff(choices.scores[order]) != 0, True))
    chosen = ends[np.unique(np.linspace(0, len(ends) - 1, min(MOST_POINTS, len(ends))).round().astype(int))]
    points = [Point(float(count[at] / len(order)), float(hits[at] / count[at])) for at in chosen]
    given = choices.given.astype(bool)
    return Coverage(points, Point(float(given.mean()), float(choices.right[given].mean())) if given.any() else None)


def find_mistakes(kind: Kind, wrong: Sequence[Answer], task: TaskSpec) -> list[Mistake]:
    """Return the wrong answers that the model is surest of."""
    scored = sorted(((kind.least_probability(answer, task), at) for at, answer in enumerate(wrong)), reverse=True)
    found = []
    for score, at in scored[:MOST_MISTAKES]:
        example = wrong[at].example
        expected, answered = kind.describe(wrong[at])
        found.append(Mistake(example.text, example.second, expected, answered, score))
    return found


def find_slices(kind: Kind, answers: Sequence[Answer], task: TaskSpec, scope: str | None) -> Iterator[Slice]:
    """Yield scores by the length of the texts and by columns of few values, each value of at least ten rows."""
    outcome = kind.outcome(answers, task, scope)
    for column in _columns(answers):
        for value in column.order:
            chosen = np.array([each == value for each in column.values])
            if (rows := int(chosen.sum())) < LEAST_ROWS:
                continue
            part = outcome.rows(chosen)
            interval = find_interval(sample_outcome(part))
            assert interval is not None
            yield Slice(column.name, value, rows, part.metric, interval, column.from_rows)


class _Column(NamedTuple):
    name: str
    values: Sequence[str]
    """By row; an empty one is none."""
    order: Sequence[str]
    from_rows: bool


def _columns(answers: Sequence[Answer]) -> Iterator[_Column]:
    yield _divide_lengths([len(answer.example.text) for answer in answers])
    names = dict.fromkeys(name for answer in answers for name in answer.example.meta)
    found = 0
    for name in names:
        values = [_as_value(answer.example.meta.get(name)) for answer in answers]
        counts = Counter(value for value in values if value)
        if 2 <= len(counts) <= MOST_VALUES and found < MOST_COLUMNS:
            found += 1
            yield _Column(name, values, [value for value, _ in counts.most_common()], from_rows=True)


def _as_value(value: object) -> str:
    return str(value) if isinstance(value, str | int | bool) else ""


def _divide_lengths(lengths: Sequence[int]) -> _Column:
    """Return for each length the quarter of the lengths that it is in, in words."""
    edges: NDArray[np.int64] = np.unique(np.quantile(lengths, [0, 0.25, 0.5, 0.75, 1], method="nearest"))
    if len(edges) < 2:
        return _Column(LENGTH, [""] * len(lengths), [], from_rows=False)
    last = edges[-1]
    names = [f"{low:,} to {high - (high != last):,} characters" for low, high in pairwise(edges.tolist())]
    at = np.clip(np.searchsorted(edges, lengths, side="right") - 1, 0, len(names) - 1)
    return _Column(LENGTH, [names[number] for number in at], names, from_rows=False)
