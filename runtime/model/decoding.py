"""Decodes logits into outputs: one decoder per kind of task, over a whole batch at once.

Outputs are plain dicts in the form of `schemas.result` (a test checks that). Scores are rounded to seven places, and
thresholds apply to the rounded score, so that the published score explains the decision.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding

from ...schemas.manifest import TaskSpec, Thresholds, WordRule
from .long_texts import Merge
from .windows import as_binary_logits, as_logits, merge_labels, merge_spans
from .words import align_words, extend_over_marks

Floats = npt.NDArray[np.floating[Any]]
Output = dict[str, Any]

PLACES: Final = 7
ALTERNATIVES: Final = 3


@dataclass(frozen=True, slots=True)
class MergedRows:
    """The windows of each text: text b has the rows `[bounds[b] : bounds[b + 1]]`."""

    bounds: npt.NDArray[np.int64]
    merges: Sequence[Merge]
    """One per text."""

    def __iter__(self) -> Iterator[tuple[int, int, Merge]]:
        return zip(self.bounds[:-1].tolist(), self.bounds[1:].tolist(), self.merges, strict=True)


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a batch to decode for a task. `values` are logits: [B, C], or for tagging [T, C] with row b in
    `values[bounds[b] : bounds[b + 1]]`.
    """

    values: Floats
    bounds: npt.NDArray[np.int64]
    encodings: Sequence[Encoding]
    texts: Sequence[str]
    merged: MergedRows | None = None
    """Set if some rows are windows; used by `decode_windows`."""


class Decoder(Protocol):
    """Created once per task, called once per batch. Returns one output per row."""

    def __call__(self, rows: Rows, thresholds: Thresholds) -> list[Output]: ...

    def decode_windows(self, rows: Rows, thresholds: Thresholds) -> list[Output]:
        """Return one output per text of `rows.merged`; for a text with one row the same as without windows."""


def softmax(logits: Floats) -> Floats:
    """Return the softmax over the last axis."""
    exp = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(exp / exp.sum(axis=-1, keepdims=True))


def sigmoid(logits: Floats) -> Floats:
    """Return 1 / (1 + exp(-x)), computed by tanh, which does not overflow."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * logits)))


class Classification:
    """The most likely label, or an abstention.

    An out-of-scope label wins if its score reaches `thresholds.out_of_scope` (if unset: if it is the most likely one).
    Otherwise the best other label wins, and abstains if its score is below `thresholds.accept`.
    """

    def __init__(self, spec: TaskSpec) -> None:
        self._labels = spec.labels
        self._out_of_scope = None if spec.out_of_scope is None else spec.labels.index(spec.out_of_scope)
        self._temperature = spec.calibration.temperature
        self._top = min(ALTERNATIVES, len(spec.labels))

    def __call__(self, rows: Rows, thresholds: Thresholds) -> list[Output]:
        scores = softmax(rows.values.astype(np.float64) / self._temperature).round(PLACES)
        every_row = np.arange(len(scores))
        winner, refused = self._winners(scores, thresholds.out_of_scope)
        order = self._order(scores, winner, every_row)
        best = scores[every_row[:, None], order].tolist()
        labels, accept = self._labels, thresholds.accept
        outputs: list[Output] = []
        for ids, values, out in zip(order.tolist(), best, refused, strict=True):
            reason = "out_of_scope" if out else None
            if accept is not None and not out and values[0] < accept:
                reason = "below_threshold"
            outputs.append(
                {
                    "kind": "classification",
                    "label": labels[ids[0]] if reason is None else None,
                    "score": values[0],
                    "alternatives": [{"label": labels[i], "score": v} for i, v in zip(ids, values, strict=True)],
                    "abstained": reason is not None,
                    "reason": reason,
                }
            )
        return outputs

    def decode_windows(self, rows: Rows, thresholds: Thresholds) -> list[Output]:
        scores = softmax(rows.values.astype(np.float64) / self._temperature)

        def merge(begin: int, end: int, how: Merge) -> Floats:
            merged = merge_labels(scores[begin:end], how, self._out_of_scope)
            return as_logits(merged, self._temperature)

        return self(merge_rows(rows, merge), thresholds)

    def _winners(self, scores: Floats, threshold: float | None) -> tuple[npt.NDArray[Any], list[bool]]:
        """Return the winning label of each row, and whether it is the out-of-scope one."""
        first = scores.argmax(axis=1)
        oos = self._out_of_scope
        if oos is None:
            return first, [False] * len(scores)
        refused = first == oos if threshold is None else scores[:, oos] >= threshold
        in_scope = scores.copy()
        in_scope[:, oos] = -1.0
        return np.where(refused, oos, in_scope.argmax(axis=1)), refused.tolist()

    def _order(self, scores: Floats, winner: npt.NDArray[Any], every_row: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the top labels of each row, the winner first. Three passes of argmax are faster than sorting 150 labels."""
        order = np.empty((len(scores), self._top), np.int64)
        left = scores.copy()
        order[:, 0] = winner
        for place in range(1, self._top):
            left[every_row, order[:, place - 1]] = -1.0
            order[:, place] = left.argmax(axis=1)
        return order


