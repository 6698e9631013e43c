"""Active learning, simulated: which texts to label, by margin, entropy, k-centre or disagreement, against random choice.

python benchmarks/active_learning.py                      # Banking77, three seeds (some minutes on one core, most of them the encoder's)
python benchmarks/active_learning.py --keep vectors.npz   # keeps what the frozen encoder makes of the texts for the next time

The learner is a logistic regression on the frozen MiniLM encoder: it costs a second, and a choice is judged by what it teaches. Each
seed draws the first labels anew (two a class) and holds them the same for all strategies; in each round the strategy names the
texts that are labelled next. For `disagreement` the encoder reads the texts five times more, with dropout. Random choice at all of the labels, 40 a class, is what margin has to reach at half of them.
"""

import argparse
import gzip
import json
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np

from murmura.training.fit.probe.regression import fit_regression
from murmura.training.suggest.k_centre import choose_centres
from murmura.training.suggest.usefulness import score_disagreement, score_entropy, score_margin, to_probabilities

ROOT = Path(__file__).resolve().parents[1]
STRATEGIES = ("random", "margin", "entropy", "k-centre", "disagreement")
FIRST, ROUNDS = 2, 10
"""Labels a class at the beginning, and rounds to the end."""
PASSES = 5
"""With dropout, of `disagreement`."""
Array = Any


def read(data: Path, name: str) -> tuple[list[str], list[str]]:
    """Return texts and labels of a part of Banking77."""
    path = data / "banking77" / name
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return [row["text"] for row in rows], [row["intent"] for row in rows]


def embed(texts: list[str], passes: int = 0) -> Array:
    """Return the mean of the last layer of the frozen encoder for each text: [N, H], in fp32. With `passes` of so many passes with
    dropout, in bf16: [T, N, H].
    """
    import torch

    from murmura.training.fit.rows.encoding import encode_ids
    from murmura.training.kinds.heads import pool_mean
    from murmura.training.model.encoders import build_encoder, load
    from murmura.training.model.padding import in_order, pad
    from murmura.training.recipe.recipe import DEFAULT_ENCODER
    from murmura.training.suggest.states import mean_states

    checkpoint = load(DEFAULT_ENCODER)
    checkpoint.tokenizer.enable_truncation(64)
    encoder = build_encoder(checkpoint.spec, checkpoint.weights, dropout=0.1 if passes else 0.0)
    ids = encode_ids(texts, checkpoint.tokenizer)
    if not passes:
        return mean_states(encoder, ids)
    encoder.train()
    found = np.zeros((passes, len(texts), encoder.config.hidden_size), np.float32)
    torch.manual_seed(0)
    for number in range(passes):
        for rows in in_order(ids, 64):
            tokens, mask = pad([ids[row] for row in rows])
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
                states = encoder(input_ids=tokens, attention_mask=mask).last_hidden_state
            found[number, rows] = pool_mean(states.float(), mask).numpy()
    return found


def choose(
    strategy: str,
    vectors: Array,
    passes: Array | None,
    labelled: list[int],
    head: tuple[Array, Array],
    count: int,
    seed: int,
) -> list[int]:
    """Return the rows that are labelled next. `passes` [T, N, H] are the vectors of passes with dropout."""
    left = np.setdiff1d(np.arange(len(vectors)), labelled)
    if strategy == "random":
        return list(np.random.default_rng(seed).choice(left, count, replace=False))
    if strategy == "k-centre":
        rows, _ = choose_centres(vectors[left], count, vectors[labelled])
        return list(left[rows])
    if strategy == "disagreement":
        assert passes is not None
        usefulness = score_disagreement(to_probabilities(passes[:, left] @ head[0].T + head[1], 1.0))
        return list(left[np.argsort(-usefulness, kind="stable")[:count]])
    scores = to_probabilities(vectors[left] @ head[0].T + head[1], 1.0)
    usefulness = score_margin(scores) if strategy == "margin" else score_entropy(scores)
    return list(left[np.argsort(-usefulness, kind="stable")[:count]])


