"""Which rows each step reads: every row once before any comes again, texts of like length together, and a text that several
tasks have in one step of all of them.
"""

import random
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from typing import Final

from .sampler import divide

StepRows = list[tuple[int, list[int]]]
"""The tasks of one step, in order, each with the rows that it reads; a task without rows is left out."""

POOL: Final = 20
"""Texts are sorted by length within so many steps: sorting everything would put the same neighbours together each epoch."""

SORTED_FROM: Final = POOL // 2
"""Rows that last for fewer steps are not sorted: their batches would be of one length, and often of one label."""


def plan(lengths: Sequence[Sequence[int]], rows: Sequence[int], batch_size: int, seed: int) -> list[StepRows]:
    """Return the rows of each step of a run in which task i reads rows[i] rows; `lengths[i]` are the tokens of its texts."""
    return deal(lengths, list(divide(rows, batch_size)), seed)


def deal(
    lengths: Sequence[Sequence[int]],
    counts: Sequence[Sequence[int]],
    seed: int,
    texts: Sequence[Sequence[int]] | None = None,
) -> list[StepRows]:
    """Return the rows of each step of a run that reads counts[step][task] rows; `lengths[task]` are the tokens of its texts.

    Within a task every row comes once before any comes again. The steps of a pool are ranked by chance, and in every task
    the step of the lowest rank gets the shortest texts: what is padded together is of like length. Where `texts[task]` numbers
    the texts of its rows, each task reads those texts first that a task with more rows to read has in the same step: one pass
    of the encoder serves both.
    """
    draw = random.Random(seed)
    ranks = [rank for _ in range(0, len(counts), POOL) for rank in draw.sample(range(POOL), POOL)]
    tasks = [_Task(own, texts[at] if texts else (), draw) for at, own in enumerate(lengths)]
    most_first = sorted(range(len(tasks)), key=lambda task: -sum(count[task] for count in counts))
    dealt: list[dict[int, list[int]]] = [{} for _ in counts]
    for start in range(0, len(counts), POOL):
        steps = range(start, min(start + POOL, len(counts)))
        read: dict[int, int] = {}
        for task in most_first:
            places = [step for step in steps for _ in range(counts[step][task])]
            for step, row in tasks[task].take(places, ranks, read):
                dealt[step].setdefault(task, []).append(row)
    return [sorted(step.items()) for step in dealt]


class _Task:
    """Deals the rows of one task, pass by pass over them."""

    def __init__(self, lengths: Sequence[int], texts: Sequence[int], draw: random.Random) -> None:
        self._lengths, self._texts, self._draw = lengths, texts, draw
        self._row_of = {text: row for row, text in enumerate(texts)}
        self._left: dict[int, None] = {}
        """The rows that this pass still reads, in their order."""

    def take(self, places: Sequence[int], ranks: Sequence[int], read: dict[int, int]) -> list[tuple[int, int]]:
        """Return a row for each place, a step, in steps that follow each other; `read` has the step of each text that is
        read in these steps, and takes up the others.
        """
        taken: list[tuple[int, int]] = []
        while len(taken) < len(places):
            if not self._left:
                self._left = dict.fromkeys(self._draw.sample(range(len(self._lengths)), len(self._lengths)))
            of_pass = places[len(taken) : len(taken) + len(self._left)]
            taken += self._take_of_pass(of_pass, ranks, read)
        for step, row in taken if self._texts else ():
            read.setdefault(self._texts[row], step)
        return taken

    def _take_of_pass(self, places: Sequence[int], ranks: Sequence[int], read: dict[int, int]) -> list[tuple[int, int]]:
        room = Counter(places)
        taken: list[tuple[int, int]] = []
        for row, step in self._shared(read):
            if room[step]:
                room[step] -= 1
                taken.append((step, row))
                del self._left[row]
        steps = list(room.elements())
        others = list(islice(self._left, len(steps)))
        if places[-1] - places[0] >= SORTED_FROM:
            steps.sort(key=ranks.__getitem__)
            others.sort(key=self._lengths.__getitem__)
        for row in others:
            del self._left[row]
        return [*taken, *zip(steps, others, strict=True)]

    def _shared(self, read: dict[int, int]) -> list[tuple[int, int]]:
        """Return the rows left whose texts are read in these steps, with the step, in an order drawn by chance."""
        found = [(row, step) for text, step in read.items() if (row := self._row_of.get(text)) in self._left]
        self._draw.shuffle(found)
        return found
