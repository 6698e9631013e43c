"""The training loop: a recipe and data go in, a run folder with the best checkpoint comes out."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from ..schemas.manifest import TaskSpec
from .batches import collate
from .checkpoint import checkpoint_weights, restore
from .data.example import Example
from .device import free_threads
from .finish import finish
from .joint_step import loss_weights, refuse_non_finite, task_losses, weighted_sum
from .model import logits_of
from .optimiser import make_optimiser, rate_at
from .prepare import Fitting, prepare
from .recipe import Encoder, load_recipe
from .run_folder import TENSORBOARD, RunFolder, RunRecord


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
    smooth: dict[str, float] = {}
    last_report = time.monotonic()
    write = (lambda _: None) if quiet else tqdm.write
    with (
        SummaryWriter(str(run.folder.path / TENSORBOARD)) as board,
        tqdm(run.plan, desc="train", unit="step", disable=True if quiet else None, mininterval=2) as bar,
    ):
        for step, rows in enumerate(bar, 1):
            model.train()
            batch = collate(run.train, run.tasks, rows, run.device)
            losses = task_losses(model, run.tasks, recipe, batch, special=run.checkpoint.special, bf16=run.bf16)
            weighted_sum(losses, weights).backward()
            gradient = torch.nn.utils.clip_grad_norm_(trained, recipe.optimiser.clip)
            *values, norm = torch.stack([*losses.values(), gradient]).tolist()
            refuse_non_finite(step, run.tasks, batch, values, norm)
            optimiser.step()
            schedule.step()
            optimiser.zero_grad(set_to_none=True)

            run.steps_taken = step
            for task, value in zip(losses, values, strict=True):
                name = run.tasks[task].name
                smooth[name] = 0.98 * smooth.get(name, value) + 0.02 * value
            if step % 20 == 0:
                for name, mean in smooth.items():
                    board.add_scalar(f"loss/{name}", mean, step)
                bar.set_postfix({name: f"{mean:.3f}" for name, mean in smooth.items()}, refresh=False)
            if step in scored_at or time.monotonic() - last_report > PROGRESS_S:
                scores = validate(run, step, board, write) if step in scored_at else {}
                on_progress(Progress(step, steps, dict(smooth), scores))
                last_report = time.monotonic()
            if step in scored_at and recipe.budget.patience and run.stale >= recipe.budget.patience:
                write(f"no better for {run.stale} evaluations: ending at step {step}")
                break


def validate(run: Fitting, step: int, board: SummaryWriter, write: Callable[[str], Any]) -> dict[str, dict[str, float]]:
    """Score every task; write the checkpoint when the mean of their main metrics is the best so far."""
    scores: dict[str, dict[str, float]] = {}
    for at, (data, part) in enumerate(zip(run.tasks, run.validation, strict=True)):
        logits = logits_of(run.model, at, part.ids, device=run.device, bf16=run.bf16)
        scores[data.name] = data.kind.metrics(logits, part.targets, data.spec)
        for name, value in scores[data.name].items():
            board.add_scalar(f"validation/{data.name}/{name}", value, step)
    mean = float(np.mean([score["main"] for score in scores.values()]))
    better = mean > run.best
    # Of equals the later one: on a small validation part all look alike, and training has gone on.
    kept = mean >= run.best
    write(f"step {step}: " + ", ".join(f"{n} {s['main']:.4f}" for n, s in scores.items()) + (" (best)" if kept else ""))
    run.stale = 0 if better else run.stale + 1
    if kept:
        run.best, run.best_step, run.scores = mean, step, scores
        run.folder.save_weights(checkpoint_weights(run.model, low_rank=run.recipe.lora is not None))
    return scores


def finished_specs(run: Fitting) -> list[TaskSpec]:
    """Calibrate the sentence tasks and choose their thresholds; scored in fp32, as they are served."""
    tokenizer = run.checkpoint.tokenizer
    tokenizer.enable_truncation(run.recipe.max_tokens)
    specs = []
    for at, data in enumerate(run.tasks):

        def score(examples: Sequence[Example], at: int = at) -> NDArray[Any]:
            encodings = tokenizer.encode_batch([example.text for example in examples])
            ids = [np.array(encoding.ids) for encoding in encodings]
            return np.stack(logits_of(run.model, at, ids, device=run.device, bf16=False))

        specs.append(data.spec if data.kind.per_token else finish(data, score))
    tokenizer.no_truncation()
    return specs