def run(
    strategy: str,
    seed: int,
    train: tuple[Array, list[str]],
    test: tuple[Array, list[str]],
    step: int,
    passes: Array | None = None,
) -> list[Array]:
    """Return for each round which test rows are right: [N] each."""
    vectors, labels = train
    draw = np.random.default_rng(seed)
    chosen = [
        int(row)
        for label in sorted(set(labels))
        for row in draw.choice([at for at, other in enumerate(labels) if other == label], FIRST, replace=False)
    ]
    right = []
    for round_ in range(ROUNDS + 1):
        weight, bias, names = fit_regression(vectors[chosen], [labels[row] for row in chosen])
        guess = (test[0] @ weight.T + bias).argmax(1)
        right.append(np.array([names[best] == label for best, label in zip(guess, test[1], strict=True)]))
        if round_ < ROUNDS:
            chosen += choose(strategy, vectors, passes, chosen, (weight, bias), step, 1000 * seed + round_)
    return right


def interval(differences: Array, seed: int = 0) -> tuple[float, float, float]:
    """Return the mean of paired differences [S, N] with its 95 % interval: rows are drawn for all seeds together, and the t
    interval of the seeds is added in quadrature.
    """
    by_seed = differences.mean(1)
    by_row = differences.mean(0)
    draw = np.random.default_rng(seed)
    means = [by_row[draw.integers(0, len(by_row), len(by_row))].mean() for _ in range(2000)]
    low, high = np.quantile(means, [0.025, 0.975])
    t = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}.get(len(by_seed), 2.0)
    spread = t * by_seed.std(ddof=1) / np.sqrt(len(by_seed)) if len(by_seed) > 1 else 0.0
    mean = float(by_seed.mean())
    return mean, mean - float(np.hypot(mean - low, spread)), mean + float(np.hypot(high - mean, spread))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("MURMURA_TEST_DATA", ROOT.parent / "shared/data"))
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--strategies", nargs="+", choices=STRATEGIES, default=STRATEGIES)
    parser.add_argument("--all", type=int, default=40, help="labels a class at the end")
    parser.add_argument("--keep", type=Path, help="an .npz of the vectors, read where it is there")
    parser.add_argument("--short", action="store_true", help="random choice and margin, one seed")
    chosen = parser.parse_args()
    if chosen.short:
        chosen.seeds, chosen.strategies = [0], ["random", "margin"]
    if not chosen.data.is_dir():
        raise SystemExit(f"no public data sets at {chosen.data}: --data or MURMURA_TEST_DATA names their folder")
    began = time.process_time()
    train, test = read(chosen.data, "train.jsonl.gz"), read(chosen.data, "test.jsonl")
    if chosen.keep and chosen.keep.is_file():
        vectors = dict(np.load(chosen.keep))
    else:
        vectors = {"train": embed(train[0]), "test": embed(test[0])}
    if "disagreement" in chosen.strategies and "passes" not in vectors:
        vectors["passes"] = embed(train[0], PASSES)
    if chosen.keep:
        np.savez(chosen.keep, **vectors)
    classes = len(set(train[1]))
    step = (chosen.all - FIRST) * classes // ROUNDS
    counts = [FIRST * classes + step * round_ for round_ in range(ROUNDS + 1)]
    print(f"{len(train[0]):,} texts, {classes} classes; encoded in {time.process_time() - began:.0f} CPU-s", flush=True)
    right: dict[str, Array] = {}
    for strategy in chosen.strategies:
        began = time.process_time()
        parts = (vectors["train"], train[1]), (vectors["test"], test[1])
        right[strategy] = np.array(
            [run(strategy, seed, *parts, step, vectors.get("passes")) for seed in chosen.seeds], float
        )
        curve = " ".join(f"{100 * value:.1f}" for value in right[strategy].mean((0, 2)))
        print(f"{strategy:9} {curve}   {time.process_time() - began:.0f} CPU-s", flush=True)
    half = ROUNDS // 2
    print(f"labels    {' '.join(str(count) for count in counts)}")
    for strategy in [each for each in chosen.strategies if each != "random" and "random" in right]:
        for what, here, there in (("the same", half, half), ("all", half, ROUNDS), ("all", ROUNDS, ROUNDS)):
            mean, low, high = interval(right[strategy][:, here] - right["random"][:, there])
            print(
                f"{strategy} at {counts[here]} labels against random choice at {what} ({counts[there]}): "
                f"{100 * mean:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]",
                flush=True,
            )


if __name__ == "__main__":
    main()
