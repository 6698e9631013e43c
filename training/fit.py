"""The training loop: a recipe and data go in, a run folder with the best checkpoint comes out."""

import hashlib
import logging
import math
import os
import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from ..runtime.errors import SetupError
from ..schemas.manifest import TaskSpec
from . import sampler
from .data import Example
from .dataset import Part, TaskData, collate, encode_part, overlap, read_tasks, refuse_unknown, unknown_share
from .encoders import Checkpoint, build_encoder, open_checkpoint
from .finish import finish
from .lora import add_lora, factors
from .model import MultiTask, logits_of
from .recipe import Recipe, load_recipe
from .run_folder import RunFolder, RunRecord

log = logging.getLogger(__name__)


@dataclass
class Fitting:
    """Everything one run holds. `best` is the mean of the tasks' main validation metrics so far."""

    recipe: Recipe
    tasks: list[TaskData]
    checkpoint: Checkpoint
    model: MultiTask
    train: list[Part]
    validation: list[Part]
    plan: list[tuple[int, list[int]]]
    folder: RunFolder
    device: str
    bf16: bool
    overlap: dict[str, int] = field(default_factory=dict)
    unknown: dict[str, float] = field(default_factory=dict)
    best: float = -math.inf
    best_step: int = 0
    stale: int = 0
    scores: dict[str, dict[str, float]] = field(default_factory=dict)


def fit(recipe_path: Path, data: Path, out: Path, *, seed: int | None = None, quiet: bool = False) -> RunRecord:
    """Train as the recipe says; `seed` overrides its seed. Raises SetupError for whatever is wrong beforehand."""
    recipe = load_recipe(recipe_path)
    if seed is not None:
        recipe = recipe.model_copy(update={"seed": seed})
    torch.set_num_threads(recipe.threads or free_threads())
    run = prepare(recipe, data, RunFolder(out))
    run.folder.begin(recipe_path, run.checkpoint.tokenizer)
    began = time.process_time()
    train(run, quiet=quiet)
    spent = time.process_time() - began
    restore(run)
    record = RunRecord(
        name=recipe.name,
        encoder=run.checkpoint.spec,
        encoder_folder=str(run.checkpoint.folder or ""),
        tasks=finished_specs(run, data),
        max_tokens=recipe.max_tokens,
        recipe_sha256=hashlib.sha256(recipe_path.read_bytes()).hexdigest(),
        attribution=recipe.attribution,
        low_rank=recipe.lora is not None,
        seed=recipe.seed,
        steps=len(run.plan),
        best_step=run.best_step,
        cpu_seconds=round(spent, 1),
        validation=run.scores,
        overlap=run.overlap,
        unknown=run.unknown,
    )
    run.folder.save_record(record)
    return record


def finished_specs(run: Fitting, folder: Path) -> list[TaskSpec]:
    """Calibrate the sentence tasks and choose their thresholds; scored in fp32, as they are served."""
    tokenizer = run.checkpoint.tokenizer
    tokenizer.enable_truncation(run.recipe.max_tokens)
    specs = []
    for at, data in enumerate(run.tasks):

        def score(examples: Sequence[Example], at: int = at) -> NDArray[Any]:
            encodings = tokenizer.encode_batch([example.text for example in examples])
            ids = [np.array(encoding.ids) for encoding in encodings]
            return np.stack(logits_of(run.model, at, ids, device=run.device, bf16=False))

        specs.append(data.spec if data.kind.per_token else finish(data, score, folder, run.recipe.data_seed))
    tokenizer.no_truncation()
    return specs


def prepare(recipe: Recipe, data: Path, folder: RunFolder) -> Fitting:
    """Read the data, open the encoder, encode everything and lay out the steps."""
    tasks = read_tasks(recipe, data)
    texts = (example.text for task in tasks for example in task.train)
    checkpoint = open_checkpoint(recipe.encoder, texts, seed=recipe.seed)
    if recipe.max_tokens > checkpoint.spec.max_positions:
        limit = checkpoint.spec.max_positions
        raise SetupError(f"max_tokens {recipe.max_tokens} is more than the encoder's max_positions {limit}")
    tokenizer = checkpoint.tokenizer
    tokenizer.enable_truncation(recipe.max_tokens)
    parts, unknown = [], {}
    for task in tasks:
        part, encodings = encode_part(task.train, task, tokenizer)
        parts.append(part)
        unknown[task.name] = round(unknown_share(encodings, tokenizer.token_to_id("[UNK]")), 4)
    refuse_unknown(unknown, allow=recipe.allow_unknown)
    validation = [encode_part(sample(task.validation, recipe), task, tokenizer)[0] for task in tasks]
    tokenizer.no_truncation()
    return Fitting(
        recipe=recipe,
        tasks=tasks,
        checkpoint=checkpoint,
        model=build_model(recipe, tasks, checkpoint),
        train=parts,
        validation=validation,
        plan=lay_out(recipe, tasks, parts),
        folder=folder,
        device="cuda" if torch.cuda.is_available() else "cpu",
        bf16=wants_bf16(recipe),
        overlap={task.name: overlap(task.train, task.test) for task in tasks},
        unknown=unknown,
    )


