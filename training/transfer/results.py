"""What a comparison leaves: `transfer.json`, `transfer.md`, and the rows of its tables. Pure."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from .advice import Advice, Cure
from .findings import Affinity, Cost, Transfer

Rows = list[list[str]]
DIFFERENCES = ["task", "set", "rows", "alone", "joint", "difference", "95 % interval", "loss seen from"]
AFFINITIES = ["task", "with", "mean cosine", "by seed"]
COSTS = ["training", "CPU-seconds", "steps", "parameters"]
ADVICE = ["task", "advice", "reason", "in the recipe"]
NOTES = (
    "Differences are joint less alone, in points; above 0 joint training helps. Their intervals cover the choice of test rows and "
    "the seeds of training. Loss seen from: the smallest true loss that such an interval would have shown in 80 % of the cases.",
    "Below 0 a step for one task makes the other worse.",
)


@dataclass(frozen=True)
class Result:
    """All that a comparison found."""

    name: str
    """Of the recipe."""
    seeds: list[int]
    transfers: list[Transfer]
    affinities: list[Affinity]
    costs: list[Cost]
    advice: list[Advice]
    notes: list[str]


def difference_rows(result: Result) -> Rows:
    return [
        [
            *(each.task, each.set, f"{each.rows:,}"),
            *(f"{each.difference.alone:.2f}", f"{each.difference.joint:.2f}", f"{each.difference.difference:+.2f}"),
            *(interval(each), "-" if each.smallest_loss is None else f"{each.smallest_loss:.2f}"),
        ]
        for each in result.transfers
    ]


def interval(found: Transfer) -> str:
    """Return the interval in words."""
    low, high = found.difference.low, found.difference.high
    return "one seed, none" if low is None or high is None else f"[{low:+.2f}, {high:+.2f}]"


def affinity_rows(result: Result) -> Rows:
    return [
        [each.one, each.other, f"{each.mean:+.3f}", ", ".join(f"{value:+.3f}" for value in each.by_seed)]
        for each in result.affinities
    ]


def cost_rows(result: Result) -> Rows:
    """Return what each training cost, and what all trainings alone cost together."""
    rows = [_cost_row(each.task or "all jointly", each) for each in result.costs]
    alone = [each for each in result.costs if each.task is not None]
    seconds, steps = sum(each.cpu_seconds for each in alone), sum(each.steps for each in alone)
    parameters = sum(each.parameters for each in alone)
    return [*rows, _cost_row("each alone, together", Cost(None, seconds, parameters, steps))]


def _cost_row(title: str, cost: Cost) -> list[str]:
    return [title, f"{cost.cpu_seconds:,.1f}", f"{cost.steps:,.0f}", f"{cost.parameters:,}"]


def advice_rows(result: Result) -> Rows:
    return [[each.task, each.cure, each.reason, each.keys or "-"] for each in result.advice]


def as_json(result: Result) -> str:
    """Return the document of `transfer.json`."""
    advice = {each.task: each for each in result.advice}
    made = {
        "name": result.name,
        "seeds": result.seeds,
        "tasks": {each.task: _task_document(each, advice[each.task]) for each in result.transfers},
        "affinity": [{**asdict(each), "mean": each.mean} for each in result.affinities],
        "cost": [{**asdict(each), "task": each.task} for each in result.costs],
        "notes": result.notes,
    }
    return json.dumps(made, indent=2, ensure_ascii=False) + "\n"


def _task_document(found: Transfer, advice: Advice) -> dict[str, object]:
    return {
        "set": found.set,
        "rows": found.rows,
        **found.difference._asdict(),
        "smallest_loss": found.smallest_loss,
        "training_loss": None if found.losses is None else dict(zip(("alone", "joint"), found.losses, strict=True)),
        "advice": advice.cure,
        "reason": advice.reason,
        "keys": advice.keys,
    }


def as_markdown(result: Result) -> str:
    """Return `transfer.md`."""
    seeds = ", ".join(map(str, result.seeds))
    lines = [f"# {result.name}: each task alone against all jointly", "", f"Seeds {seeds}. {NOTES[0]}", ""]
    lines += [*(f"- {note}" for note in result.notes), *([""] if result.notes else [])]
    lines += _table(DIFFERENCES, difference_rows(result))
    if result.affinities:
        lines += ["## Cosine between gradients", "", NOTES[1], "", *_table(AFFINITIES, affinity_rows(result))]
    lines += ["## Cost", "", "Means over the seeds.", "", *_table(COSTS, cost_rows(result))]
    lines += ["## Advice", "", *_table(ADVICE, advice_rows(result))]
    return "\n".join(lines)


def _table(columns: Sequence[str], rows: Rows) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield f"|{' --- |' * len(columns)}"
    for row in rows:
        cells = (cell.replace("|", r"\|") for cell in row)
        yield f"| {' | '.join(cells)} |"
    yield ""


def summary(result: Result) -> list[str]:
    """Return the advice as lines for a terminal."""
    return [
        f"{each.task}: {each.cure}: {each.reason}" + (f" `{each.keys}`" if each.keys else "")
        for each in result.advice
        if each.cure is not Cure.NOTHING
    ] or ["no task is hurt: leave the recipe as it is"]
