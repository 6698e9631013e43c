"""Answers from knowledge at the demo's desk: the encoder that was trained along, the one that it began from, and BM25.

    python benchmarks/knowledge.py [--model FOLDER]

Texts are 200 paraphrases and 212 texts that nothing answers (scenarios/support/rows/knowledge.jsonl); each threshold is
chosen on 142 others, so that at most 5 % of them are answered wrongly.
"""

import argparse
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from murmura.agents.dialogue.knowledge import Entry, read_knowledge, rows_of
from murmura.agents.dialogue.knowledge_index import (
    KnowledgeIndex,
    Scored,
    build_index,
    choose_threshold,
    measure,
    score_rows,
)
from murmura.runtime.model.delta import DELTA_NAME, apply_delta, find_base, read_base
from murmura.runtime.model.folder import read_manifest
from murmura.runtime.model.graph.build import build_graph
from murmura.runtime.model.graph.decoder import build_decoders
from murmura.runtime.model.model import Model
from murmura.runtime.model.onnx_session import open_session
from murmura.runtime.model.replies.reply_decoder import make_decoders
from murmura.runtime.model.weights import Weights

SUPPORT = Path(__file__).parents[1] / "scenarios" / "support"
NOW = 1_767_225_600_000.0
Rows = list[tuple[str, str | None]]
Score = Callable[[Rows], list[Scored]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=SUPPORT / "model", help="a delta folder")
    folder = parser.parse_args().model
    entries = read_knowledge(SUPPORT / "faq.yaml")
    test, validation = (
        read_rows(SUPPORT / "rows" / name) for name in ("knowledge.jsonl", "knowledge-validation.jsonl")
    )
    answerable = sum(question is not None for _, question in test)
    print(f"{len(entries)} entries, {answerable} paraphrases, {len(test) - answerable} texts that nothing answers")
    print(f"{'':<22}{'recall@1':>24}{'threshold':>11}{'right':>8}{'wrong':>8}{'of unanswerable':>17}")
    for name, score in arms(folder, entries).items():
        chosen = choose_threshold(score(validation)).threshold
        scored = score(test)
        low, high = interval([row.is_right for row in scored if row.is_answerable])
        nearest = measure(scored, -2.0).recall
        figures = measure(scored, chosen)
        print(
            f"{name:<22}{f'{nearest:.1%} [{low:.1%}, {high:.1%}]':>24}{chosen:>11.2f}{figures.recall:>8.1%}"
            f"{figures.wrong:>8.1%}{figures.wrong_of_unanswerable:>17.1%}"
        )


def read_rows(path: Path) -> Rows:
    return [(row["text"], row["question"]) for row in map(json.loads, path.read_text(encoding="utf-8").splitlines())]


def interval(right: Sequence[bool], draws: int = 2000) -> tuple[float, float]:
    """Return the 95 % interval of a share, by drawing rows anew."""
    values, random = np.array(right, float), np.random.default_rng(0)
    means = values[random.integers(0, len(values), (draws, len(values)))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def arms(folder: Path, entries: list[Entry]) -> dict[str, Score]:
    manifest = read_manifest(folder)
    assert manifest.base is not None, f"{folder}: expected a delta folder"
    base = read_base(find_base(manifest.base.source, manifest.base.sha256), manifest.base)
    tuned = apply_delta(base, load_file(folder / DELTA_NAME))
    frozen = {**tuned, **{name: array.astype(np.float32) for name, array in base.items() if name in tuned}}
    return {
        "trained along": by_vectors(open_pooled(folder, tuned), entries),
        "frozen MiniLM": by_vectors(open_pooled(folder, frozen), entries),
        "BM25": by_words(entries),
    }


def open_pooled(folder: Path, weights: Weights) -> Model:
    """Return the model with these weights and the pooled output, which the folder's manifest may not have."""
    manifest = read_manifest(folder).model_copy(update={"pooled": True, "base": None})
    session = open_session(build_graph(manifest.encoder, manifest.tasks, weights, pooled=True), "cpu")
    built = build_decoders(manifest, weights, {})
    decoders = make_decoders(manifest, lambda path: open_session(built[path], "cpu"))
    return Model(manifest, Tokenizer.from_file(str(folder / manifest.tokenizer)), session, decoders=decoders)


def by_vectors(model: Model, entries: list[Entry]) -> Score:
    index = build_index(entries, model)
    return lambda rows: score_rows(index, rows, model.embed([text for text, _ in rows]), NOW)


def by_words(entries: list[Entry], k1: float = 1.2, b: float = 0.75) -> Score:
    """Okapi BM25 (Robertson and Zaragoza 2009) over all questions and wordings; s / (s + 5) maps scores to below 1."""
    documents = [words_of(question) for question, _ in rows_of(entries)]
    counts = [Counter(document) for document in documents]
    average = sum(map(len, documents)) / len(documents)
    holding = Counter(word for document in documents for word in set(document))
    idf = {word: math.log(1 + (len(documents) - n + 0.5) / (n + 0.5)) for word, n in holding.items()}

    def similarity(text: str) -> list[float]:
        asked = words_of(text)
        scores = [
            sum(
                idf[word] * found[word] * (k1 + 1) / (found[word] + k1 * (1 - b + b * sum(found.values()) / average))
                for word in asked
                if word in found
            )
            for found in counts
        ]
        return [score / (score + 5) for score in scores]

    # A vector of similarities against the unit vectors: the index searches as it does by vectors of texts.
    index = KnowledgeIndex(entries, np.eye(len(documents), dtype=np.float32))
    return lambda rows: score_rows(index, rows, np.array([similarity(text) for text, _ in rows], np.float32), NOW)


def words_of(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower().replace("'", ""))


if __name__ == "__main__":
    main()
