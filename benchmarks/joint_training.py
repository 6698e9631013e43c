"""Our trainer against a plain hand-written loop, on the same joint steps of the joint recipe, in one run.

python benchmarks/joint_training.py                     # the whole budget once, both ways (20 minutes on one core)
python benchmarks/joint_training.py --short             # 60 steps each way, three times over
python benchmarks/joint_training.py --quality 0 1 2     # train, export and evaluate these seeds: the mean figures

What is compared are CPU-seconds of training: ours with its scoring of validation rows, checkpoints, progress and
TensorBoard, the plain loop with none of them; it runs the encoder once for each task of a step. One thread, the same
encoder, rows, precision and optimiser.
"""

import argparse
import os
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoModel, AutoTokenizer

from murmura.training.compute.dealing import StepRows
from murmura.training.evaluate.evaluate import evaluate
from murmura.training.export.export import export
from murmura.training.fit.loop import fit, train
from murmura.training.fit.setup import Fitting, Standing, prepare
from murmura.training.model.encoders import locate
from murmura.training.prepare.tasks import TaskData
from murmura.training.recipe.recipe import load_recipe
from murmura.training.run_folders.run_folder import RunFolder

ROOT = Path(__file__).resolve().parents[1]
RECIPE = ROOT / "recipes" / "joint.yaml"
FIGURES = (("intent", "accuracy", 0.958), ("slots", "f1", 0.924), ("sentiment", "accuracy", 0.708))
RATIO = 0.95
Plan = list[StepRows]


class Plain(nn.Module):
    """What one writes on a Friday afternoon: an encoder, a head for each task."""

    def __init__(self, source: str, tasks: list[TaskData]) -> None:
        super().__init__()
        self.encoder = AutoModel.from_pretrained(locate(source), dtype=torch.float32)
        width = self.encoder.config.hidden_size
        self.heads = nn.ModuleList(nn.Linear(width, len(task.labels)) for task in tasks)
        self.dropout = nn.Dropout(0.1)
        self.tagging = [task.task.kind == "tagging" for task in tasks]

    def forward(self, task: int, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        states = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        if not self.tagging[task]:
            there = mask.unsqueeze(-1)
            states = (states * there).sum(1) / there.sum(1)
        return self.heads[task](self.dropout(states))


def plain_rows(task: TaskData, tokenizer, max_tokens: int) -> list[tuple[list[int], object]]:
    """Tokenise each row by itself; tags on the first sub-token of each of the data's tokens."""
    number = {label: at for at, label in enumerate(task.labels)}
    rows = []
    for example in task.train:
        if task.task.kind != "tagging":
            ids = tokenizer(example.text, truncation=True, max_length=max_tokens)["input_ids"]
            rows.append((ids, number[example.labels[0]]))
            continue
        words = [example.text[a:b] for a, b in example.words or ()]
        tags = ["O"] * len(words)
        for span in example.spans:
            inside = [at for at, (a, b) in enumerate(example.words or ()) if a < span.end and span.start < b]
            for at in inside:
                tags[at] = f"{'B' if at == inside[0] else 'I'}-{span.label}"
        encoded = tokenizer(words, is_split_into_words=True, truncation=True, max_length=max_tokens)
        target, before = [], None
        for word in encoded.word_ids():
            target.append(-100 if word is None or word == before else number[tags[word]])
            before = word
        rows.append((encoded["input_ids"], target))
    return rows


def plain_loop(model: Plain, data: list[list[tuple[list[int], object]]], plan: Plan, *, bf16: bool) -> float:
    """Train on the plan and return the CPU-seconds of the loop."""
    encoder = list(model.encoder.parameters())
    groups = [
        {"params": [p for p in encoder if p.ndim > 1], "lr": 2e-4, "weight_decay": 0.01},
        {"params": [p for p in encoder if p.ndim < 2], "lr": 2e-4, "weight_decay": 0.0},
        {"params": list(model.heads.parameters()), "lr": 1e-3, "weight_decay": 0.01},
    ]
    optimiser = torch.optim.AdamW(groups, fused=True)
    steps, warm = len(plan), max(1, int(0.06 * len(plan)))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda s: min((s + 1) / warm, max(0.0, (steps - s) / max(1, steps - warm)))
    )
    model.train()
    began = time.process_time()
    for step in plan:
        optimiser.zero_grad(set_to_none=True)
        losses = [plain_loss(model, task, [data[task][row] for row in rows], bf16=bf16) for task, rows in step]
        torch.stack(losses).sum().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    return time.process_time() - began