class MultiLabel:
    """The labels with a score of at least their threshold, highest first."""

    def __init__(self, spec: TaskSpec) -> None:
        self._labels = spec.labels
        self._temperature = spec.calibration.temperature

    def __call__(self, rows: Rows, thresholds: Thresholds) -> list[Output]:
        scores = np.round(sigmoid(rows.values.astype(np.float64) / self._temperature), PLACES)
        least = np.array([thresholds.labels.get(label, thresholds.label) for label in self._labels])
        found: list[list[dict[str, Any]]] = [[] for _ in range(len(scores))]
        row, column = np.nonzero(scores >= least)
        value = scores[row, column]
        order = np.argsort(-value, kind="stable")
        for r, c, v in zip(row[order].tolist(), column[order].tolist(), value[order].tolist(), strict=True):
            found[r].append({"label": self._labels[c], "score": v})
        return [{"kind": "multi_label", "labels": labels} for labels in found]

    def decode_windows(self, rows: Rows, thresholds: Thresholds) -> list[Output]:
        scores = sigmoid(rows.values.astype(np.float64) / self._temperature)

        def merge(begin: int, end: int, how: Merge) -> Floats:
            window_scores = scores[begin:end]
            merged = window_scores.mean(axis=0) if how == "mean" else window_scores.max(axis=0)
            return as_binary_logits(merged, self._temperature)

        return self(merge_rows(rows, merge), thresholds)


class Tagging:
    """Spans from BIO tags on the first sub-token of each word, under the scheme's constraints.

    The sequence is the most likely one in which I-x follows only B-x or I-x (Viterbi with forbidden transitions, no
    weights). If the sequence of each word's best tag is legal, it is that one, so the search runs only otherwise. A span's
    score is the mean probability of its words' tags.
    """

    def __init__(self, spec: TaskSpec) -> None:
        self._tags = spec.labels
        self._word_rule = spec.words
        self._outside = spec.labels.index("O")
        self._temperature = spec.calibration.temperature
        self._legal = legal_transitions(spec.labels)
        self._legal_start = np.array([not tag.startswith("I-") for tag in spec.labels])
        # Row i: the tags that may follow tag i; the last row, also row -1: the tags that may come first.
        self._may_follow: list[list[bool]] = [*self._legal.tolist(), self._legal_start.tolist()]

    def __call__(self, rows: Rows, thresholds: Thresholds) -> list[Output]:
        del thresholds
        outputs: list[Output] = [{"kind": "tagging", "spans": []} for _ in rows.texts]
        # Most texts have no entity: only rows with a tag other than O are processed one by one.
        best = rows.values.argmax(axis=1)
        hits = np.flatnonzero(best != self._outside)
        if not len(hits):
            return outputs
        scores = self._scores(rows.values[hits])[np.arange(len(hits)), best[hits]]
        certain = dict(zip(hits.tolist(), scores.tolist(), strict=True))
        tags, bounds = best.tolist(), rows.bounds.tolist()
        for r in dict.fromkeys((np.searchsorted(rows.bounds, hits, side="right") - 1).tolist()):
            words = read_words(self._word_rule, rows.texts[r], rows.encodings[r])
            tokens = [bounds[r] + first for first, _, _ in words]
            path = [tags[token] for token in tokens]
            if self._is_legal(path):
                chosen = [certain.get(token, 0.0) for token in tokens]  # the score of an O is not used
            else:
                path, chosen = self._search_path(rows.values[tokens])
            outputs[r]["spans"] = self._spans(path, chosen, words, rows.texts[r])
        return outputs

    def decode_windows(self, rows: Rows, thresholds: Thresholds) -> list[Output]:
        assert rows.merged is not None
        found = [output["spans"] for output in self(rows, thresholds)]
        outputs: list[Output] = []
        for begin, end, _ in rows.merged:
            spans = found[begin] if end - begin == 1 else merge_spans(found[begin:end], rows.encodings[begin:end])
            outputs.append({"kind": "tagging", "spans": spans})
        return outputs

    def _scores(self, logits: Floats) -> Floats:
        return softmax(logits.astype(np.float64) / self._temperature)

    def _is_legal(self, path: list[int]) -> bool:
        """Return whether a sequence is legal; in plain Python, since the sequence of one text is short."""
        previous = -1
        for tag in path:
            if not self._may_follow[previous][tag]:
                return False
            previous = tag
        return True

    def _search_path(self, logits: Floats) -> tuple[list[int], list[float]]:
        scores = self._scores(logits)
        path = self.best_sequence(scores)
        return path, scores[np.arange(len(path)), path].tolist()

    def _spans(
        self, path: list[int], scores: list[float], words: list[tuple[int, int, int]], text: str
    ) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for label, first, last in tag_runs([self._tags[tag] for tag in path]):
            start, end = words[first][1], extend_over_marks(text, words[last][2])
            score = round(sum(scores[first : last + 1]) / (last + 1 - first), PLACES)
            found.append({"label": label, "text": text[start:end], "start": start, "end": end, "score": score})
        return found

    def best_sequence(self, scores: Floats) -> list[int]:
        """Return the most likely legal tags for probabilities [W, C]."""
        best = scores.argmax(axis=1)
        if self._legal_start[best[0]] and self._legal[best[:-1], best[1:]].all():
            return [int(t) for t in best]
        return viterbi(np.log(np.maximum(scores, 1e-30)), self._legal_start, self._legal)


