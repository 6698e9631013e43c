"""The loop of a pre-training: texts go in, an encoder's folder comes out."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from tqdm import tqdm

from ...runtime.errors import SetupError
from ..compute.failures import in_one_line, memory_of_step
from ..compute.optimiser import make_torch_optimiser, rate_at, seed_step, set_rates
from ..compute.timer import Timer
from ..model.masked_head import HEAD
from ..prepare.tasks import TaskData
from ..recipe.keys.pretraining import Pretraining
from ..recipe.recipe import Recipe
from ..run_folders.curves import Curves
from ..run_folders.run_folder import RunFolder, count_steps, digest
from .encoder_folder import PretrainingRecord, find_problem, read_record, write_encoder
from .failed_step import describe_memory, refuse_gradient, refuse_loss
from .material import digest_files, read_material
from .network import Pretrained
from .objectives.objective import Objective
from .setup import lr_of, prepare
from .state import environment_of, read_state, save_state

EVERY: Final = 20
"""The most steps between two entries of the trackers."""
KEPT: Final = 0.98
"""How much of the smoothed loss remains at each step."""
FIRST: Final = 20
"""The first loss that is recorded is the mean of so many steps."""
NAMED_WORDS: Final = 5


def ignore(_: object) -> None:
    """Do nothing."""


@in_one_line("lower pretrain.batch_size or max_tokens")
def pretrain(
    recipe: Recipe,
    recipe_path: Path,
    data: Path,
    run_path: Path,
    out: Path,
    *,
    tasks: Sequence[TaskData] = (),
    resume: bool = False,
    quiet: bool = False,
    print_line: Callable[[str], None] = ignore,
) -> PretrainingRecord:
    """Pre-train as the recipe says, its state in the folder `run_path`, and write the encoder's folder `out`.

    `tasks`: whose training texts are read where the recipe names no texts. With `resume` it goes on where its state was last
    written; a finished one of this recipe is returned as it is.

    Raises SetupError for whatever is wrong beforehand, CannotResume where the state belongs to something else.
    """
    settings, folder, recipe_sha256 = recipe.pretrain, RunFolder(run_path), digest(recipe_path)
    assert settings is not None, "the caller has asked"
    if problem := find_problem(out):
        raise SetupError(problem)
    if resume and (record := read_record(out)) and record.recipe_sha256 == recipe_sha256:
        return record
    state = read_state(folder, recipe_sha256) if resume else None
    if state is not None:
        recipe = state.pinned(recipe)
    material = read_material(recipe, settings, data, tasks)
    run = prepare(recipe, settings, material, folder)
    for line in describe(run):
        print_line(line)
    if state is None:
        folder.begin(recipe_path, material.checkpoint.tokenizer)
    run.network.to(run.device)
    optimiser = run.accelerator.prepare_optimizer(_make_optimiser(recipe, settings, run))
    if state is not None:
        state.restore(run, optimiser)
    _take_steps(run, optimiser, quiet=quiet)
    record = _record_of(run, recipe_sha256, digest_files(settings, data))
    write_encoder(out, material.checkpoint.spec, _weights_of(run), material.checkpoint.tokenizer, record)
    folder.remove_state()
    return record


def describe(run: Pretrained) -> list[str]:
    """Return a line on the texts and one for each objective."""
    counts = {name: int(count) for name, count in run.counts.items()}
    of = f" of {counts['documents']} documents" if counts["documents"] else ""
    line = f"pretrain: {counts['texts']} texts{of}, {counts['tokens']} tokens"
    line += f", {counts['at_limit']} texts cut or as long as max_tokens" if counts["at_limit"] else ""
    line += f", unknown {run.counts['unknown_share']:.1%}" if run.counts["unknown_share"] else ""
    words = run.material.new_words
    shown = ", ".join(words[:NAMED_WORDS])
    new = [f"pretrain: {len(words)} new words: {shown}{', ...' if len(words) > NAMED_WORDS else ''}"] if words else []
    own = [f"pretrain: {each.name}: {each.describe()}, weight {each.weight:g}" for each in _objectives(run)]
    return [line, *new, *own, f"pretrain: {count_steps(len(run.plan))} of {run.settings.batch_size}"]


def _objectives(run: Pretrained) -> list[Objective]:
    return [*run.network.objectives]


def _make_optimiser(recipe: Recipe, settings: Pretraining, run: Pretrained) -> torch.optim.Optimizer:
    rate = lr_of(recipe, settings)
    groups = (
        ("encoder", run.network.encoder.parameters(), rate),
        ("heads", run.network.heads, max(rate, recipe.optimiser.head_lr)),
    )
    return make_torch_optimiser(groups, recipe.optimiser.weight_decay)


def _take_steps(run: Pretrained, optimiser: torch.optim.Optimizer, *, quiet: bool) -> None:
    steps, standing = len(run.plan), run.standing
    rate, saves = rate_at(run.recipe, steps), Timer(60 * run.recipe.save_minutes)
    before, since = standing.cpu_seconds, time.process_time()
    run.accelerator.init_trackers(run.recipe.name, init_kwargs={"tensorboard": {"purge_step": standing.step + 1}})
    curves = Curves(run.folder.path)
    curves.begin(standing.step)
    run.network.train()
    hidden = True if quiet else None
    try:
        with tqdm(
            total=steps, initial=standing.step, desc="pretrain", unit="step", disable=hidden, mininterval=2
        ) as bar:
            while standing.step < steps:
                step = standing.step + 1
                set_rates(optimiser, rate(standing.step))
                with memory_of_step(partial(describe_memory, run, step, _objectives(run))):
                    norm = _take_step(run, optimiser, step)
                standing.step = step
                standing.cpu_seconds = before + time.process_time() - since
                if step % EVERY == 0 or step == steps:
                    figures = {f"loss/{name}": loss for name, loss in standing.smoothed.items()}
                    figures |= {f"learning_rate/{group['name']}": group["lr"] for group in optimiser.param_groups}
                    figures["gradient/all"] = norm
                    run.accelerator.log(figures, step)
                    curves.add(step, figures)
                    bar.set_postfix({name: f"{loss:.3f}" for name, loss in standing.smoothed.items()}, refresh=False)
                bar.update()
                if saves.is_due() and step < steps:
                    save_state(run, optimiser)
    finally:
        for tracker in run.accelerator.trackers:
            tracker.finish()
        run.accelerator.trackers.clear()


def _take_step(run: Pretrained, optimiser: torch.optim.Optimizer, step: int) -> float:
    """Take one step over all objectives; return the norm of the gradient before the clip."""
    accelerator, losses = run.accelerator, {}
    rows_by_objective = run.plan[step - 1]
    for at, (objective, rows) in enumerate(zip(_objectives(run), rows_by_objective, strict=True)):
        draw = np.random.default_rng(seed_step(run.recipe.seed, step, at))
        with accelerator.autocast():
            loss = objective.loss(lambda ids: run.network.encode(ids, run.device), rows, draw)
        losses[objective.name] = float(loss.detach())
        refuse_loss(run, step, objective.name, losses)
        accelerator.backward(objective.weight * loss)
    norm = float(accelerator.clip_grad_norm_(run.network.parameters(), run.recipe.optimiser.clip))
    scale = accelerator.scaler.get_scale() if accelerator.scaler is not None else 1.0
    refuse_gradient(run, step, losses, norm, scale)
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    _smooth(run, losses, step)
    return norm


def _smooth(run: Pretrained, losses: dict[str, float], step: int) -> None:
    standing = run.standing
    for name, loss in losses.items():
        standing.smoothed[name] = KEPT * standing.smoothed.get(name, loss) + (1 - KEPT) * loss
        if step <= FIRST:
            standing.first[name] = standing.first.get(name, 0.0) + (loss - standing.first.get(name, 0.0)) / step


def _weights_of(run: Pretrained) -> dict[str, Any]:
    """Return the encoder and, where words were masked, its head under the names of BERT's own checkpoints."""
    arrays = {f"bert.{name}": p.detach().float().cpu().numpy() for name, p in run.network.encoder.named_parameters()}
    for objective in _objectives(run):
        if objective.name == "masked_words":
            own = {n: p for n, p in objective.head.named_parameters() if not n.startswith("decoder.")}
            arrays |= {f"{HEAD}{name}": p.detach().float().cpu().numpy() for name, p in own.items()}
    return arrays


def _record_of(run: Pretrained, recipe_sha256: str, data_files: dict[str, str]) -> PretrainingRecord:
    standing = run.standing
    return PretrainingRecord(
        name=run.recipe.name,
        encoder=run.recipe.encoder.source,
        recipe_sha256=recipe_sha256,
        seed=run.recipe.seed,
        steps=standing.step,
        cpu_seconds=round(standing.cpu_seconds, 1),
        objectives={each.name: each.describe() for each in _objectives(run)},
        first_loss={name: round(loss, 4) for name, loss in standing.first.items()},
        last_loss={name: round(loss, 4) for name, loss in standing.smoothed.items()},
        texts=run.counts,
        new_words=run.material.new_words,
        environment=environment_of(run),
        data_files=data_files,
    )
