"""A step of a pre-training that cannot be taken: one that is not finite, whose texts are named, or too little memory."""

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from ...runtime.errors import SetupError
from ..compute.failures import is_out_of_memory, shown
from ..run_folders.os_errors import write_text
from ..run_folders.run_folder import FAILED_STEP
from .network import Pretrained
from .objectives.objective import Objective

NAMED_ROWS: Final = 5


def refuse_loss(run: Pretrained, step: int, objective: Objective, rows: Sequence[int], loss: float) -> None:
    """Stop before the optimiser uses a loss that is not finite, and save where its texts stand."""
    if math.isfinite(loss):
        return
    path, places = run.folder.path / FAILED_STEP, [objective.place(row) for row in rows]
    found = {"step": step, "objective": objective.name, "loss": repr(loss), "rows": places}
    write_text(path, json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    more = f" and {len(places) - NAMED_ROWS} more texts" if len(places) > NAMED_ROWS else ""
    raise SetupError(
        f"pretrain: step {step}: the loss of {objective.name} is {loss} on {', '.join(places[:NAMED_ROWS])}{more}; look at these "
        f"texts, or lower pretrain.lr; all texts of the step: {path}"
    )


@contextmanager
def memory_of_step(run: Pretrained, step: int, objectives: Sequence[Objective]) -> Iterator[None]:
    """Raise SetupError with what the step reads, and what to lower, where it does not fit into the memory."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        rows = run.plan[step - 1]
        longest = max(each.lengths[row] for each, own in zip(objectives, rows, strict=True) for row in own)
        raise SetupError(
            f"pretrain: step {step}: out of memory with {run.settings.batch_size} rows of {', '.join(o.name for o in objectives)}, the "
            f"longest of {longest} tokens; lower pretrain.batch_size ({run.settings.batch_size}) or max_tokens "
            f"({run.recipe.max_tokens}): {shown(error)}"
        ) from None