def sample(validation: list[Example], recipe: Recipe) -> list[Example]:
    """Draw the validation rows that are scored while training: files are often sorted by label."""
    count = recipe.budget.validation_rows
    if count is None or count >= len(validation):
        return validation
    return random.Random(recipe.data_seed).sample(validation, count)


def build_model(recipe: Recipe, tasks: list[TaskData], checkpoint: Checkpoint) -> MultiTask:
    """Make the network; heads of a model of ours go on where task and labels are the same."""
    torch.manual_seed(recipe.seed)
    encoder = build_encoder(checkpoint.spec, checkpoint.weights, dropout=recipe.dropout)
    if recipe.lora:
        add_lora(encoder, recipe.lora)
    model = MultiTask(encoder, tasks, dropout=recipe.dropout)
    known = {spec.name: spec.labels for spec in checkpoint.manifest.tasks} if checkpoint.manifest else {}
    for task, head in zip(tasks, model.heads, strict=True):
        if known.get(task.name) == task.labels:
            for part, parameter in head.named_parameters():
                parameter.data.copy_(torch.from_numpy(checkpoint.weights[f"heads.{task.name}.{part}"]))
    return model


def lay_out(recipe: Recipe, tasks: list[TaskData], parts: list[Part]) -> list[tuple[int, list[int]]]:
    """Return (task, rows) for each step of the run."""
    size = recipe.batch_size
    seen = [len(part.ids) * (data.task.epochs or recipe.budget.epochs) for data, part in zip(tasks, parts, strict=True)]
    total = recipe.budget.steps or sum(math.ceil(rows / size) for rows in seen)
    by_share = sampler.shares(seen, [data.task.sampling_weight for data in tasks], recipe.temperature)
    steps = sampler.steps_by_task(total, by_share)
    return sampler.plan([part.lengths for part in parts], steps, size, recipe.seed)


def train(run: Fitting, *, quiet: bool = False) -> None:
    """Go through the plan; score the validation parts on the way and keep the best checkpoint."""
    recipe, model, steps = run.recipe, run.model.to(run.device), len(run.plan)
    optimiser = make_optimiser(recipe, model)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, rate_at(recipe, steps))
    trained = [p for p in model.parameters() if p.requires_grad]
    scored_at = {round(steps * k / recipe.budget.evaluations) for k in range(1, recipe.budget.evaluations + 1)}
    unknown_id = run.checkpoint.tokenizer.token_to_id("[UNK]")
    smooth: dict[str, float] = {}
    with (
        SummaryWriter(str(run.folder.path / "tensorboard")) as board,
        tqdm(run.plan, desc="train", unit="batch", disable=quiet, mininterval=2) as bar,
    ):
        for step, (at, rows) in enumerate(bar, 1):
            data = run.tasks[at]
            batch = collate(run.train[at], rows, data.kind)
            ids = drop_words(batch.ids, recipe.word_dropout, unknown_id)
            model.train()
            with torch.autocast(run.device, torch.bfloat16, enabled=run.bf16):
                logits = model(at, ids.to(run.device), batch.mask.to(run.device))
            smoothing = recipe.label_smoothing if data.task.label_smoothing is None else data.task.label_smoothing
            loss = data.kind.loss(logits.float(), batch.target.to(run.device), smoothing)
            (data.task.loss_weight * loss).backward()
            torch.nn.utils.clip_grad_norm_(trained, recipe.optimiser.clip)
            optimiser.step()
            schedule.step()
            optimiser.zero_grad(set_to_none=True)

            smooth[data.name] = 0.98 * smooth.get(data.name, loss.item()) + 0.02 * loss.item()
            if step % 20 == 0:
                board.add_scalar(f"loss/{data.name}", smooth[data.name], step)
                bar.set_postfix({name: f"{value:.3f}" for name, value in smooth.items()}, refresh=False)
            if step in scored_at:
                validate(run, step, board, bar.write if not quiet else lambda _: None)
                if recipe.budget.patience and run.stale >= recipe.budget.patience:
                    bar.write(f"no better for {run.stale} evaluations: ending at step {step}")
                    break


