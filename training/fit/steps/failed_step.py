"""A step that cannot be taken: a loss that is not finite, whose rows are saved, or too little memory, with what the step reads."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from ....runtime.errors import SetupError
from ...compute.dealing import StepRows
from ...compute.failures import is_out_of_memory, shown
from ...prepare.tasks import TaskData
from ...run_folders.os_errors import write_text
from ...run_folders.run_folder import FAILED_STEP
from ..setup import Fitting

NO_ROW: Final = "the name of a label"


@dataclass(frozen=True)
class FailedStep:
    """A step whose loss or gradient is not finite. `task` is None where the gradient alone is not."""

    step: int
    task: str | None
    losses: Mapping[str, float]
    norm: float
    rows: StepRows


class NotFinite(SetupError):
    """A step whose loss or gradient is not finite; the optimiser has not used it."""

    def __init__(self, why: str, step: FailedStep) -> None:
        super().__init__(why)
        self.step = step


def save_rows(run: Fitting, error: NotFinite, *, texts: bool) -> NotFinite:
    """Write all rows of the step into the run folder, and return the error with the path. Without `texts` rows have their place alone."""
    path, failed = run.folder.path / FAILED_STEP, error.step
    found = {
        "step": failed.step,
        "task": failed.task,
        "losses": {name: repr(loss) for name, loss in failed.losses.items()},
        "gradient": repr(failed.norm),
        "rows": {run.tasks[task].name: _rows(run.tasks[task], own, texts=texts) for task, own in failed.rows},
    }
    if run.accelerator.is_main_process:
        write_text(path, json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    return NotFinite(f"{error}; all rows of the step: {path}", failed)


def _rows(data: TaskData, rows: list[int], *, texts: bool) -> list[dict[str, object]]:
    given = [data.train[row] if row < len(data.train) else None for row in rows]
    return [
        {"place": each.place if each is not None else NO_ROW}
        | ({"given": each.given, "labels": list(each.labels)} if texts and each is not None else {})
        for each in given
    ]


@contextmanager
def memory_of_step(run: Fitting, step: int, rows: StepRows) -> Iterator[None]:
    """Raise SetupError with rows and length of the step, and what to lower, where it does not fit into the memory."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        recipe = run.recipe
        counts = ", ".join(f"{run.tasks[task].name} {len(own)}" for task, own in rows)
        longest = max(run.train[task].lengths[row] for task, own in rows for row in own)
        parts = f" in {recipe.accumulate} parts" if recipe.accumulate > 1 else ""
        raise SetupError(
            f"step {step}: out of memory with {sum(len(own) for _, own in rows)} rows ({counts}){parts}, the longest of {longest} "
            f"tokens; lower batch_size ({recipe.batch_size}) or max_tokens ({recipe.max_tokens}), or raise accumulate "
            f"({recipe.accumulate}): {shown(error)}"
        ) from None
