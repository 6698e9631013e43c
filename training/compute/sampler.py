"""How many rows of each task each step reads: the shares of the tasks."""

from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Final

from ..recipe.keys.weights import Sampling

ANNEALED: Final = 0.8
"""How much of the exponent of the shares is gone at the end of a run whose sampling is annealed."""
PIECES: Final = 10
"""Shares that change over a run are constant over each of so many pieces of it."""


def shares(rows: Sequence[float], weights: Sequence[float], temperature: float) -> list[float]:
    """Return each task's share of the rows read: p_i ~ (w_i * n_i) ** (1 / T).

    n_i are rows times epochs. T = 1 is proportional; the higher T, the more alike the tasks (Arivazhagan et al. 2019).
    """
    raw = [(n * w) ** (1 / temperature) for n, w in zip(rows, weights, strict=True)]
    return [value / sum(raw) for value in raw]


def shares_of(method: Sampling, rows: Sequence[float], weights: Sequence[float], progress: float = 0.0) -> list[float]:
    """Return each task's share of the rows read when `progress` (0 to 1) of the run is done.

    p_i ~ w_i for `equal`. `annealed` begins proportional and ends nearly equal: p_i ~ (w_i * n_i) ** (1 - 0.8 * progress), as
    Stickland and Murray (2019) anneal.
    """
    exponent = 1 - ANNEALED * progress if method.method == "annealed" else method.exponent
    if exponent == 0:
        return shares(weights, [1.0] * len(weights), 1.0)
    return shares(rows, weights, 1 / exponent)


def rows_by_task(total: int, parts: Sequence[float]) -> list[int]:
    """Divide `total` rows by shares, largest remainder first; every task gets at least one."""
    return [max(1, count) for count in rows_of_shares(total, parts)]


def rows_of_shares(total: int, parts: Sequence[float]) -> list[int]:
    """Divide `total` rows by shares, largest remainder first."""
    exact = [total * part for part in parts]
    rows = [int(value) for value in exact]
    by_remainder = sorted(range(len(parts)), key=lambda task: rows[task] - exact[task])
    for task in by_remainder[: total - sum(rows)]:
        rows[task] += 1
    return rows


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


def divide_with_least(rows: Sequence[int], batch_size: int, least: int) -> Iterator[list[int]]:
    """Yield the rows of each task in each step as `divide`, but at least so many of every task in every step.

    A task that has fewer gets more than its rows, at the cost of the others. `batch_size` has room for them.
    """
    total, tasks = sum(rows), len(rows)
    steps, room = -(-total // batch_size), batch_size - least * len(rows)
    beyond = [max(0, count - steps * least) for count in rows]
    free = max(total - steps * least * tasks, (steps - 1) * room)
    further = rows_of_shares(free, [count / sum(beyond) if any(beyond) else 1 / tasks for count in beyond])
    for _, counts in zip_longest(range(steps), divide(further, room) if room else ()):
        yield [least + count for count in counts or [0] * tasks]


def count_rows(
    method: Sampling, total: int, rows: Sequence[float], weights: Sequence[float], batch_size: int, least: int
) -> list[list[int]]:
    """Return how many rows of each task each step reads: `total` in all, `batch_size` a step, fewer in the last step.

    `rows` and `weights` as in `shares`; `least` rows of each task in each step.
    """
    steps = -(-total // batch_size)
    pieces = min(PIECES, steps) if method.method == "annealed" else 1
    counts: list[list[int]] = []
    for piece in range(pieces):
        first, end = (min(total, batch_size * round(steps * at / pieces)) for at in (piece, piece + 1))
        by_share = shares_of(method, rows, weights, piece / max(1, pieces - 1))
        read = rows_by_task(end - first, by_share)
        counts += divide_with_least(read, batch_size, least) if least else divide(read, batch_size)
    return counts
