"""BIO tags for the words of a text; the first sub-token of a word speaks for it, the others are not asked.

Words are the tokenizer's own pre-tokenised ones, in training as in serving, also where the data came as tokens: what
is learned is what is decoded.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from seqeval.metrics import classification_report, f1_score, precision_score, recall_score
from seqeval.scheme import IOB2
from tokenizers import Encoding
from torch import Tensor, nn
from torch.nn import functional as F

from ..runtime.model.decoding import word_spans
from ..schemas.manifest import TaskSpec
from .answers import Answer, Score
from .data.example import Example, Span
from .heads import linear_head

Array = NDArray[Any]
IGNORED: Final = -100


class Tagging:
    per_token = True
    several = False

    def labels(self, examples: Sequence[Example]) -> list[str]:
        names = sorted({span.label for example in examples for span in example.spans})
        return ["O", *(f"{prefix}-{name}" for name in names for prefix in "BI")]

    def unknown(self, example: Example, labels: frozenset[str]) -> str | None:
        return next((span.label for span in example.spans if f"B-{span.label}" not in labels), None)

    def head(self, width: int, labels: int) -> nn.Linear:
        return linear_head(width, labels)

    def target(self, example: Example, encoding: Encoding, index: dict[str, int]) -> Array:
        """Return [S]: the tag of each first sub-token, IGNORED elsewhere. A word in a span by one character is in it."""
        tags = np.full(len(encoding.ids), IGNORED)
        for token, start, end in word_spans(encoding):
            tags[token] = index["O"]
            for span in example.spans:
                if start < span.end and span.start < end:
                    tags[token] = index[f"{'B' if start <= span.start else 'I'}-{span.label}"]
                    break
        return tags

    def collate(self, targets: Sequence[Array], width: int) -> Tensor:
        padded = np.full((len(targets), width), IGNORED)
        for row, tags in zip(padded, targets, strict=True):
            row[: len(tags)] = tags
        return torch.from_numpy(padded)

    def asked(self, target: Tensor) -> Tensor:
        return target != IGNORED

    def loss(self, logits: Tensor, target: Tensor, smoothing: float) -> Tensor:
        asked = self.asked(target)
        if not bool(asked.any()):  # texts without words, of invisible characters say
            return logits.sum() * 0.0
        return F.cross_entropy(logits[asked], target[asked], label_smoothing=smoothing)

    def metrics(self, logits: Sequence[Array], targets: Sequence[Array], spec: TaskSpec) -> dict[str, float]:
        """Span micro-F1 (seqeval, lenient) of the most likely tags; the served decoder is a little better."""
        names = np.array(spec.labels)
        truth = [names[tags[tags != IGNORED]].tolist() for tags in targets]
        guess = [names[rows[tags != IGNORED].argmax(-1)].tolist() for rows, tags in zip(logits, targets, strict=True)]
        f1 = float(f1_score(truth, guess, zero_division=0))
        return {"main": f1, "f1": f1}

    def score(self, answers: Sequence[Answer], spec: TaskSpec, scope: str | None) -> Score:
        """Span scores by seqeval, over the data's own tokens where it has them, else over the tokenizer's words.

        `f1` is lenient as conlleval (an I-x may open a span), `f1_strict` counts IOB2 spans only.
        """
        words = [answer.example.words or _words(answer.encoding) for answer in answers]
        truth = [bio(at, answer.example.spans) for at, answer in zip(words, answers, strict=True)]
        guess = [bio(at, _spans(answer.output)) for at, answer in zip(words, answers, strict=True)]
        figures = {
            "rows": float(len(answers)),
            "spans": float(sum(len(answer.example.spans) for answer in answers)),
            "f1": float(f1_score(truth, guess, zero_division=0)),
            "precision": float(precision_score(truth, guess, zero_division=0)),
            "recall": float(recall_score(truth, guess, zero_division=0)),
            "f1_strict": float(f1_score(truth, guess, mode="strict", scheme=IOB2, zero_division=0)),
            "exact": float(np.mean([a == b for a, b in zip(truth, guess, strict=True)])),
        }
        return Score(figures, str(classification_report(truth, guess, zero_division=0, digits=3)))


def _words(encoding: Encoding) -> tuple[tuple[int, int], ...]:
    return tuple((start, end) for _, start, end in word_spans(encoding))


def _spans(output: dict[str, Any]) -> tuple[Span, ...]:
    return tuple(Span(item["start"], item["end"], item["label"]) for item in output["spans"])


def bio(words: Sequence[tuple[int, int]], spans: Sequence[Span]) -> list[str]:
    """Return a tag for each word: B for the first word that a span touches, I for the others."""
    tags = ["O"] * len(words)
    for span in sorted(spans, key=lambda s: s.start):
        touched = [i for i, (start, end) in enumerate(words) if start < span.end and span.start < end]
        free = [i for i in touched if tags[i] == "O"]
        for place, number in enumerate(free):
            tags[number] = f"{'I' if place else 'B'}-{span.label}"
    return tags