def plain_loss(model: Plain, task: int, batch: list[tuple[list[int], object]], *, bf16: bool) -> torch.Tensor:
    """Return the mean loss of one task's rows."""
    width = max(len(ids) for ids, _ in batch)
    ids = torch.zeros(len(batch), width, dtype=torch.long)
    mask = torch.zeros(len(batch), width, dtype=torch.long)
    for at, (tokens, _) in enumerate(batch):
        ids[at, : len(tokens)] = torch.tensor(tokens)
        mask[at, : len(tokens)] = 1
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        logits = model(task, ids, mask).float()
    if not model.tagging[task]:
        return F.cross_entropy(logits, torch.tensor([label for _, label in batch]))
    target = torch.full((len(batch), width), -100)
    for at, (_, tags) in enumerate(batch):
        target[at, : len(tags)] = torch.tensor(tags)
    return F.cross_entropy(logits.flatten(0, 1), target.flatten())


def our_loop(run: Fitting, plan: Plan) -> float:
    """Train on the plan with the trainer and return its CPU-seconds, everything it does meanwhile included."""
    began = time.process_time()
    train(replace(run, plan=plan, standing=Standing()), quiet=True)
    return time.process_time() - began


def compare(data: Path, *, short: bool) -> bool:
    """Print CPU-seconds of both and their ratio; True when it is within RATIO."""
    recipe = load_recipe(RECIPE)
    if short:
        # Scoring is cut with the budget: 2,700 rows three times belong to 3,000 steps.
        budget = recipe.budget.model_copy(update={"evaluations": 1, "validation_rows": 60})
        recipe = recipe.model_copy(update={"budget": budget})
    torch.manual_seed(recipe.seed)
    ratios = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = RunFolder(Path(scratch) / "run")
        run = prepare(recipe, data, folder)
        torch.set_num_threads(recipe.threads or 1)
        folder.begin(RECIPE, run.checkpoint.tokenizer)
        tokenizer = AutoTokenizer.from_pretrained(locate(recipe.encoder.source))
        rows = [plain_rows(task, tokenizer, recipe.max_tokens) for task in run.tasks]
        model = Plain(recipe.encoder.source, run.tasks)
        for turn in range(3 if short else 1):
            plan = run.plan[60 * turn : 60 * turn + 60] if short else run.plan
            plain = plain_loop(model, rows, plan, bf16=run.bf16)
            ours = our_loop(run, plan)
            ratios.append(ours / plain)
            print(
                f"{len(plan)} steps: plain {plain:.1f} CPU-s, ours {ours:.1f} CPU-s, ratio {ours / plain:.3f}",
                flush=True,
            )
    ratio = statistics.median(ratios)
    print(f"joint training, CPU-seconds against a plain loop: {ratio:.3f} (reach <= {RATIO})")
    return ratio <= RATIO


def quality(data: Path, seeds: list[int]) -> bool:
    """Train, export and evaluate each seed; print each figure's mean. True when all reach theirs."""
    found: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for seed in seeds:
            run, out = Path(scratch) / f"run-{seed}", Path(scratch) / f"model-{seed}"
            record = fit(RECIPE, data, run, seed=seed)
            export(run, out)
            scores = evaluate(out, data, recipe=RECIPE)
            for task, figure, _ in FIGURES:
                found.setdefault((task, figure), []).append(scores[task]["test"].figures[figure])
            figures = ", ".join(f"{task} {figure} {found[task, figure][-1]:.4f}" for task, figure, _ in FIGURES)
            print(f"seed {seed}: {figures}; {record.cpu_seconds} CPU-s", flush=True)
    means = {key: statistics.mean(values) for key, values in found.items()}
    for task, figure, reach in FIGURES:
        print(f"{task} {figure}, mean of {len(seeds)}: {means[task, figure]:.4f} (reach >= {reach})")
    return all(means[task, figure] >= reach for task, figure, reach in FIGURES)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("MURMURA_TEST_DATA", ROOT.parent / "shared/data"))
    )
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--quality", type=int, nargs="+", metavar="SEED")
    chosen = parser.parse_args()
    if not chosen.data.is_dir():
        raise SystemExit(f"no public data sets at {chosen.data}: --data or MURMURA_TEST_DATA names their folder")
    reached = quality(chosen.data, chosen.quality) if chosen.quality else compare(chosen.data, short=chosen.short)
    raise SystemExit(0 if reached else 1)


if __name__ == "__main__":
    main()
