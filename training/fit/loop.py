"""The training loop: a recipe and data go in, a run folder with the best checkpoint comes out."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from tqdm import tqdm

from ...runtime.errors import SetupError
from ...runtime.model.inputs import TextPair
from ..compute.device import is_first_process
from ..compute.failures import in_one_line, memory_of_step
from ..compute.optimiser import rate_at, seed_step, set_rates
from ..compute.state_file import CannotResume
from ..compute.timer import Timer
from ..prepare.data_report import describe, describe_probes, describe_skipped
from ..pretrain.stage import run_stage
from ..pretrain.unlabelled import read_unlabelled
from ..recipe.idle.frozen_keys import describe_frozen_keys
from ..recipe.last_phase import with_self_training
from ..recipe.recipe import Encoder, Recipe, load_recipe
from ..run_folders.overlaps import refuse_run_overlaps
from ..run_folders.provenance import digest_data
from ..run_folders.run_folder import RECORD, RunFolder, RunRecord, digest
from ..smaller import stage as smaller_stage
from .check_data import describe_notes, refuse_recipe
from .checkpoint import checkpoint_weights, restore
from .finish.add_vectors import add_vectors, lacks_vectors_alone
from .finish.head_finish import Refit, refit_heads, set_heads
from .finish.kept_tasks import add_tasks, keep_tasks
from .finish.second_stage import run_second_stages
from .finish.vector_head import distil_vectors
from .label_quality.check import find_label_errors
from .phases import run_phases
from .probe.head_start import begin_learning
from .probe.probe import probe_tasks
from .progress.training_log import EVERY, TrainingLog, open_bar
from .progress.validation import describe_votes, validate
from .record import is_interrupted, is_out_of_patience, record_of
from .rows.pooled_texts import needs_states, pool_texts
from .setup import Fitting, Material, prepare
from .start.optimiser import make_optimiser
from .state.pace import CpuClock
from .state.processes import begin_together, end_together, scale_of
from .state.resume import State, read_state, save_state
from .steps.failed_step import NotFinite, describe_memory, refuse_non_finite, save_rows
from .steps.gradient import compute_gradient
from .steps.joint_step import loss_weights
from .steps.step import take_step


@dataclass(frozen=True)
class Progress:
    """Where a run is: the smoothed loss of each task and, where it has just been scored, its validation metrics; else these are empty."""

    step: int
    steps: int
    loss: dict[str, float]
    metrics: dict[str, dict[str, float]]


PROGRESS_S: Final = 5.0


def ignore(_: object) -> None:
    """Do nothing."""


@in_one_line()
def fit(
    recipe_path: Path,
    data: Path,
    out: Path,
    *,
    seed: int | None = None,
    encoder: Path | None = None,
    add_to: Path | None = None,
    quiet: bool = False,
    resume: bool = False,
    finish: bool = False,
    texts: bool = True,
    on_progress: Callable[[Progress], None] = ignore,
    print_line: Callable[[str], None] = ignore,
) -> RunRecord:
    """Train as the recipe says; `seed` and `encoder`, a folder, override the recipe's. With `add_to`, a model's folder, only
    the tasks that this model lacks are trained, on its encoder as it is. Without `texts` no doubted label, and no row of a step that
    failed, is kept with its text.
    `on_progress` is called at each scoring of the validation parts, and every five seconds between them, `print_line` with what was
    read, before the first step.

    A recipe with `pretrain` begins with that stage, unless an `encoder` is given.

    With `resume` the run in `out` goes on where its state was last written, or begins where it had none. With `finish` it
    takes no more steps: its record is that of the run as far as it got.

    Of several processes each calls this, and the first one prints, scores and writes.
    Raises SetupError for whatever is wrong beforehand, CannotResume where the interrupted run belongs to something else.
    """
    folder = RunFolder(out)
    if add_to is not None and lacks_vectors_alone(recipe := load_recipe(recipe_path), add_to):
        return add_vectors(recipe_path, recipe, data, add_to, folder, ignore if quiet else tqdm.write)
    recipe = _read_recipe(recipe_path, seed, encoder, add_to)
    refuse_run_overlaps(recipe, out)
    if (resume or finish) and (record := finished_record(folder, recipe_path)):
        return record
    state = read_state(folder, recipe_path) if resume or finish else None
    if state is not None:
        recipe = state.pinned(recipe)
    elif finish:
        raise SetupError(f"{out}: no interrupted run with a saved state; train without --finish")
    say = print_line if is_first_process() else ignore
    for line in describe_frozen_keys(load_recipe(recipe_path), adds=add_to is not None):
        say(line)
    refuse_recipe(recipe)
    recipe = run_stage(recipe, recipe_path, data, out, resume=resume or finish, quiet=quiet, print_line=say)
    recipe = smaller_stage.run_stage(recipe, out, resume=resume or finish, is_first=is_first_process())
    run = open_run(recipe, data, folder)
    if not run.accelerator.is_main_process:
        quiet, on_progress, print_line = True, ignore, ignore
    if state is not None and not finish:
        state.refuse_other_processes(run)
    notes = describe_notes(run.recipe, run.tasks, run.few)
    for line in [*describe_skipped(recipe.skipped), *notes, *describe(run.data, recipe.max_tokens)]:
        print_line(line)
    if state is None and run.accelerator.is_main_process:
        folder.begin(recipe_path, run.checkpoint.tokenizer, staged=bool(recipe.pretrain or recipe.smaller))
    begin_learning(run, probe_tasks(run))
    for line in [*describe_probes(run.data), *find_label_errors(run, out, texts=texts)]:
        print_line(line)
    data_files = digest_data(recipe, data)
    write = ignore if quiet else tqdm.write
    try:
        train_all(run, state=state, finish=finish, quiet=quiet, on_progress=on_progress)
        if run.accelerator.is_main_process:
            write_result(run, data_files, write, further=not finish)
    except NotFinite as error:
        raise save_rows(run, error, texts=texts and recipe.report.texts) from None
    end_together(run.accelerator)
    return folder.record()


def _read_recipe(path: Path, seed: int | None, encoder: Path | None, add_to: Path | None) -> Recipe:
    recipe = load_recipe(path)
    if seed is not None:
        recipe = recipe.model_copy(update={"seed": seed})
    if encoder is not None:
        recipe = recipe.model_copy(update={"encoder": Encoder(source=str(encoder)), "pretrain": None, "smaller": None})
    return with_self_training(recipe if add_to is None else add_tasks(recipe, add_to))


def open_run(recipe: Recipe, data: Path, folder: RunFolder, material: Material | None = None) -> Fitting:
    """Make a run with all that it reads; `material` as in `prepare`."""
    run = prepare(recipe, data, folder, material)
    run.unlabelled = read_unlabelled(recipe, run.tasks, data)
    return run


def finish_best(run: Fitting, write: Callable[[str], Any] = ignore, *, further: bool) -> tuple[Refit, bool]:
    """Go back to the best checkpoint, take the second stages (where `further`), and refit the heads of few rows, which scores them
    anew. Return what was fitted, and whether the network is another one than the checkpoint.
    """
    restore(run.model, run.folder.weights(), low_rank=run.recipe.low_rank)
    kept = further and run_second_stages(run, write)
    refit = refit_heads(run)
    set_heads(run, refit)
    return refit, refit.has_changed or kept


def train_all(
    run: Fitting, *, state: State | None, finish: bool, quiet: bool, on_progress: Callable[[Progress], None]
) -> None:
    """Go through the phases of the recipe from where the state left them, or through the one that it has without any."""
    if not run.recipe.phases:
        train(run, state=state, finish=finish, quiet=quiet, on_progress=on_progress)
        return
    if state is not None:
        run.standing = state.position.standing.model_copy(deep=True)

    def train_phase(goes_on: bool) -> None:
        train(run, state=state if goes_on else None, finish=finish, quiet=quiet, on_progress=on_progress)

    write = ignore if quiet else tqdm.write
    run_phases(run, train_phase, resumed=state is not None, finish=finish, write=write)


def train(
    run: Fitting,
    *,
    state: State | None = None,
    finish: bool = False,
    quiet: bool = False,
    on_progress: Callable[[Progress], None] = ignore,
) -> None:
    """Go through the plan from where the state left it; score the validation parts on the way and keep the best checkpoint."""
    recipe, accelerator, steps = run.recipe, run.accelerator, len(run.plan)
    run.model.to(run.device)
    optimiser, rate = (
        accelerator.prepare_optimizer(make_optimiser(recipe, run.model, run.weighting)),
        rate_at(recipe, steps),
    )
    if run.model.method is not None:
        run.model.method.begin(steps)
    if state is not None:
        state.restore(run, optimiser)
    pool_frozen(run)
    begin_together(run)
    if state is None and run.standing.phase and accelerator.is_main_process:
        save_state(run, optimiser)  # an interrupted run goes on in this phase
        run.folder.remove_phase_starts(but=run.standing.phase)
    weights = loss_weights(recipe, run.tasks)
    scored_at = {round(steps * k / recipe.budget.evaluations) for k in range(1, recipe.budget.evaluations + 1)}
    clock, saves, reports = CpuClock(run), Timer(60 * recipe.save_minutes), Timer(PROGRESS_S)
    write = ignore if quiet else tqdm.write
    if line := describe_votes(run.voting_rows):
        write(line)
    with TrainingLog(run) as log, open_bar(run, quiet=quiet) as bar:
        while run.standing.step < steps and not finish and not is_out_of_patience(run):
            step, rows = run.standing.step + 1, run.plan[run.standing.step]
            is_logged = step % EVERY == 0 or step in scored_at
            set_rates(optimiser, rate(run.standing.step))
            seed_step(recipe.seed, step, accelerator.process_index)
            run.model.train()
            with memory_of_step(partial(describe_memory, run, step, rows)):
                found = compute_gradient(run, rows, weights, cpu_seconds=clock.own, measured=is_logged)
                refuse_non_finite(run, step, rows, found.losses, found.norm, scale_of(accelerator))
                take_step(run, optimiser, rows, found.losses, weights)
            run.standing.step = step

            log.add_step(found)
            if is_logged:
                log.write_step(step, optimiser, found)
                bar.set_postfix({name: f"{mean:.3f}" for name, mean in run.standing.smoothed.items()}, refresh=False)
            bar.update()
            if step in scored_at or reports.is_due():
                scores = validate(run, step, log, write) if step in scored_at else {}
                on_progress(Progress(step, steps, dict(run.standing.smoothed), scores))
            clock.stop(others=found.other_cpu_seconds)
            if saves.is_due() and accelerator.is_main_process:
                save_state(run, optimiser)
        if finish and run.standing.step != run.standing.best_step:
            validate(run, run.standing.step, log, write)
    if accelerator.is_main_process and any(data.task.objective for data in run.tasks):
        save_state(run, optimiser)  # a second stage that is interrupted goes on from the end of the first
    if is_out_of_patience(run) and run.standing.step < steps:
        write(f"no better for {run.standing.stale} evaluations: ended at step {run.standing.step}")


def pool_frozen(run: Fitting) -> None:
    """Let a frozen encoder read the training rows of the tasks that need no more than a vector of each."""
    if not run.model.has_frozen_encoder or run.recipe.word_dropout:
        return
    began = time.process_time()
    for at, (data, part) in enumerate(zip(run.tasks, run.train, strict=True)):
        if not needs_states(data.kind):
            pooled = pool_texts(run.model, at, part.ids, device=run.device, bf16=run.bf16)
            run.train[at] = replace(part, pooled=pooled)
    run.standing.cpu_seconds += time.process_time() - began


def write_result(
    run: Fitting, data_files: dict[str, str], write: Callable[[str], Any] = ignore, *, further: bool = True
) -> None:
    """Take the second stages (unless not `further`), refit the heads of few rows in the best checkpoint, calibrate it, and write
    the record; an interrupted run keeps its state.
    """
    folder, low_rank = run.folder, run.recipe.low_rank
    if pairs := validation_pairs(run):
        folder.save_pairs(pairs)
    if is_interrupted(run):
        restore(run.model, folder.weights(), low_rank=low_rank)
        folder.save_record(*keep_tasks(run, *distil_vectors(run, record_of(run, data_files, {}), None, write)))
        return
    refit, changed = finish_best(run, write, further=further)
    record = record_of(run, data_files, refit.out_of_fold)
    weights = checkpoint_weights(run.model, low_rank=low_rank) if changed else None
    folder.save_record(*keep_tasks(run, *distil_vectors(run, record, weights, write)))
    folder.remove_state()


def validation_pairs(run: Fitting) -> dict[str, list[TextPair]]:
    """Return the validation rows of tasks that generate: the export holds what is served against torch on them."""
    return {
        data.name: [each for example in data.validation if isinstance(each := example.given, TextPair)]
        for data in run.tasks
        if data.kind.generates
    }


def finished_record(folder: RunFolder, recipe: Path) -> RunRecord | None:
    """Return the record of a run that has come to its end, None where it has not. CannotResume for another recipe's."""
    if not (folder.path / RECORD).is_file():
        return None
    record = folder.record()
    if record.recipe_sha256 != digest(recipe):
        raise CannotResume(f"{recipe}: not the recipe that {folder.path} was begun with")
    if record.interrupted:
        return None
    folder.remove_state()  # a kill may have left it behind the record
    return record
