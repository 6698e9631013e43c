"""BIO tags for the words of a text; the first sub-token of a word speaks for it, the others are not asked.

Words are those of the text (`runtime.model.words`), in training, serving and scores, also where the data came as tokens:
what is learned is what is decoded, for every tokenizer and every format of the data.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Encoding
from torch import Tensor
from torch.nn import functional as F

from ...runtime.model.decoding import softmax
from ...runtime.model.kinds.tagging import TaggingDecoder as Decoder
from ...runtime.model.tag_sequences import tag_runs
from ...runtime.model.texts.tokenizing import read_words
from ...runtime.model.texts.words import align_words, trim_span
from ...schemas.manifest import TaskSpec
from ..data.counts import ReadCounts, RowLeftOut
from ..data.example import Example, Span
from ..data.row import Row
from ..data.rules import Rules
from ..data.tagging import read_tagging
from .answers import Answer, Score
from .calibration import temperature_of
from .figures.calibration_error import calibration_error
from .figures.findings import Details, Events
from .figures.outcome import Outcome, of_counts
from .figures.span_details import detail_spans
from .figures.span_scores import Located, Matches, locate, locate_exactly, match
from .kind import CalibrationRows, Chosen, EncodedTexts, Kind

Array = NDArray[Any]
NO_SPAN: Final = "no span"
IGNORED: Final = -100
UNREAD: Final = -200
"""Behind the tags of a target, one for each span of which no word lies within `max_tokens`: nothing is learned, it is missed."""


class Tagging(Kind):
    name = "tagging"
    counted = "spans"

    def read(self, row: Row, rules: Rules, counts: ReadCounts) -> Example | RowLeftOut:
        return read_tagging(row, rules, counts)

    def as_row(self, example: Example) -> dict[str, Any]:
        spans = [{"start": span.start, "end": span.end, "label": span.label} for span in example.spans]
        return {"text": example.text, "spans": spans}

    def as_example(self, text: str, output: Mapping[str, Any]) -> Example:
        return Example(text, spans=tuple(Span(*span) for span in served_spans(output)))

    def labels(self, examples: Sequence[Example]) -> list[str]:
        names = sorted({span.label for example in examples for span in example.spans})
        return ["O", *self.label_logits(names)]

    def name_labels(self, labels: Sequence[str]) -> list[str]:
        return [label[2:] for label in labels if label[:2] == "B-"]

    def label_logits(self, new: Sequence[str]) -> list[str]:
        return [f"{prefix}-{label}" for label in new for prefix in "BI"]

    def unknown(self, example: Example, labels: frozenset[str]) -> str | None:
        return next((span.label for span in example.spans if f"B-{span.label}" not in labels), None)

    def target(self, example: Example, encoding: Encoding, index: Mapping[str, int]) -> Array:
        """Return [S + M]: the tag of each first sub-token, IGNORED elsewhere, then UNREAD for each of M spans behind the limit.

        A word that a span touches by one character is in it; the first of them begins it, wherever the span begins. A word
        in two spans goes to the first of them.
        """
        tags = np.full(len(encoding.ids), IGNORED)
        words = align_words(example.text, encoding.offsets)
        tags[[token for token, _, _ in words]] = index["O"]
        unread = 0
        for span in sorted(example.spans, key=lambda s: s.start):
            start, end = trim_span(example.text, span.start, span.end) or (0, 0)
            touched = [token for token, first, last in words if first < end and start < last]
            unread += start < end and not touched
            free = [token for token in touched if tags[token] == index["O"]]
            for place, token in enumerate(free):
                tags[token] = index[f"{'I' if place else 'B'}-{span.label}"]
        return np.append(tags, np.full(unread, UNREAD))

    def collate(self, targets: Sequence[Array], width: int) -> Tensor:
        padded = np.full((len(targets), width), IGNORED)
        for row, tags in zip(padded, targets, strict=True):
            read = tags[tags != UNREAD]
            row[: len(read)] = read
        return torch.from_numpy(padded)

    def asked(self, target: Tensor) -> Tensor:
        return target >= 0

    def loss(self, logits: Tensor, target: Tensor, smoothing: float, texts: EncodedTexts | None = None) -> Tensor:
        asked = self.asked(target)
        if not bool(asked.any()):  # texts without words, of invisible characters say
            return logits.sum() * 0.0
        return F.cross_entropy(logits[asked], target[asked], label_smoothing=smoothing)

    def calibrate(self, rows: CalibrationRows) -> Chosen:
        """Choose the temperature of the words' tags. It changes the scores of spans, never the spans."""
        encodings = rows.encode([example.text for example in rows.validation])
        targets = [self.target(*pair, rows.index) for pair in zip(rows.validation, encodings, strict=True)]
        logits = rows.score(rows.validation)
        tags = np.concatenate([target[: len(read)] for target, read in zip(targets, logits, strict=True)])
        asked = tags >= 0
        return Chosen(temperature_of(np.concatenate(logits)[asked], tags[asked]))

    def metrics(self, logits: Sequence[Array], targets: Sequence[Array], task: TaskSpec) -> dict[str, float]:
        """Span micro-F1 of the most likely legal tags, as served; spans behind the limit are missed. No figures where no text
        has a span: then F1 says nothing.
        """
        decoder, found = Decoder(task), Matches()
        for rows, tags in zip(logits, targets, strict=True):
            found += Matches(missed=int((tags == UNREAD).sum()))
            words = np.flatnonzero(tags >= 0)
            if len(words):
                path = decoder.best_sequence(softmax(rows[words].astype(np.float64)))
                found += match(_runs(tags[words].tolist(), task), _runs(path, task))
        f1 = found.f1 if found.right + found.missed else None
        return {} if f1 is None else {"main": f1, "f1": f1}

    def score(self, answers: Sequence[Answer], task: TaskSpec, scope: str | None) -> Score:
        """Score whole spans, of the whole text: those behind `max_tokens` are missed.

        `f1` compares by the words that spans touch, `f1_exact` by characters; both are None where neither the texts nor the
        answers have spans. `exact` is the share of texts with all spans right.
        """
        truth = [locate(answer.example.text, true_spans(answer.example)) for answer in answers]
        guess = [locate(answer.example.text, served_spans(answer.output)) for answer in answers]
        found = sum((match(a, b) for a, b in zip(truth, guess, strict=True)), Matches())
        exactly = sum((match(*_located_exactly(answer)) for answer in answers), Matches())
        events = _events(answers, truth)
        figures = {
            "rows": float(len(answers)),
            "f1": found.f1,
            "f1_exact": exactly.f1,
            "precision": found.precision,
            "recall": found.recall,
            "exact": float(np.mean([a == b for a, b in zip(truth, guess, strict=True)])),
            "false_spans_per_100_texts": 100 * found.wrong / len(answers),
            "ece": calibration_error(*events) if events is not None else None,
            "spans": float(found.right + found.missed),
        }
        return Score(figures, _table(truth, guess))

    def detail(self, answers: Sequence[Answer], task: TaskSpec, scope: str | None) -> Details:
        pairs = [_located(answer) for answer in answers]
        exactly = [_located_exactly(answer) for answer in answers]
        return detail_spans(pairs, exactly, _events(answers, [truth for truth, _ in pairs]))

    def describe(self, answer: Answer) -> tuple[str, str]:
        text = answer.example.text
        return _quote(text, true_spans(answer.example)), _quote(text, served_spans(answer.output))

    def outcome(self, answers: Sequence[Answer], task: TaskSpec, scope: str | None) -> Outcome:
        """Micro-F1 of whole spans by the words of the text, also those behind `max_tokens`. Where no row has a span, a row is
        right when none is found.
        """
        return of_counts([_located(answer) for answer in answers])

    def is_wrong(self, answer: Answer, task: TaskSpec, scope: str | None) -> bool:
        truth, guess = _located(answer)
        return truth != guess

    def least_probability(self, answer: Answer, task: TaskSpec) -> float:
        """Of the tag of each word."""
        words = [first for first, _, _ in read_words(task.words, answer.example.text, answer.encoding)]
        scores = softmax(answer.logits[words].astype(np.float64) / task.calibration.temperature)
        return float(scores.max(axis=-1).min(initial=1.0))


