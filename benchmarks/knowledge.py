"""Answers from knowledge at the demo's desk: by the model's vectors, by those of other encoders, and by BM25.

    python benchmarks/knowledge.py [--model FOLDER]

Texts are 200 paraphrases and 212 texts that nothing answers (scenarios/support/rows/knowledge.jsonl); each threshold is
chosen on 402 others (knowledge-validation.jsonl), so that at most 2 % of either sort are answered wrongly.
"""

import argparse
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from murmura.agents.dialogue.knowledge.entries import Entry, read_knowledge, rows_of
from murmura.agents.dialogue.knowledge.index import Scored, build_index, choose_threshold, measure, score_rows
from murmura.runtime.model.deltas.delta import DELTA_NAME, apply_delta, find_base, read_base
from murmura.runtime.model.folders.folder import read_manifest
from murmura.runtime.model.folders.weights import Weights
from murmura.runtime.model.graph.build import build_graph
from murmura.runtime.model.graph.decoder import build_decoders
from murmura.runtime.model.model import Model
from murmura.runtime.model.onnx_session import open_session
from murmura.runtime.model.replies.reply_decoder import make_decoders

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
    print(f"{'':<28}{'recall@1':>22}{'threshold':>11}{'right':>22}{'wrong':>8}{'of unanswerable':>17}")
    for name, score in arms(folder, entries).items():
        chosen = choose_threshold(score(validation)).threshold
        scored = score(test)
        asked = [row for row in scored if row.is_answerable]
        figures = measure(scored, chosen)
        print(
            f"{name:<28}{share(row.is_right for row in asked):>22}{chosen:>11.2f}"
            f"{share(row.is_right and row.score >= chosen for row in asked):>22}{figures.wrong:>8.1%}"
            f"{figures.wrong_of_unanswerable:>17.1%}",
            flush=True,
        )


def read_rows(path: Path) -> Rows:
    return [(row["text"], row["question"]) for row in map(json.loads, path.read_text(encoding="utf-8").splitlines())]


def share(rows: Iterable[bool], draws: int = 2000) -> str:
    """Return a share with its 95 % interval, by drawing rows anew."""
    values, random = np.array([*rows], float), np.random.default_rng(0)
    means = values[random.integers(0, len(values), (draws, len(values)))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return f"{values.mean():.1%} [{low:.1%}, {high:.1%}]"


def arms(folder: Path, entries: list[Entry]) -> dict[str, Score]:
    manifest = read_manifest(folder)
    assert manifest.base is not None, f"{folder}: expected a delta folder"
    base = read_base(find_base(manifest.base.source, manifest.base.sha256), manifest.base)
    tuned = apply_delta(base, load_file(folder / DELTA_NAME))
    frozen = {**tuned, **{name: array.astype(np.float32) for name, array in base.items() if name in tuned}}
    trained, untouched = open_pooled(folder, tuned, manifest.pooled_layers), open_pooled(folder, frozen, [])
    return {
        "the model": by_vectors(trained, entries),
        "its last layer": by_vectors(open_pooled(folder, tuned, []), entries),
        "frozen MiniLM": by_vectors(untouched, entries, whitened=False),
        "frozen MiniLM, whitened": by_vectors(untouched, entries),
        "BM25": by_words(entries),
    }


def open_pooled(folder: Path, weights: Weights, layers: list[int]) -> Model:
    """Return the model with these weights and a vector of these layers, which the folder's manifest may not have."""
    update = {"pooled": True, "pooled_layers": layers, "base": None}
    manifest = read_manifest(folder).model_copy(update=update)
    graph = build_graph(manifest.encoder, manifest.tasks, weights, pooled=True, pooled_layers=layers)
    built = build_decoders(manifest, weights, {})
    decoders = make_decoders(manifest, lambda path: open_session(built[path], "cpu"))
    tokenizer = Tokenizer.from_file(str(folder / manifest.tokenizer))
    return Model(manifest, tokenizer, open_session(graph, "cpu"), decoders=decoders)


def by_vectors(model: Model, entries: list[Entry], *, whitened: bool = True) -> Score:
    if whitened:
        index = build_index(entries, model)
        return lambda rows: score_rows(index, rows, model.embed([text for text, _ in rows]), NOW)
    known = model.embed([question for question, _ in rows_of(entries)])
    return lambda rows: score(entries, rows, model.embed([text for text, _ in rows]) @ known.T)


def score(entries: list[Entry], rows: Rows, similarities: np.ndarray) -> list[Scored]:
    """Score the nearest question of each text, [texts, questions], as an index does."""
    owners = [number for _, number in rows_of(entries)]
    scored = []
    for (_, question), similarity in zip(rows, similarities, strict=True):
        entry = entries[owners[int(similarity.argmax())]]
        right = entry.answer is not None and question is not None and question in entry.questions
        reached = -1.0 if entry.answer is None else float(similarity.max())
        scored.append(Scored(reached, right, question is not None))
    return scored


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

    return lambda rows: score(entries, rows, np.array([similarity(text) for text, _ in rows], np.float32))


def words_of(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower().replace("'", ""))


if __name__ == "__main__":
    main()
