"""Spans of a text, from BIO tags of its words."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ....schemas.feedback import FeedbackSpan
from ....schemas.manifest import TaskSpec, Thresholds
from ..decoding import PLACES, Decoder, Floats, Output, Rows, softmax
from ..tag_sequences import OUTSIDE, legal_transitions, tag_runs, viterbi
from ..texts.tokenizing import read_words
from ..texts.windows import merge_spans
from ..texts.words import extend_over_marks, trim_span
from .forms import AnswerForm, Reads
from .kind import NONE, Answer, Kind, read_label


class Tagging(Kind):
    name = "tagging"
    training = "murmura.training.kinds.tagging:Tagging"
    reads = Reads.TOKENS
    form = AnswerForm.SPANS
    correction = "a list of spans"

    def check(self, task: TaskSpec) -> None:
        super().check(task)
        bad = [tag for tag in task.labels if tag != OUTSIDE and tag[:2] not in {"B-", "I-"}]
        if bad or OUTSIDE not in task.labels:
            found = bad[:3] or f"no {OUTSIDE}"
            raise ValueError(f"task {task.name}: tagging needs BIO tags with {OUTSIDE}, found {found}")

    def check_new_labels(self, labels: Sequence[str]) -> None:
        """Every word needs a tag: O, and B-x and I-x for every x."""
        types = dict.fromkeys(tag[2:] for tag in labels if tag[2:])
        needed = [OUTSIDE, *(f"{prefix}-{name}" for name in types for prefix in "BI")]
        if strange := [tag for tag in labels if tag not in needed]:
            raise ValueError(f"{strange[0]!r} is not a BIO tag; expected O, B-x and I-x")
        if missing := [tag for tag in needed if tag not in labels]:
            raise ValueError(f"tag {missing[0]!r} is missing; expected O, and B-x and I-x for every x")

    def known_labels(self, task: TaskSpec) -> frozenset[str]:
        return frozenset(tag[2:] for tag in task.labels if tag != OUTSIDE)

    def make_decoder(self, task: TaskSpec) -> Decoder:
        return TaggingDecoder(task)

    def format_line(self, output: Answer) -> str:
        return ", ".join(f"{span['text']} ({span['label']})" for span in output["spans"]) or "-"

    def list_answers(self, output: Answer) -> Iterator[tuple[str | None, float]]:
        return ((span["label"], span["score"]) for span in output["spans"])

    def name_answer(self, output: Answer) -> str:
        return ", ".join(sorted(f"{each['label']} {each['start']}-{each['end']}" for each in output["spans"])) or NONE

    def accepts_correction(self, value: Any) -> bool:
        return isinstance(value, list) and all(isinstance(span, FeedbackSpan) for span in value)

    def target_of_correction(self, value: Any) -> Any:
        """Return the spans as sorted lists of start, end and label."""
        if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
            raise ValueError("no list of spans")
        spans = [[each["start"], each["end"], read_label(each["label"])] for each in value]
        if not all(type(offset) is int for start, end, _ in spans for offset in (start, end)):
            raise ValueError("an offset is no whole number")
        return sorted(spans)

    def target_of_answer(self, output: Answer) -> Any | None:
        return self.target_of_correction(output["spans"])

    def labels_of_target(self, target: Any) -> set[str]:
        return {label for _, _, label in target}

    def fit_to_text(self, target: Any, text: str) -> Any | None:
        """Return the spans without the blanks and invisible characters at their ends."""
        fitted = []
        for start, end, label in target:
            place = trim_span(text, start, end) if 0 <= start < end <= len(text) else None
            if place is None:
                return None
            fitted.append([*place, label])
        return fitted

    def fields_of_target(self, target: Any) -> dict[str, Any]:
        return {"spans": [{"start": start, "end": end, "label": label} for start, end, label in target]}

    def fake_output(self, task: TaskSpec) -> Output:
        return {"kind": task.kind, "spans": []}

    def shape_fake_logits(self, logits: npt.NDArray[np.float32], task: TaskSpec) -> npt.NDArray[np.float32]:
        """About one token in thirty is tagged, rarely with I- first."""
        offsets = [10.0 if tag == OUTSIDE else -6.0 if tag[0] == "I" else 0.0 for tag in task.labels]
        return logits + np.array(offsets, np.float32)


class TaggingDecoder:
    """Spans from BIO tags on the first sub-token of each word, under the scheme's constraints.

    The sequence is the most likely one in which I-x follows only B-x or I-x (Viterbi with forbidden transitions, no
    weights). If the sequence of each word's best tag is legal, it is that one, so the search runs only otherwise. A span's
    score is the mean probability of its words' tags.
    """

    def __init__(self, spec: TaskSpec) -> None:
        self._kind, self._tags = spec.kind, spec.labels
        self._word_rule = spec.words
        self._outside = spec.labels.index("O")
        self._temperature = spec.calibration.temperature
        self._legal = legal_transitions(spec.labels)
        self._legal_start = np.array([not tag.startswith("I-") for tag in spec.labels])
        # Row i: the tags that may follow tag i; the last row, also row -1: the tags that may come first.
        self._may_follow: list[list[bool]] = [*self._legal.tolist(), self._legal_start.tolist()]

    def __call__(self, rows: Rows, thresholds: Thresholds) -> list[Output]:
        del thresholds
        outputs: list[Output] = [{"kind": self._kind, "spans": []} for _ in rows.texts]
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
            outputs.append({"kind": self._kind, "spans": spans})
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
