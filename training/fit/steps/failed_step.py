"""A step that cannot be taken: a loss that is not finite, whose rows are saved, or too little memory, with what the step reads."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ....runtime.errors import SetupError
from ...compute.dealing import StepRows
from ...compute.failures import name_some
from ...data.example import Example
from ...prepare.label_names import with_place_of_name
from ...prepare.tasks import TaskData
from ...run_folders.os_errors import write_text
from ...run_folders.run_folder import FAILED_STEP
from ..setup import Fitting
from ..start.few_rows import learned_examples
from .gradient import rows_of_process


@dataclass(frozen=True)
class FailedStep:
    """A step whose loss or gradient is not finite. `task` is None where the gradient alone is not."""

    step: int
    task: str | None
    losses: Mapping[str, float]
    norm: float
    rows: StepRows
    stage: str = ""
    """The stage after the first one whose step it is."""


class NotFinite(SetupError):
    """A step whose loss or gradient is not finite; the optimiser has not used it."""

    def __init__(self, why: str, step: FailedStep) -> None:
        super().__init__(why)
        self.step = step


def refuse_non_finite(
    run: Fitting,
    step: int,
    rows: StepRows,
    losses: Mapping[int, float],
    norm: float,
    scale: float = 1.0,
    *,
    stage: str = "",
    lower: str = "optimiser.encoder_lr",
) -> None:
    """Stop before the optimiser uses a gradient that is not finite. NotFinite names the task and the rows, and what to `lower`.

    Of losses that were scaled for fp16 the gradient may be infinite: the step is left out and the scale halved. A scale of
    1 leaves nothing to halve.
    """
    by_name = {run.tasks[task].name: loss for task, loss in losses.items()}
    at = f"{stage}: step {step}" if stage else f"step {step}"
    for task, loss in losses.items():
        if not math.isfinite(loss):
            name, places = run.tasks[task].name, _places(run, task, dict(rows)[task])
            raise NotFinite(
                f"{at}: the loss of task {name} is {loss} on {places}; look at these rows, or lower {lower}",
                FailedStep(step, name, by_name, norm, rows, stage),
            )
    if not math.isfinite(norm) and scale <= 1:
        found = "; ".join(f"task {run.tasks[task].name}: {_places(run, task, own)}" for task, own in rows)
        raise NotFinite(
            f"{at}: the gradient is {norm} on {found}; lower {lower}",
            FailedStep(step, None, by_name, norm, rows, stage),
        )


def save_rows(run: Fitting, error: NotFinite, *, texts: bool, path: Path | None = None) -> NotFinite:
    """Write all rows of the step into the run folder, or to `path`, and return the error with the path. Without `texts` rows have
    their place alone.
    """
    path, failed = path or run.folder.path / FAILED_STEP, error.step
    found = {
        "step": failed.step,
        **({"stage": failed.stage} if failed.stage else {}),
        "task": failed.task,
        "losses": {name: repr(loss) for name, loss in failed.losses.items()},
        "gradient": repr(failed.norm),
        "rows": {
            run.tasks[task].name: [
                {"place": each.place} | (_say_row(run.tasks[task], each) if texts else {})
                for each in _learned(run, task, own)
            ]
            for task, own in failed.rows
        },
    }
    if run.accelerator.is_main_process:
        write_text(path, json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    return NotFinite(f"{error}; all rows of the step: {path}", failed)


def _places(run: Fitting, task: int, rows: list[int]) -> str:
    return name_some([each.place for each in _learned(run, task, rows)], "rows")


def _learned(run: Fitting, task: int, rows: list[int]) -> list[Example]:
    """Return rows that a task learns, with their places: training rows, names of labels, and texts with guesses."""
    data = run.tasks[task]
    names = learned_examples([data], run.few)[0][len(data.train) :]
    every = [*data.train, *map(with_place_of_name, names), *run.guesses.get(task, ())]
    return [every[row] for row in rows]


def _say_row(data: TaskData, row: Example) -> dict[str, Any]:
    """Return what is read of a row, and what it is to be answered."""
    read = {"given": row.text if row.second is None else [row.text, row.second]}
    if data.kind.generates:
        return read | {"reply": row.reply}
    if data.kind.per_token:
        return read | {"spans": [{"start": each.start, "end": each.end, "label": each.label} for each in row.spans]}
    return read | {"labels": [*row.labels]}


def describe_memory(run: Fitting, step: int, rows: StepRows) -> tuple[str, str]:
    """Return what this process reads in a step, and what to lower where that does not fit into the memory."""
    recipe, processes = run.recipe, run.accelerator.num_processes
    own = rows_of_process(run, rows)
    counts = ", ".join(f"{run.tasks[task].name} {len(every)}" for task, every in own)
    longest = max((run.train[task].lengths[row] for task, every in own for row in every), default=0)
    parts = f" in {recipe.accumulate} parts" if recipe.accumulate > 1 else ""
    parts += f" in one of {processes} processes" if processes > 1 else ""
    return (
        f"step {step}: out of memory with {sum(len(every) for _, every in own)} rows ({counts}){parts}, the longest of {longest} tokens",
        f"lower batch_size ({recipe.batch_size}) or max_tokens ({recipe.max_tokens}), or raise accumulate ({recipe.accumulate})",
    )
