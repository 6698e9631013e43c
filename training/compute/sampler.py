"""Which rows each step reads: the shares of the tasks, every row once before any comes again, texts of like length together."""

import random
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final

StepRows = list[tuple[int, list[int]]]
"""The tasks of one step, in order, each with the rows that it reads; a task without rows is left out."""

POOL: Final = 20
"""Texts are sorted by length within so many steps: sorting everything would put the same neighbours together each epoch."""

SORTED_FROM: Final = POOL // 2
"""Rows that last for fewer steps are not sorted: their batches would be of one length, and often of one label."""


def shares(rows: Sequence[float], weights: Sequence[float], temperature: float) -> list[float]:
    """Return each task's share of the rows read: p_i ~ (w_i * n_i) ** (1 / T).

    n_i are rows times epochs. T = 1 is proportional; the higher T, the more alike the tasks (Arivazhagan et al. 2019).
    """
    raw = [(n * w) ** (1 / temperature) for n, w in zip(rows, weights, strict=True)]
    return [value / sum(raw) for value in raw]


def rows_by_task(total: int, parts: Sequence[float]) -> list[int]:
    """Divide `total` rows by shares, largest remainder first; every task gets at least one."""
    exact = [total * part for part in parts]
    rows = [int(value) for value in exact]
    by_remainder = sorted(range(len(parts)), key=lambda task: rows[task] - exact[task])
    for task in by_remainder[: total - sum(rows)]:
        rows[task] += 1
    return [max(1, count) for count in rows]


def divide(rows: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Yield the rows of each task in each step: `batch_size` in all, fewer in the last step.

    Each row goes to the task that is furthest behind its share, and what a task is owed is carried over to the next
    step. So task i gets rows[i] in all, and a small task misses steps.
    """
    total, behind = sum(rows), [0] * len(rows)
    for start in range(0, total, batch_size):
        size = min(batch_size, total - start)
        counts = [0] * len(rows)
        behind = [owed + count * size for owed, count in zip(behind, rows, strict=True)]  # in 1/total of a row
        for _ in range(size):
            task = behind.index(max(behind))
            counts[task] += 1
            behind[task] -= total
        yield counts


def plan(lengths: Sequence[Sequence[int]], rows: Sequence[int], batch_size: int, seed: int) -> list[StepRows]:
    """Return the rows of each step of a run in which task i reads rows[i] rows; `lengths[i]` are the tokens of its texts.

    Within a task every row comes once before any comes again. The steps of a pool are ranked by chance, and in every task
    the step of the lowest rank gets the shortest texts: what is padded together is of like length.
    """
    draw = random.Random(seed)
    counts = list(divide(rows, batch_size))
    ranks = [rank for _ in range(0, len(counts), POOL) for rank in draw.sample(range(POOL), POOL)]
    by_task = [_deal(texts, [count[task] for count in counts], ranks, draw) for task, texts in enumerate(lengths)]
    return [[(task, dealt[step]) for task, dealt in enumerate(by_task) if dealt[step]] for step in range(len(counts))]


def _deal(lengths: Sequence[int], counts: Sequence[int], ranks: Sequence[int], draw: random.Random) -> list[list[int]]:
    """Return the rows of one task for each step, `counts[step]` of them."""
    dealt: list[list[int]] = [[] for _ in counts]
    places = [step for step, count in enumerate(counts) for _ in range(count)]
    for start in range(0, len(places), len(lengths)):
        epoch = iter(draw.sample(range(len(lengths)), len(lengths)))
        for _, pool in groupby(places[start : start + len(lengths)], lambda step: step // POOL):
            steps = list(pool)
            taken = [next(epoch) for _ in steps]
            if steps[-1] - steps[0] >= SORTED_FROM:
                steps.sort(key=ranks.__getitem__)
                taken.sort(key=lengths.__getitem__)
            for step, row in zip(steps, taken, strict=True):
                dealt[step].append(row)
    return dealt
