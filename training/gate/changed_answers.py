"""How many answers a candidate changes, by how sure the current version was of them. For people: it has no vote.

Held answers compare only what the current version is sure of. Here texts of every score count, so that damage to answers
near a boundary is seen where there are no labels.
"""

from itertools import pairwise
from typing import Final

from ...runtime.model.inputs import Input
from ...runtime.model.model import Model
from ..data.example import example_of
from ..evaluate.evaluate import answers
from ..kinds.registry import kind_of
from ..mix.plan import Mix
from .held_out import texts_to_agree_on
from .verdict import ChangedAnswers

BANDS: Final = (0.0, 0.3, 0.5, 0.7, 0.9, 1.0)
"""Edges of the bands; the last one includes 1."""


def count_changed(current: Model, candidate: Model, mix: Mix) -> list[ChangedAnswers]:
    """Count for the tasks that are compared by held answers, on all texts kept apart; bands without texts are left out."""
    found = []
    for task, texts in texts_to_agree_on(mix).items():
        found += [each for each in _count_by_band(current, candidate, task, texts) if each.texts]
    return found


def _count_by_band(current: Model, candidate: Model, task: str, texts: list[Input]) -> list[ChangedAnswers]:
    old, new = current.tasks[task], candidate.tasks[task]
    kind, examples = kind_of(old), [example_of(given) for given in texts]
    rows = []
    for before, after in zip(answers(current, old, examples), answers(candidate, new, examples), strict=True):
        given = before.example.given
        changed = kind.make_example(given, before.output) != kind.make_example(given, after.output)
        withheld = bool(before.output.get("abstained")) != bool(after.output.get("abstained"))
        rows.append((kind.least_probability(before, old), changed, withheld))
    found = []
    for low, high in pairwise(BANDS):
        inside = [row for row in rows if low <= row[0] and (row[0] < high or high == BANDS[-1])]
        changed_texts, withheld_texts = sum(row[1] for row in inside), sum(row[2] for row in inside)
        found.append(ChangedAnswers(task, low, high, len(inside), changed_texts, withheld_texts))
    return found
