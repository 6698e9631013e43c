"""The phases of a training, one after the other: each begins from the best checkpoint of the one before.

What a phase holds the other tasks to are answers of the network at its beginning, which is kept as `phase-N.safetensors`
until the next phase begins; so an interrupted run goes on in the phase that it was in.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from safetensors.numpy import load_file
from torch import nn

from ..compute import dealing
from ..compute.failures import memory_of
from ..compute.phase_rows import count_phase_rows
from ..model.network import logits_of
from ..recipe.keys.phases import Phase
from ..recipe.phase_recipe import is_self_training, recipe_of
from ..recipe.recipe import Recipe
from ..run_folders.run_folder import WEIGHTS, PhaseRecord, count_steps
from .checkpoint import restore
from .rows.encoding import Part, number_texts
from .rows.soft_targets import Held
from .self_training.phase import Guessed, guess_texts, keep_or_undo, note_outcome, taught_task
from .setup import Fitting, Standing, narrow
from .start.freezing import freeze
from .weights.make import make_weighting


@dataclass(frozen=True)
class Base:
    """A run as it was prepared."""

    recipe: Recipe
    train: list[Part]
    trained: frozenset[str]


def run_phases(
    run: Fitting, train: Callable[[bool], None], *, resumed: bool, finish: bool, write: Callable[[str], Any]
) -> None:
    """Train each phase in turn, from the one that `run.standing` names. `train` is called with whether its phase is resumed.

    With `finish` no further phase is started.
    """
    base = Base(run.recipe, run.train, run.trained)
    first = run.standing.phase
    for number in range(first, len(base.recipe.phases)):
        goes_on = resumed and number == first
        begin_phase(run, base, number, goes_on=goes_on)
        phase, guessed = base.recipe.phases[number], None
        if is_self_training(base.recipe, phase):
            guessed = begin_self_training(run, phase)
        write(f"phase {phase.name}: {count_steps(len(run.plan))}, tasks {', '.join(sorted(run.taught))}")
        if run.plan:
            train(goes_on)
        run.further_phases = len(base.recipe.phases) - number - 1
        if finish:
            break
        if guessed is not None:
            end_self_training(run, number, guessed, write)
        run.standing.phases.append(record_of_phase(run, phase))
    run.recipe, run.train = base.recipe, base.train


def record_of_phase(run: Fitting, phase: Phase) -> PhaseRecord:
    """Return how the phase went that the run is in."""
    at = run.standing
    tasks = sorted(run.taught)
    return PhaseRecord(
        name=phase.name,
        tasks=tasks,
        steps=at.step,
        best_step=at.best_step,
        validation=at.scores,
        rows_read=run.rows_read,
    )


def begin_phase(run: Fitting, base: Base, number: int, *, goes_on: bool) -> None:
    """Put the run at the beginning of a phase; where it `goes_on` in one, its standing stays as it is."""
    phase, names = base.recipe.phases[number], [data.name for data in run.tasks]
    run.recipe = recipe_of(base.recipe, phase)
    run.taught = frozenset(phase.tasks or names)
    if number:
        _restore_beginning(run, number, goes_on=goes_on)
    if not goes_on and number:
        before = run.standing
        run.standing = Standing(
            phase=number,
            before=before.before + before.step,
            phases=before.phases,
            smoothed=before.smoothed,
            cpu_seconds=before.cpu_seconds,
        )
    set_dropout(run, run.recipe.dropout)
    freeze(run.model, run.recipe.freeze, base.trained)
    held = (
        ()
        if _is_frozen(run) or not phase.held_rows
        else [at for at, name in enumerate(names) if name not in run.taught]
    )
    run.train = [hold_part(run, at, part) if at in held else part for at, part in enumerate(base.train)]
    run.plan = [] if is_self_training(base.recipe, phase) else lay_out_phase(run, phase, [*held])
    run.weighting = make_weighting(run.recipe, run.tasks, [len(part.ids) for part in base.train])
    run.inputs_sha256 = None


def begin_self_training(run: Fitting, phase: Phase) -> Guessed:
    """Let the network guess the texts, and lay out the phase with those that are learned; without any it has no step."""
    settings = run.recipe.self_training
    assert settings is not None, "the phase is that of self-training"
    run.model.widen()
    guessed, task = guess_texts(run, settings), taught_task(run)
    if guessed.part is not None:
        run.train[task] = guessed.part
        run.plan = lay_out_phase(run, phase, [at for at, data in enumerate(run.tasks) if data.name not in run.taught])
    narrow(run.recipe, run.model, [*run.train, *run.validation], run.checkpoint.special)
    run.model.to(run.device)
    freeze(run.model, run.recipe.freeze, run.trained)
    run.guessed = guessed.sha256
    return guessed


def end_self_training(run: Fitting, number: int, guessed: Guessed, write: Callable[[str], Any]) -> None:
    """Keep what was learned where validation is not worse, and say so."""
    if guessed.part is not None:
        keep_or_undo(run, number, guessed.said, write)
    else:
        run.standing.scores = run.standing.phases[-1].validation
        note_outcome(run, taught_task(run), f"nothing is learned: {guessed.said}", write)


def _is_frozen(run: Fitting) -> bool:
    return not any(parameter.requires_grad for parameter in run.model.encoder.parameters())


def _restore_beginning(run: Fitting, number: int, *, goes_on: bool) -> None:
    folder = run.folder
    kept, learned = folder.phase_start(number), folder.phase_end(number)
    if not goes_on:
        folder.put(folder.path / WEIGHTS, kept)
    elif learned.is_file():  # the run was interrupted when the phase may have been undone: it is decided again
        folder.put(learned, folder.path / WEIGHTS)
    restore(run.model, dict(load_file(kept)), low_rank=run.recipe.low_rank)
    narrow(run.recipe, run.model, [*run.train, *run.validation], run.checkpoint.special)
    run.model.to(run.device)


def set_dropout(run: Fitting, share: float) -> None:
    """Set the share that is dropped of the encoder's states and attention, and in heads and decoders. LoRA has its own."""
    for name, module in run.model.named_modules():
        if isinstance(module, nn.Dropout) and "lora" not in name:
            module.p = share


@memory_of("answers that other tasks are held to", "lower max_tokens, or set `held_rows: 0`")
def hold_part(run: Fitting, task: int, part: Part) -> Part:
    """Return rows whose targets are what the network answers now."""
    found = logits_of(run.model, task, part.ids, device=run.device, bf16=False)
    every = np.ones(len(run.tasks[task].labels), dtype=np.bool_)
    return replace(part, held={row: Held(logits, every) for row, logits in enumerate(found)}, taught=None)


def lay_out_phase(run: Fitting, phase: Phase, held: list[int]) -> list[dealing.StepRows]:
    """Return the rows of each step: those of the phase's tasks by their shares, and so many of the held tasks beside them."""
    names = [data.name for data in run.tasks]
    rows = {name: len(part.ids) for name, part in zip(names, run.train, strict=True)}
    counted = count_phase_rows(run.recipe, phase, rows, [names[at] for at in held])
    tasks = [names.index(name) for name in counted.tasks]
    parts = [run.train[task] for task in tasks]
    lengths, seed = [part.lengths for part in parts], run.recipe.seed + run.standing.phase
    dealt = dealing.deal(lengths, counted.steps, seed, number_texts(parts))
    return [[(tasks[at], own_rows) for at, own_rows in step] for step in dealt]