def _located(answer: Answer) -> tuple[Located, Located]:
    """Return the spans that there are, and those that were found."""
    text = answer.example.text
    return locate(text, true_spans(answer.example)), locate(text, served_spans(answer.output))


def true_spans(example: Example) -> list[tuple[int, int, str]]:
    """Return the spans that a text has."""
    return [(span.start, span.end, span.label) for span in example.spans]


def served_spans(output: Mapping[str, Any]) -> list[tuple[int, int, str]]:
    """Return the spans of an answer."""
    return [(item["start"], item["end"], item["label"]) for item in output["spans"]]


def _runs(tags: Sequence[int], task: TaskSpec) -> Located:
    return Located((first, last, label) for label, first, last in tag_runs([task.labels[tag] for tag in tags]))


def _located_exactly(answer: Answer) -> tuple[Located, Located]:
    text = answer.example.text
    return locate_exactly(text, true_spans(answer.example)), locate_exactly(text, served_spans(answer.output))


def _events(answers: Sequence[Answer], truth: Sequence[Located]) -> Events | None:
    """Return the score of each served span, and whether it is right; None where none is served."""
    scores, right = [], []
    for answer, spans_of_text in zip(answers, truth, strict=True):
        for item, span in zip(answer.output["spans"], served_spans(answer.output), strict=True):
            scores.append(item["score"])
            right.append(bool(spans_of_text & locate(answer.example.text, [span])))
    return Events(np.array(scores, np.float64), np.array(right, np.float64)) if scores else None


def _quote(text: str, spans: Iterable[tuple[int, int, str]]) -> str:
    return ", ".join(f"{text[start:end]} ({label})" for start, end, label in sorted(spans)) or NO_SPAN


def _table(truth: Sequence[Located], guess: Sequence[Located]) -> str:
    """Return precision, recall and F1 of each label as text."""
    labels = sorted({label for spans in (*truth, *guess) for _, _, label in spans})
    width = max([len(label) for label in labels] + [5])
    lines = [f"{'':{width}} {'precision':>10} {'recall':>8} {'f1':>8} {'spans':>8}"]
    for label in labels:
        pairs = zip(_only(label, truth), _only(label, guess), strict=True)
        found = sum((match(a, b) for a, b in pairs), Matches())
        shares = [("-" if share is None else f"{share:.3f}") for share in (found.precision, found.recall, found.f1)]
        lines.append(f"{label:{width}} {shares[0]:>10} {shares[1]:>8} {shares[2]:>8} {found.right + found.missed:>8}")
    return "\n".join(lines)


def _only(label: str, spans: Iterable[Located]) -> list[Located]:
    return [Located({place: count for place, count in each.items() if place[2] == label}) for each in spans]
