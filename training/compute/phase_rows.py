"""How many rows of each task the steps of a phase read: for the training, and for who says before how long it takes. Pure."""

from collections.abc import Collection, Mapping
from typing import NamedTuple

from ..recipe.keys.phases import Phase
from ..recipe.phase_recipe import leaves_encoder, recipe_of
from ..recipe.recipe import Recipe
from . import sampler


class PhaseRows(NamedTuple):
    """The tasks that a phase reads, and how many rows of each of them each step reads."""

    tasks: list[str]
    steps: list[list[int]]

    def count(self, task: str) -> int:
        """Return how many rows of a task the phase reads."""
        at = self.tasks.index(task)
        return sum(step[at] for step in self.steps)

    @property
    def total(self) -> int:
        """How many rows the phase reads."""
        return sum(map(sum, self.steps))


def count_run_rows(recipe: Recipe, rows: Mapping[str, int]) -> list[list[int]]:
    """Return the rows of each task in each step of a run without phases; `rows` are those that each task has."""
    tasks = [recipe.tasks[name] for name in rows]
    seen = [count * recipe.epochs_of(task, count) for task, count in zip(tasks, rows.values(), strict=True)]
    total = recipe.budget.steps * recipe.batch_size if recipe.budget.steps else round(sum(seen))
    weights = [task.sampling_weight for task in tasks]
    return sampler.count_rows(recipe.sampling, total, seen, weights, recipe.batch_size, recipe.least_rows)


def count_phase(recipe: Recipe, phase: Phase, rows: Mapping[str, int]) -> PhaseRows:
    """Return the rows that the steps of a phase read; `recipe` is as it stands, `rows` are those that each task has."""
    holds = phase.held_rows and not leaves_encoder(recipe, phase)
    held = [name for name in rows if name not in (phase.tasks or rows)] if holds else []
    return count_phase_rows(recipe_of(recipe, phase), phase, rows, held)


def count_phase_rows(recipe: Recipe, phase: Phase, rows: Mapping[str, int], held: Collection[str]) -> PhaseRows:
    """Return the rows of each step: those of the phase's tasks by their shares, and so many of the `held` tasks beside them.

    `recipe` is as it is in the phase, `rows` are those that each task has, in the recipe's order. Without a row there is no
    step.
    """
    taught = phase.tasks or [*rows]
    seen = {name: count * (phase.epochs or recipe.epochs_of(recipe.tasks[name], count)) for name, count in rows.items()}
    own = sum(seen[name] for name in taught)
    seen |= {name: phase.held_rows * own / len(held) for name in held}
    names = [name for name in rows if name in taught or name in held]
    steps = recipe.budget.steps
    total = steps * recipe.batch_size if steps else round(sum(seen[name] for name in names))
    if not total:
        return PhaseRows(names, [])
    weights = [recipe.tasks[name].sampling_weight for name in names]
    counts = sampler.count_rows(
        recipe.sampling, total, [seen[name] for name in names], weights, recipe.batch_size, recipe.least_rows
    )
    return PhaseRows(names, counts)