def validate(run: Fitting, step: int, board: SummaryWriter, say: Callable[[str], Any]) -> None:
    """Score every task; write the checkpoint when the mean of their main metrics is the best so far."""
    scores: dict[str, dict[str, float]] = {}
    for at, (data, part) in enumerate(zip(run.tasks, run.validation, strict=True)):
        logits = logits_of(run.model, at, part.ids, device=run.device, bf16=run.bf16)
        scores[data.name] = data.kind.metrics(logits, part.targets, data.spec)
        for name, value in scores[data.name].items():
            board.add_scalar(f"validation/{data.name}/{name}", value, step)
    mean = float(np.mean([score["main"] for score in scores.values()]))
    better = mean > run.best
    say(f"step {step}: " + ", ".join(f"{n} {s['main']:.4f}" for n, s in scores.items()) + (" (best)" if better else ""))
    run.stale = 0 if better else run.stale + 1
    if better:
        run.best, run.best_step, run.scores = mean, step, scores
        run.folder.save_weights(checkpoint_weights(run.model, low_rank=run.recipe.lora is not None))


def checkpoint_weights(model: MultiTask, *, low_rank: bool) -> dict[str, NDArray[Any]]:
    """Return what a run folder keeps: heads, and either the encoder's weights or its low-rank factors."""
    weights: dict[str, NDArray[Any]] = dict(model.head_weights())
    if low_rank:
        for name, (a, b) in factors(model.encoder).items():
            weights |= {f"low_rank/{name}/a": a, f"low_rank/{name}/b": b}
        return weights
    encoder = {name: p.detach().float().cpu().numpy() for name, p in model.encoder.named_parameters()}
    return weights | encoder


def restore(run: Fitting) -> None:
    """Put the best checkpoint back into the network, for calibration."""
    weights = {name: torch.from_numpy(array) for name, array in run.folder.weights().items()}
    for name, head in zip(run.model.names, run.model.heads, strict=True):
        head.load_state_dict({part: weights[f"heads.{name}.{part}"] for part in ("weight", "bias")})
    if run.recipe.lora is None:
        encoder = {name: array for name, array in weights.items() if not name.startswith("heads.")}
        run.model.encoder.load_state_dict(encoder, strict=False)
        return
    for name, module in run.model.encoder.named_modules():
        if hasattr(module, "lora_A"):
            module.lora_A["default"].weight.data.copy_(weights[f"low_rank/{name}.weight/a"])
            module.lora_B["default"].weight.data.copy_(weights[f"low_rank/{name}.weight/b"] / module.scaling["default"])


def make_optimiser(recipe: Recipe, model: MultiTask) -> torch.optim.Optimizer:
    """Fused AdamW; no weight decay on biases and LayerNorm (all one-dimensional)."""
    decay, rate = recipe.optimiser.weight_decay, recipe.encoder_lr
    encoder = [p for p in model.encoder.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in encoder if p.ndim > 1], "lr": rate, "weight_decay": decay},
        {"params": [p for p in encoder if p.ndim < 2], "lr": rate, "weight_decay": 0.0},
        {
            "params": [p for p in model.heads.parameters() if p.ndim > 1],
            "lr": recipe.optimiser.head_lr,
            "weight_decay": decay,
        },
        {
            "params": [p for p in model.heads.parameters() if p.ndim < 2],
            "lr": recipe.optimiser.head_lr,
            "weight_decay": 0.0,
        },
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], fused=True)


def rate_at(recipe: Recipe, steps: int) -> Callable[[int], float]:
    """Return the factor on the learning rates by step: linear warm-up, then linear decay to zero or constant."""
    warm = max(1, int(recipe.optimiser.warmup * steps))

    def factor(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        return 1.0 if recipe.optimiser.schedule == "constant" else max(0.0, (steps - step) / max(1, steps - warm))

    return factor


def drop_words(ids: torch.Tensor, share: float, unknown_id: int) -> torch.Tensor:
    """Read a share of the tokens as unknown, so that no single word decides (special tokens stay)."""
    if share == 0:
        return ids
    hit = (torch.rand(ids.shape) < share) & (ids > max(unknown_id + 3, 4))
    return torch.where(hit, unknown_id, ids)


def wants_bf16(recipe: Recipe) -> bool:
    """True when asked for, or when left to us and the device computes in bf16 itself."""
    if recipe.precision != "auto":
        return recipe.precision == "bf16"
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return cpu_has_bf16()


def cpu_has_bf16(flags: Iterable[str] = ("avx512_bf16", "amx_bf16", "bf16")) -> bool:
    """True when the CPU multiplies bf16 in hardware; without it autocast is slower than fp32."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    words = next((set(line.split()) for line in lines if line.startswith(("flags", "Features"))), set())
    return bool(words & set(flags))


def free_threads() -> int:
    """All cores, or one when neighbours keep more than half of them busy: threads that wait for each other lose more."""
    cores = os.cpu_count() or 1
    return 1 if os.getloadavg()[0] > cores / 2 else cores
