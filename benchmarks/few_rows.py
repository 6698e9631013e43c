"""Few rows a label: a fine-tuned model against logistic regression on the frozen encoder and the same rows.

python benchmarks/few_rows.py                                   # both data sets, 5 and 10 rows a label, three samples (an hour on one core)
python benchmarks/few_rows.py --sets banking77 --rows 10        # one line of the table
python benchmarks/few_rows.py --sets banking77 --rows 0 --samples 0 --seeds 0 1 2    # all rows
python benchmarks/few_rows.py --self-training                   # the other training texts are there, too, without their labels
python benchmarks/few_rows.py --way few-shot                    # a head on the encoder as it is (`murmura few-shot`), a quarter of an hour
python benchmarks/few_rows.py --way tuned                       # the same with --tune-encoder

Each sample draws the rows of each label anew. Validation rows are a tenth of them, the test part is read whole, and what is
scored is the exported folder: `accuracy` and `probe_accuracy` of its report, the default settings, one thread.
"""

import argparse
import gzip
import json
import os
import random
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from itertools import product
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import yaml

from murmura.training.evaluate.evaluate import evaluate
from murmura.training.export.export import export
from murmura.training.few_shot.make import make_model
from murmura.training.few_shot.recipe import Wanted
from murmura.training.fit.loop import fit
from murmura.training.run_folders.run_folder import RunFolder

ROOT = Path(__file__).resolve().parents[1]
ABOVE = 0.005
"""A fine-tuned model may be so much below the regression."""
SETS = ("banking77", "clinc150")
OUT_OF_SCOPE = "oos"
SELF_TRAINING = {"texts": "./texts.txt", "precision": 0.9, "per_label": 60}


def read_training_rows(data: Path, name: str) -> dict[str, list[str]]:
    """Return the lines of the training part by label, but for those out of scope."""
    by_label: dict[str, list[str]] = defaultdict(list)
    with gzip.open(data / name / "train.jsonl.gz", "rt", encoding="utf-8") as file:
        for line in file:
            by_label[json.loads(line)["intent"]].append(line)
    by_label.pop(OUT_OF_SCOPE, None)
    return by_label


def write_texts(data: Path, name: str, out: Path) -> None:
    """Write the texts of the training part without their labels, a text a line. What is learned with its label is left out by the training."""
    lines = [line for rows in read_training_rows(data, name).values() for line in rows]
    out.write_text("".join(" ".join(json.loads(line)["text"].split()) + "\n" for line in lines))


def draw(data: Path, name: str, rows: int, sample: int, out: Path) -> None:
    """Write `rows` training rows of each label, or all where it is 0."""
    by_label = read_training_rows(data, name)
    chosen = random.Random(sample)
    out.write_text(
        "".join(
            line for label in sorted(by_label) for line in chosen.sample(by_label[label], rows or len(by_label[label]))
        )
    )


