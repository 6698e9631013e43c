"""What `run.json` says of a run, and whether the run has come to its end."""

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from ...schemas.manifest import EncoderSpec
from ..pretrain.encoder_folder import describe_pretraining
from ..recipe.phase_recipe import recipe_of
from ..run_folders.provenance import describe_environment
from ..run_folders.run_folder import RunRecord
from ..run_folders.smaller import read_stage
from .progress.validation import finished_specs
from .setup import Fitting


def is_out_of_patience(run: Fitting) -> bool:
    """True when the last scorings were no better and the recipe, or the phase that the run is in, ends it for that."""
    recipe, phases = run.recipe, run.recipe.phases
    patience = (recipe_of(recipe, phases[run.standing.phase]) if phases else recipe).budget.patience
    return patience is not None and run.standing.stale >= patience


def is_interrupted(run: Fitting) -> bool:
    """True when the run was ended before its plan and its patience were at their end."""
    return bool(run.further_phases) or (run.standing.step < len(run.plan) and not is_out_of_patience(run))


def spec_of(run: Fitting) -> EncoderSpec:
    """Return the spec of the encoder as it has been trained."""
    method, spec = run.model.method, run.checkpoint.spec
    return spec if method is None else method.extend(spec)


def _rows_of_all_phases(run: Fitting) -> dict[str, int]:
    """Return the rows of each task that were read in the phases that have ended, and in the one that the run is in.

    Empty where an earlier version took a phase, and did not count them.
    """
    ended = [phase.rows_read for phase in run.standing.phases]
    if not all(ended):
        return {}
    is_in_one = len(ended) <= run.standing.phase
    read = [*ended, *([run.rows_read] if is_in_one else [])]
    return {data.name: sum(each.get(data.name, 0) for each in read) for data in run.tasks}


def record_of(run: Fitting, data_files: dict[str, str], out_of_fold: Mapping[int, Sequence[NDArray[Any]]]) -> RunRecord:
    """Return what `run.json` says of the run; the network holds what ships. `out_of_fold` as in `finished_specs`."""
    recipe = run.recipe
    return RunRecord(
        name=recipe.name,
        encoder=spec_of(run),
        encoder_folder=str(run.checkpoint.folder or ""),
        tasks=finished_specs(run, out_of_fold),
        max_tokens=recipe.max_tokens,
        pooled=bool(recipe.pooled),
        recipe_sha256=run.folder.recipe_sha256,
        attribution=recipe.attribution,
        low_rank=recipe.low_rank,
        seed=recipe.seed,
        steps=run.standing.before + run.standing.step,
        planned_steps=run.standing.before + len(run.plan),
        interrupted=is_interrupted(run),
        best_step=run.standing.before + run.standing.best_step,
        phases=run.standing.phases,
        rows_read=_rows_of_all_phases(run),
        trained=run.trained_count,
        cpu_seconds=round(run.standing.cpu_seconds, 1),
        validation=run.standing.scores,
        data=run.data,
        grown=run.grown,
        environment=describe_environment(run.device, precision=run.precision, processes=run.accelerator.num_processes),
        pretraining=describe_pretraining(run.checkpoint.folder),
        data_files=data_files,
        smaller=read_stage(run.checkpoint.folder),
        teachers={
            data.name: part.taught.teacher for data, part in zip(run.tasks, run.train, strict=True) if part.taught
        },
    )
