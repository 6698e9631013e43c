"""How the rows of the tasks were drawn, and which share of the steps each task had. Pure."""

from collections.abc import Iterator
from typing import Final

from ..recipe.keys.weights import SAMPLING_TEMPERATURE
from ..recipe.recipe import Recipe
from .made import Made
from .part import Fact, Group, Part, Table

_NOTE: Final = "Rows read by the steps: a row counts each time, and so do its repeats."
_WITH_PHASES: Final = f"{_NOTE} Those that tasks are held by in a phase, and texts of self-training, are among them."


def describe_rows(made: Made) -> Part | None:
    """Return how rows were drawn; None for one task, and where the run is not known."""
    record = made.record
    if record is None or len(record.rows_read) < 2 or not any(record.rows_read.values()):
        return None
    facts = [*_sampling(made.recipe)] if made.recipe is not None else []
    note = _WITH_PHASES if record.phases else _NOTE
    return Part("rows", "Rows of the tasks", [Group(facts=facts, table=_table(made, record.rows_read))], [note])


def _sampling(recipe: Recipe) -> Iterator[Fact]:
    sampling = recipe.sampling
    temperature = sampling.temperature or SAMPLING_TEMPERATURE
    yield (
        "sampling",
        {
            "proportional": "proportional: by the rows of a task times its passes",
            "equal": "equal: each task has the same share",
            "temperature": f"temperature {temperature:g}: by the rows of a task times its passes, to the power of 1/{temperature:g}",
            "annealed": "annealed: by the rows of a task times its passes at first, nearly equal at the end",
        }[sampling.method],
    )
    if recipe.least_rows:
        yield "min_rows", f"at least {recipe.least_rows} of each task in a step"
    yield "rows of a step", f"{recipe.batch_size:,}"


def _table(made: Made, read: dict[str, int]) -> Table:
    tasks = made.recipe.tasks if made.recipe is not None else {}
    weights = {name: tasks[name].sampling_weight for name in read if name in tasks}
    weighted = any(weight != 1 for weight in weights.values())
    columns = ["task", "share", "rows read", "training rows", *(["sampling_weight"] if weighted else [])]
    total, rows = sum(read.values()), []
    for name, count in read.items():
        own = made.manifest.data.get(name, {}).get("parts", {}).get("train", {}).get("rows")
        weight = [f"{weights.get(name, 1):g}"] if weighted else []
        rows.append([name, f"{100 * count / total:.1f} %", f"{count:,}", "–" if own is None else f"{own:,}", *weight])
    return Table("Rows of the tasks", columns, rows)
