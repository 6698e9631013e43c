"""A step of a pre-training that cannot be taken: one that is not finite, whose texts are named, or too little memory."""

import json
import math
from collections.abc import Mapping, Sequence

from ...runtime.errors import SetupError
from ..compute.failures import name_some
from ..run_folders.os_errors import write_text
from ..run_folders.run_folder import FAILED_STEP
from .network import Pretrained
from .objectives.objective import Objective

Places = Mapping[str, Sequence[str]]
"""Where the texts of a step stand, by objective."""


def refuse_loss(run: Pretrained, step: int, name: str, losses: Mapping[str, float]) -> None:
    """Stop before the optimiser uses the loss of an objective that is not finite, and save where the texts of the step stand.
    `losses` are those until then.
    """
    if math.isfinite(losses[name]):
        return
    places = _places_of(run, step)
    raise SetupError(
        f"pretrain: step {step}: the loss of {name} is {losses[name]} on {name_some(places[name], 'texts')}; look at these texts, or "
        f"lower pretrain.lr; {_save(run, step, name, losses, None, places)}"
    )


def refuse_gradient(run: Pretrained, step: int, losses: Mapping[str, float], norm: float, scale: float) -> None:
    """Do so with a gradient that is not finite, unless it was scaled for fp16, where the step is left out."""
    if math.isfinite(norm) or scale > 1:
        return
    places = _places_of(run, step)
    named = "; ".join(f"{name}: {name_some(own, 'texts')}" for name, own in places.items())
    raise SetupError(
        f"pretrain: step {step}: the gradient is {norm} on {named}; lower pretrain.lr; "
        f"{_save(run, step, None, losses, norm, places)}"
    )


def _places_of(run: Pretrained, step: int) -> Places:
    rows = zip(run.network.objectives, run.plan[step - 1], strict=True)
    return {objective.name: [objective.place(row) for row in own] for objective, own in rows}


def _save(
    run: Pretrained, step: int, objective: str | None, losses: Mapping[str, float], norm: float | None, places: Places
) -> str:
    """Write where all texts of the step stand into the run folder, and return words with the path."""
    path = run.folder.path / FAILED_STEP
    found = {
        "step": step,
        "objective": objective,
        "losses": {name: repr(loss) for name, loss in losses.items()},
        "gradient": None if norm is None else repr(norm),
        "rows": places,
    }
    write_text(path, json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    return f"all texts of the step: {path}"


def describe_memory(run: Pretrained, step: int, objectives: Sequence[Objective]) -> tuple[str, str]:
    """Return what a step reads, and what to lower where that does not fit into the memory."""
    rows = run.plan[step - 1]
    longest = max(each.lengths[row] for each, own in zip(objectives, rows, strict=True) for row in own)
    return (
        f"pretrain: step {step}: out of memory with {run.settings.batch_size} rows of {', '.join(o.name for o in objectives)}, the "
        f"longest of {longest} tokens",
        f"lower pretrain.batch_size ({run.settings.batch_size}) or max_tokens ({run.recipe.max_tokens})",
    )