def merge_rows(rows: Rows, merge: Callable[[int, int, Merge], Floats]) -> Rows:
    """Return one row of logits per text; `merge` returns that of rows [begin, end)."""
    assert rows.merged is not None
    spans = list(rows.merged)
    values = [rows.values[begin] if end - begin == 1 else merge(begin, end, how) for begin, end, how in spans]
    first = [begin for begin, _, _ in spans]
    encodings, texts = [rows.encodings[row] for row in first], [rows.texts[row] for row in first]
    return Rows(np.array(values), rows.bounds, encodings, texts)


def legal_transitions(tags: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Return [C, C]: whether the second tag may follow the first under BIO."""
    return np.array([[not b.startswith("I-") or (a != "O" and a[2:] == b[2:]) for b in tags] for a in tags])


def viterbi(emissions: Floats, start: npt.NDArray[np.bool_], legal: npt.NDArray[np.bool_]) -> list[int]:
    """Return the path with the highest sum of `emissions` [W, C] among those with a legal start and legal transitions."""
    total = np.where(start, emissions[0], -np.inf)
    penalty = np.where(legal, 0.0, -np.inf)
    back: list[npt.NDArray[Any]] = []
    for emission in emissions[1:]:
        through = total[:, None] + penalty
        back.append(through.argmax(axis=0))
        total = through.max(axis=0) + emission
    path = [int(total.argmax())]
    for pointers in reversed(back):
        path.append(int(pointers[path[-1]]))
    return path[::-1]


def read_words(rule: WordRule, text: str, encoding: Encoding) -> list[tuple[int, int, int]]:
    """Return (index of the first sub-token, start, end) of each word in code points, by a task's word rule."""
    return align_words(text, encoding.offsets) if rule == "text" else list(word_spans(encoding))


def word_spans(encoding: Encoding) -> Iterator[tuple[int, int, int]]:
    """Yield (index of the first sub-token, start, end) of each of the tokenizer's words, in code points.

    Words are those of the pre-tokenizer (for BERT split at whitespace and punctuation): the word rule `tokenizer`.
    """
    offsets = encoding.offsets
    first = current = None
    end = 0
    for i, word in enumerate(encoding.word_ids):
        if word != current:
            if first is not None:
                yield first, offsets[first][0], end
            first, current = (None if word is None else i), word
        if word is not None:
            end = offsets[i][1]
    if first is not None:
        yield first, offsets[first][0], end


def tag_runs(tags: Sequence[str]) -> Iterator[tuple[str, int, int]]:
    """Yield (label, first, last) of each run of a legal BIO sequence; `last` is inclusive."""
    begin: int | None = None
    for i, tag in enumerate(tags):
        if begin is not None and not tag.startswith("I-"):
            yield tags[begin][2:], begin, i - 1
            begin = None
        if tag.startswith("B-"):
            begin = i
    if begin is not None:
        yield tags[begin][2:], begin, len(tags) - 1


DECODERS: Final[dict[str, type[Classification] | type[MultiLabel] | type[Tagging]]] = {
    "classification": Classification,
    "multi_label": MultiLabel,
    "tagging": Tagging,
}
