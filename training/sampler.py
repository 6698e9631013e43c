"""Which batch comes when: the shares of the tasks, and batches of texts of like length."""

import math
import random
from collections.abc import Sequence


def shares(rows: Sequence[float], weights: Sequence[float], temperature: float) -> list[float]:
    """Return each task's share of the batches: p_i ~ (w_i * n_i) ** (1 / T).

    n_i are rows times epochs. T = 1 is proportional; the higher T, the more alike the tasks (Arivazhagan et al. 2019).
    """
    raw = [(n * w) ** (1 / temperature) for n, w in zip(rows, weights, strict=True)]
    return [value / sum(raw) for value in raw]


def steps_by_task(total: int, parts: Sequence[float]) -> list[int]:
    """Divide `total` batches by shares, largest remainder first; every task gets at least one."""
    exact = [total * part for part in parts]
    steps = [math.floor(value) for value in exact]
    by_remainder = sorted(range(len(parts)), key=lambda i: steps[i] - exact[i])
    for index in by_remainder[: total - sum(steps)]:
        steps[index] += 1
    return [max(1, count) for count in steps]


def plan(
    lengths: Sequence[Sequence[int]], steps: Sequence[int], batch_size: int, seed: int
) -> list[tuple[int, list[int]]]:
    """Return (task, row indices) for each step.

    The order of the tasks is shuffled once as a whole: exact shares, where drawing a task for each step would let them
    drift by chance. Within a task every row comes once before any comes again.
    """
    draw = random.Random(seed)
    steps_made: list[tuple[int, list[int]]] = []
    for task, (rows, count) in enumerate(zip(lengths, steps, strict=True)):
        batches: list[list[int]] = []
        while len(batches) < count:
            batches += bucketed(rows, batch_size, draw)
        steps_made += [(task, batch) for batch in batches[:count]]
    draw.shuffle(steps_made)
    return steps_made


def bucketed(lengths: Sequence[int], batch_size: int, draw: random.Random, *, pool: int = 20) -> list[list[int]]:
    """Return all rows once, in shuffled batches of texts of like length.

    Sorted within pools of `pool` batches only: sorting everything would put the same neighbours together each epoch.
    """
    order = list(range(len(lengths)))
    draw.shuffle(order)
    batches: list[list[int]] = []
    for start in range(0, len(order), batch_size * pool):
        near = sorted(order[start : start + batch_size * pool], key=lengths.__getitem__)
        batches += [near[at : at + batch_size] for at in range(0, len(near), batch_size)]
    draw.shuffle(batches)
    return batches
