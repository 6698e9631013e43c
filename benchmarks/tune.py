"""Does a search find a better recipe than the default one? Banking77 with few rows a label, scored on the test part once.

python benchmarks/tune.py --out models/tune-banking77                     # 10 rows a label, 30 trials (an hour or two on one core)
python benchmarks/tune.py --space '{word_dropout: {low: 0, high: 0.3}, freeze: [null, embeddings, 2]}' --out models/tune-others   # other keys
python benchmarks/tune.py --short                                         # five rows, three trials of an epoch: says nothing about a gain

The search holds three rows of ten back to compare trials by, and never reads the test part. Then the default recipe and the one
that was found are each trained with the usual tenth held back, exported, and compared on the test part as `murmura compare` does. Killed, the same command goes on with the search.
"""

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import yaml
from few_rows import ROOT, draw

from murmura.training.export.export import export
from murmura.training.fit.loop import fit
from murmura.training.gate.compare_folders import compare_folders, describe_comparison
from murmura.training.search.plan import open_plan
from murmura.training.search.results import BEST
from murmura.training.search.run import run_study

SPACE: dict[str, Any] = {
    "optimiser.encoder_lr": {"low": 1e-5, "high": 5e-4, "log": True},
    "optimiser.head_lr": {"low": 1e-4, "high": 1e-2, "log": True},
    "optimiser.layer_decay": {"low": 0.6, "high": 1.0},
    "budget.epochs": {"low": 4, "high": 40},
    "batch_size": [16, 32],
    "label_smoothing": {"low": 0.0, "high": 0.2},
    "dropout": {"low": 0.0, "high": 0.3},
}
HELD_BACK = 0.3


def write_default(path: Path, **keys: Any) -> Path:
    """Write the recipe with its defaults written out, so that the first trial is the default recipe."""
    task = {
        "columns": {"label": "intent"},
        "train": "./few.jsonl",
        "test": "banking77/test.jsonl",
        **keys.pop("task", {}),
    }
    recipe = {
        "name": path.stem,
        "max_tokens": 64,
        "threads": 1,
        "optimiser": {"encoder_lr": 5e-5, "head_lr": 1e-3},
        "tasks": {"intent": task},
        **keys,
    }
    path.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    return path


def search(out: Path, data: Path, space: dict[str, Any], trials: int, epochs: float | None) -> Path:
    """Take the trials, and return the recipe that was found with the usual share of rows held back."""
    if epochs is not None:
        space = {**space, "budget.epochs": {"low": epochs / 2, "high": epochs}}
    budget = {"epochs": 12 if epochs is None else epochs, "evaluations": 4}
    path = write_default(
        out / "search.yaml",
        task={"validation_share": HELD_BACK},
        budget=budget,
        tune={"space": space, "trials": trials},
    )
    plan = open_plan(path, data, out / "study", say=print)
    run_study(plan, quiet=False, say=print)
    found = yaml.safe_load((out / "study" / BEST).read_text(encoding="utf-8"))
    found["tasks"]["intent"].pop("validation_share")
    found["budget"].pop("evaluations")
    written = out / "found.yaml"
    written.write_text(yaml.safe_dump({**found, "name": "found"}, sort_keys=False), encoding="utf-8")
    return written


def train(recipe: Path, data: Path) -> Path:
    """Train and export a recipe, and return the model's folder."""
    run, model = recipe.with_suffix(".run"), recipe.with_suffix("")
    record = fit(recipe, data, run, quiet=True)
    export(run, model)
    print(f"{recipe.stem}: {record.steps} steps, {record.cpu_seconds:.0f} CPU-s", flush=True)
    return model


def measure(data: Path, out: Path, space: dict[str, Any], rows: int, trials: int, epochs: float | None) -> None:
    """Search, train both recipes, and print how their models differ on the test part."""
    out.mkdir(parents=True, exist_ok=True)
    draw(data, "banking77", rows, 0, out / "few.jsonl")
    found = search(out, data, space, trials, epochs)
    default = write_default(out / "default.yaml", **({"budget": {"epochs": epochs}} if epochs else {}))
    one, other = train(default, data), train(found, data)
    print(describe_comparison(compare_folders(one, other, data), one, other))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("MURMURA_TEST_DATA", ROOT / "../shared/data")))
    parser.add_argument("--out", type=Path, help="where study and models stay; without it they are removed")
    parser.add_argument("--rows", type=int, default=10)
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--space", help="as YAML, instead of rates, epochs, rows of a step, smoothing and dropout")
    parser.add_argument("--epochs", type=float, help="the most passes over the rows, for a try")
    parser.add_argument("--short", action="store_true", help="five rows a label, three trials of one pass")
    given = parser.parse_args()
    if given.short:
        given.rows, given.trials, given.epochs = 5, 3, 1.0
    if not given.data.is_dir():
        raise SystemExit(f"no public data sets at {given.data}: --data or MURMURA_TEST_DATA names their folder")
    space = SPACE if given.space is None else yaml.safe_load(given.space)
    if given.out is None:
        with tempfile.TemporaryDirectory() as out:
            measure(given.data.resolve(), Path(out), space, given.rows, given.trials, given.epochs)
    else:
        measure(given.data.resolve(), given.out.resolve(), space, given.rows, given.trials, given.epochs)


if __name__ == "__main__":
    main()
