"""Four heads against one, and an answer alone against the same text in any batch. In CPU-seconds of this process.

    python benchmarks/heads_and_invariance.py [--short] [--texts N] [--rounds N] [--rows N] [--data ../shared/data]

MiniLM-L6 in the ragged form on utterances of CLINC150's test set, tokenised beforehand, batches in file order, one run
at a time. The two graphs take turns batch by batch, so that other work on the machine meets both alike. The second part
answers texts alone, in batches of 2 to 64 in file order and in shuffled ones that hold a text of 128 tokens, and takes
the largest difference of any logit and any score.
"""

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
from load import utterances
from minilm import FOUR_TASKS, NAME, minilm_model

from murmura.runtime.model.decoding import softmax
from murmura.runtime.model.model import Encoded, Logits, Model

LONG = "and then i asked about my card again " * 40


def batches(encoded: list[Encoded], rows: int) -> list[list[Encoded]]:
    return [encoded[i : i + rows] for i in range(0, len(encoded), rows)]


def cpu_seconds(model: Model, batch: list[Encoded]) -> float:
    began = time.process_time()
    model.run(batch)
    return time.process_time() - began


def heads(texts: list[str], rounds: int, rows: int) -> None:
    four, one = minilm_model(4), minilm_model(1)
    parts = batches(four.encode(texts), rows)
    for model in (four, one):
        model.run(parts[0])
    took: dict[str, list[float]] = {"four": [], "one": []}
    for _ in range(rounds):
        spent = {"four": 0.0, "one": 0.0}
        for i, part in enumerate(parts):
            for name, model in (("four", four), ("one", one))[:: 1 if i % 2 else -1]:
                spent[name] += cpu_seconds(model, part)
        for name, seconds in spent.items():
            took[name].append(seconds)
    for name, seconds in took.items():
        print(f"  {name}: {statistics.median(seconds) / len(texts) * 1e3:.3f} CPU-ms a text")
    ratio = statistics.median(b / a for a, b in zip(took["four"], took["one"], strict=True))
    print(
        f"four heads against one: {ratio:.3f} (goal >= 0.98); {NAME}, {len(texts)} utterances of CLINC150's test set, "
        f"batches of {rows}, {rounds} rounds"
    )


def per_text(model: Model, logits: Logits, row: int) -> dict[str, np.ndarray]:
    tokens = slice(int(logits.starts[row]), int(logits.starts[row + 1]))
    return {t.name: logits.values[t.name][tokens if t.kind == "tagging" else row] for t in FOUR_TASKS}


def largest_difference(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> tuple[float, float]:
    """Of the logits, relative to their size where that is above 1, and of the scores."""
    logits = max(float((np.abs(a[n] - b[n]) / np.maximum(np.abs(b[n]), 1)).max()) for n in a)
    scores = max(float(np.abs(softmax(a[n]) - softmax(b[n])).max()) for n in a)
    return logits, scores


def invariance(texts: list[str]) -> None:
    model = minilm_model(4)
    encoded = [*model.encode(texts), *model.encode([LONG])]
    alone = [per_text(model, model.run([item]), 0) for item in encoded]
    worst = [0.0, 0.0]
    random = np.random.default_rng(0)
    orders = [(list(range(len(texts))), rows) for rows in (2, 7, 32, 64)]
    orders += [(random.permutation(len(encoded)).tolist(), rows) for rows in (16, 64)]
    for order, rows in orders:
        for begin in range(0, len(order), rows):
            part = order[begin : begin + rows]
            logits = model.run([encoded[i] for i in part])
            for row, i in enumerate(part):
                found = largest_difference(per_text(model, logits, row), alone[i])
                worst = [max(w, f) for w, f in zip(worst, found, strict=True)]
    print(
        f"an answer alone against in any batch, fp32: scores differ by at most {worst[1]:.1e} (goal <= 1e-6), logits by "
        f"{worst[0]:.1e}; {NAME}, {len(texts)} utterances of CLINC150's test set and one of 128 tokens"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="fewer texts and rounds: under 30 s")
    parser.add_argument("--texts", type=int, help="utterances (default 2000; short 300)")
    parser.add_argument("--rounds", type=int, help="rounds (default 7; short 5)")
    parser.add_argument("--rows", type=int, default=16, help="texts a batch in the first part (default 16)")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the public data sets")
    args = parser.parse_args()
    every = utterances(args.data)
    count = args.texts or (300 if args.short else 2000)
    texts = every[:: max(1, len(every) // count)][:count]
    heads(texts, args.rounds or (5 if args.short else 7), args.rows)
    invariance(texts[:: max(1, len(texts) // 400)])


if __name__ == "__main__":
    main()