def measure(
    data: Path, name: str, rows: int, sample: int, seed: int, keys: dict[str, object]
) -> tuple[float, float, float]:
    """Train on one sample; return the accuracy of the regression and of the model, and the CPU-seconds of training."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        draw(data, name, rows, sample, folder / "few.jsonl")
        if "self_training" in keys:
            write_texts(data, name, folder / "texts.txt")
        task = {
            "columns": {"label": "intent"},
            "train": "./few.jsonl",
            "test": {"path": f"{name}/test.jsonl", "unless": {"intent": [OUT_OF_SCOPE]}},
        }
        recipe = folder / "few.yaml"
        recipe.write_text(yaml.safe_dump({"max_tokens": 64, "threads": 1, "tasks": {"intent": task}, **keys}))
        record = fit(recipe, data, folder / "run", seed=seed, quiet=True)
        export(folder / "run", folder / "model")
        figures = evaluate(folder / "model", data, recipe=recipe)["intent"]["test"].figures
    probe, accuracy = figures["probe_accuracy"], figures["accuracy"]
    assert probe is not None
    assert accuracy is not None
    return probe, accuracy, record.cpu_seconds


def measure_few_shot(data: Path, name: str, rows: int, sample: int, *, tuned: bool) -> str:
    """Make a model from one sample, and return what its report says, in percent, and the CPU-seconds of all of it."""
    with tempfile.TemporaryDirectory() as scratch:
        folder, began = Path(scratch), time.process_time()
        draw(data, name, rows, sample, folder / "few.jsonl")
        test = data / name / "test.jsonl"
        wanted = Wanted(
            folder / "few.jsonl", test, label="intent", out_of_scope=OUT_OF_SCOPE, tune_encoder=tuned, max_tokens=64
        )
        figures = make_model(wanted, folder / "model", lambda line: None)["intent"]["test"].figures
        found = RunFolder(folder / "model.run").record().data["intent"].cross_validated
        asked = ("accuracy", "served", "withheld", "out_of_scope_recall", "out_of_scope_auroc", "ece")
        said = ", ".join(f"{each} {100 * value:.1f}" for each in asked if (value := figures.get(each)) is not None)
        assert found is not None
        low, high = found.interval
        crossed = f"cross-validated {found.accuracy:.1%} [{low:.1%}, {high:.1%}] on {found.rows} rows"
        return f"{said}; {crossed}; {time.process_time() - began:.0f} CPU-s"


def print_few_shot(data: Path, name: str, rows: int, samples: Sequence[int], *, tuned: bool) -> None:
    """Print a line for each sample."""
    for sample in samples:
        way = "tuned" if tuned else "few-shot"
        found = measure_few_shot(data, name, rows, sample, tuned=tuned)
        print(f"{name}, {rows} rows a label, sample {sample}, {way}: {found}", flush=True)


def compare(
    data: Path, name: str, rows: int, samples: Sequence[int], seeds: Sequence[int], keys: dict[str, object]
) -> bool:
    """Print a line for each sample and seed, and the means; True where the model is not below the regression."""
    found = []
    for sample, seed in product(samples, seeds):
        found.append(measure(data, name, rows, sample, seed, keys))
        probe, accuracy, seconds = found[-1]
        print(
            f"{name}, {rows} rows a label, sample {sample}, seed {seed}: regression {probe:.1%}, fine-tuned {accuracy:.1%}; "
            f"{seconds:.0f} CPU-s",
            flush=True,
        )
    probe, accuracy, _ = (statistics.mean(column) for column in zip(*found, strict=True))
    print(f"{name}, {rows} rows a label, mean of {len(found)}: regression {probe:.1%}, fine-tuned {accuracy:.1%}")
    return accuracy >= probe - ABOVE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("MURMURA_TEST_DATA", ROOT.parent / "shared/data"))
    )
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--rows", type=int, nargs="+", default=[5, 10])
    parser.add_argument("--samples", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of --way fine-tuned")
    parser.add_argument("--way", choices=("fine-tuned", "few-shot", "tuned"), default="fine-tuned")
    parser.add_argument("--keys", default="{}", help="further keys of the recipe, as YAML: '{few_rows: 0}'")
    parser.add_argument(
        "--self-training", action="store_true", help="learn from all texts of the training part, without their labels"
    )
    parser.add_argument("--short", action="store_true", help="Banking77, five rows a label, one sample")
    chosen = parser.parse_args()
    if chosen.short:
        chosen.sets, chosen.rows, chosen.samples = SETS[:1], [5], [0]
    if not chosen.data.is_dir():
        raise SystemExit(f"no public data sets at {chosen.data}: --data or MURMURA_TEST_DATA names their folder")
    if chosen.way != "fine-tuned":
        for name in chosen.sets:
            for rows in chosen.rows:
                print_few_shot(chosen.data, name, rows, chosen.samples, tuned=chosen.way == "tuned")
        return
    keys = yaml.safe_load(chosen.keys) | ({"self_training": SELF_TRAINING} if chosen.self_training else {})
    reached = [
        compare(chosen.data, name, rows, chosen.samples, chosen.seeds, keys)
        for name in chosen.sets
        for rows in chosen.rows
    ]
    raise SystemExit(0 if all(reached) else 1)


if __name__ == "__main__":
    main()
