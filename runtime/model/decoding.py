"""From logits to the outputs of the contract: one decoder per kind of task, over a whole batch at once.

Outputs are plain dicts of the shape of `schemas.result` (a test holds them against it). Scores are rounded to seven
places, and thresholds look at the rounded score, so that what is published explains what was decided.
"""

import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding

from ...schemas.manifest import TaskSpec, Thresholds
from .long_texts import Merge
from .windows import as_binary_logits, as_logits, merge_labels, merge_spans

Floats = npt.NDArray[np.floating[Any]]
Output = dict[str, Any]

PLACES: Final = 7
ALTERNATIVES: Final = 3


@dataclass(frozen=True, slots=True)
class MergedRows:
    """Which rows are the windows of one text: text b has rows `[bounds[b] : bounds[b + 1]]`."""

    bounds: npt.NDArray[np.int64]
    merges: Sequence[Merge]
    """One a text."""

    def __iter__(self) -> Iterator[tuple[int, int, Merge]]:
        return zip(self.bounds[:-1].tolist(), self.bounds[1:].tolist(), self.merges, strict=True)


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a batch that want a task. `values` are logits: [B, C], or for tagging [T, C] with row b in
    `values[bounds[b] : bounds[b + 1]]`.
    """

    values: Floats
    bounds: npt.NDArray[np.int64]
    encodings: Sequence[Encoding]
    texts: Sequence[str]
    merged: MergedRows | None = None
    """Where some rows are windows; `decode_windows` reads it."""


class Decoder(Protocol):
    """Made once per task; called once per batch. `rows` gives one output per text."""

    def __call__(self, rows: Rows, thresholds: Thresholds) -> list[Output]: ...

    def decode_windows(self, rows: Rows, thresholds: Thresholds) -> list[Output]:
        """Return one output for each text of `rows.merged`; that of a text with one row is as without windows."""


def softmax(logits: Floats) -> Floats:
    """Softmax over the last axis."""
    exp = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(exp / exp.sum(axis=-1, keepdims=True))


def sigmoid(logits: Floats) -> Floats:
    """1 / (1 + exp(-x)), by tanh, which does not overflow."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * logits)))


class Classification:
    """The most likely label, or an abstention.

    With an out-of-scope label: its score decides first (from `thresholds.out_of_scope` on; not set: when it is the most
    likely). Otherwise the best of the other labels wins, and abstains when its score is below `thresholds.accept`.
    """

    def __init__(self, spec: TaskSpec) -> None:
        self._labels = spec.labels
        self._out_of_scope = None if spec.out_of_scope is None else spec.labels.index(spec.out_of_scope)
        self._temperature = spec.calibration.temperature
        self._top = min(ALTERNATIVES, len(spec.labels))

    def __call__(self, rows: Rows, thresholds: Thresholds) -> list[Output]:
        scores = softmax(rows.values.astype(np.float64) / self._temperature).round(PLACES)
        every = np.arange(len(scores))
        winner, refused = self._winners(scores, thresholds.out_of_scope)
        order = self._order(scores, winner, every)
        best = scores[every[:, None], order].tolist()
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

    def _order(self, scores: Floats, winner: npt.NDArray[Any], every: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The top labels of each row, the winner first. Three passes of argmax beat a sort of 150 labels."""
        order = np.empty((len(scores), self._top), np.int64)
        left = scores.copy()
        order[:, 0] = winner
        for place in range(1, self._top):
            left[every, order[:, place - 1]] = -1.0
            order[:, place] = left.argmax(axis=1)
        return order


class MultiLabel:
    """The labels whose score reaches their threshold, highest first."""

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
            of_windows = scores[begin:end]
            merged = of_windows.mean(axis=0) if how == "mean" else of_windows.max(axis=0)
            return as_binary_logits(merged, self._temperature)

        return self(merge_rows(rows, merge), thresholds)


class Tagging:
    """Spans from BIO tags on the first sub-token of each word, under the scheme's constraints.

    The sequence is the most likely one in which an I-x follows only B-x or I-x (Viterbi with forbidden transitions and
    no others weighted). Where the tag-wise best sequence is legal already, it is that one, so the search is only run
    where it is not. A span's score is the mean probability of its words' tags.
    """

    def __init__(self, spec: TaskSpec) -> None:
        self._tags = spec.labels
        self._outside = spec.labels.index("O")
        self._temperature = spec.calibration.temperature
        self._legal = legal_transitions(spec.labels)
        self._legal_start = np.array([not tag.startswith("I-") for tag in spec.labels])
        # Row by row what may follow each tag; the last row, which is also row -1, what may come first.
        self._may_follow: list[list[bool]] = [*self._legal.tolist(), self._legal_start.tolist()]

    def __call__(self, rows: Rows, thresholds: Thresholds) -> list[Output]:
        del thresholds
        outputs: list[Output] = [{"kind": "tagging", "spans": []} for _ in rows.texts]
        # Most texts of most topics hold no entity: only rows with a tag other than O are looked at one by one.
        best = rows.values.argmax(axis=1)
        hits = np.flatnonzero(best != self._outside)
        if not len(hits):
            return outputs
        scores = self._scores(rows.values[hits])[np.arange(len(hits)), best[hits]]
        certain = dict(zip(hits.tolist(), scores.tolist(), strict=True))
        tags, bounds = best.tolist(), rows.bounds.tolist()
        for r in dict.fromkeys((np.searchsorted(rows.bounds, hits, side="right") - 1).tolist()):
            words = list(word_spans(rows.encodings[r]))
            tokens = [bounds[r] + first for first, _, _ in words]
            path = [tags[token] for token in tokens]
            if self._allowed(path):
                chosen = [certain.get(token, 0.0) for token in tokens]  # that of an O is never asked for
            else:
                path, chosen = self._searched(rows.values[tokens])
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

    def _allowed(self, path: list[int]) -> bool:
        """Whether a sequence is legal; in plain Python, since one text's is too short to be worth an array."""
        before = -1
        for tag in path:
            if not self._may_follow[before][tag]:
                return False
            before = tag
        return True

    def _searched(self, logits: Floats) -> tuple[list[int], list[float]]:
        scores = self._scores(logits)
        path = self.best_sequence(scores)
        return path, scores[np.arange(len(path)), path].tolist()

    def _spans(
        self, path: list[int], scores: list[float], words: list[tuple[int, int, int]], text: str
    ) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for label, first, last in tag_runs([self._tags[tag] for tag in path]):
            start, end = words[first][1], whole_character(text, words[last][2])
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
    """Return rows of logits, one a text; `merge` gives that of rows [begin, end)."""
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
    """Return the path of the highest sum of `emissions` [W, C] whose first tag and transitions are allowed."""
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


def word_spans(encoding: Encoding) -> Iterator[tuple[int, int, int]]:
    """Yield (index of the first sub-token, start, end) of each of the tokenizer's words, in code points.

    Words are what the pre-tokenizer makes (for BERT split at blanks and punctuation). Training aligns its tags with the
    same words.
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


def whole_character(text: str, end: int) -> int:
    """Move `end` behind the combining marks that follow it: normalisers strip accents, and a span must not cut one."""
    while end < len(text) and unicodedata.category(text[end]) in {"Mn", "Me"}:
        end += 1
    return end


DECODERS: Final[dict[str, type[Classification] | type[MultiLabel] | type[Tagging]]] = {
    "classification": Classification,
    "multi_label": MultiLabel,
    "tagging": Tagging,
}
