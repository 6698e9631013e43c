"""The training loop: a recipe and data go in, a run folder with the best checkpoint comes out."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from tqdm import tqdm

from .batches import collate
from .checkpoint import restore
from .device import free_threads
from .joint_step import loss_weights, refuse_non_finite, task_losses, weighted_sum
from .optimiser import make_optimiser, rate_at
from .prepare import Fitting, prepare
from .provenance import describe_environment, digest_data
from .recipe import Encoder, load_recipe
from .run_folder import TENSORBOARD, RunFolder, RunRecord
from .training_log import EVERY, TrainingLog, gradient_norms
from .validation import describe_votes, finished_specs, validate


@dataclass(frozen=True)
class Progress:
    """Where a run is: the smoothed loss of each task and, where it has just been scored, its validation metrics; else these are empty."""

    step: int
    steps: int
    loss: dict[str, float]
    metrics: dict[str, dict[str, float]]


PROGRESS_S: Final = 5.0


def fit(
    recipe_path: Path,
    data: Path,
    out: Path,
    *,
    seed: int | None = None,
    encoder: Path | None = None,
    quiet: bool = False,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> RunRecord:
    """Train as the recipe says; `seed` and `encoder`, a folder, override the recipe's. `on_progress` is called at each
    scoring of the validation parts, and every five seconds between them.

    Raises SetupError for whatever is wrong beforehand.
    """
    recipe = load_recipe(recipe_path)
    if seed is not None:
        recipe = recipe.model_copy(update={"seed": seed})
    if encoder is not None:
        recipe = recipe.model_copy(update={"encoder": Encoder(source=str(encoder))})
    torch.set_num_threads(recipe.threads or free_threads())
    run = prepare(recipe, data, RunFolder(out))
    run.folder.begin(recipe_path, run.checkpoint.tokenizer)
    data_files = digest_data(recipe, data)
    began = time.process_time()
    train(run, quiet=quiet, on_progress=on_progress)
    spent = time.process_time() - began
    restore(run.model, run.folder.weights(), low_rank=recipe.lora is not None)
    record = RunRecord(
        name=recipe.name,
        encoder=run.checkpoint.spec,
        encoder_folder=str(run.checkpoint.folder or ""),
        tasks=finished_specs(run),
        max_tokens=recipe.max_tokens,
        recipe_sha256=run.folder.recipe_sha256,
        attribution=recipe.attribution,
        low_rank=recipe.lora is not None,
        seed=recipe.seed,
        steps=run.steps_taken,
        planned_steps=len(run.plan),
        best_step=run.best_step,
        cpu_seconds=round(spent, 1),
        validation=run.scores,
        overlap=run.overlap,
        unknown=run.unknown,
        grown=run.grown,
        environment=describe_environment(run.device, bf16=run.bf16),
        data_files=data_files,
    )
    return run.folder.save_record(record)


def train(
    run: Fitting, *, quiet: bool = False, on_progress: Callable[[Progress], None] = lambda progress: None
) -> None:
    """Go through the plan; score the validation parts on the way and keep the best checkpoint."""
    recipe, model, steps = run.recipe, run.model.to(run.device), len(run.plan)
    optimiser = make_optimiser(recipe, model)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, rate_at(recipe, steps))
    trained = [p for p in model.parameters() if p.requires_grad]
    weights = loss_weights(recipe, run.tasks)
    scored_at = {round(steps * k / recipe.budget.evaluations) for k in range(1, recipe.budget.evaluations + 1)}
    names = [data.name for data in run.tasks]
    last_report = time.monotonic()
    write = (lambda _: None) if quiet else tqdm.write
    if line := describe_votes(run.validation_rows):
        write(line)
    with (
        TrainingLog(run.folder.path / TENSORBOARD, names, clip=recipe.optimiser.clip) as log,
        tqdm(run.plan, desc="train", unit="step", disable=True if quiet else None, mininterval=2) as bar,
    ):
        for step, rows in enumerate(bar, 1):
            model.train()
            batch = collate(run.train, run.tasks, rows, run.device)
            losses = task_losses(model, run.tasks, recipe, batch, special=run.checkpoint.special, bf16=run.bf16)
            norms = gradient_norms(losses, weights, model.last_layer) if step % EVERY == 0 else {}
            weighted_sum(losses, weights).backward()
            gradient = torch.nn.utils.clip_grad_norm_(trained, recipe.optimiser.clip)
            *values, norm = torch.stack([*losses.values(), gradient]).tolist()
            refuse_non_finite(step, run.tasks, batch, values, norm)
            optimiser.step()
            log.add_step(dict(zip(losses, values, strict=True)), norm, batch.tokens)
            if step % EVERY == 0:
                log.write_step(step, optimiser, norms)
                bar.set_postfix({name: f"{mean:.3f}" for name, mean in log.smoothed.items()}, refresh=False)
            schedule.step()
            optimiser.zero_grad(set_to_none=True)
            run.steps_taken = step

            if step in scored_at or time.monotonic() - last_report > PROGRESS_S:
                scores = validate(run, step, log, write) if step in scored_at else {}
                on_progress(Progress(step, steps, dict(log.smoothed), scores))
                last_report = time.monotonic()
            if step in scored_at and recipe.budget.patience and run.stale >= recipe.budget.patience:
                write(f"no better for {run.stale} evaluations: ending at step {step}")
                break
