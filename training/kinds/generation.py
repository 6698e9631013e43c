"""Replies, worded piece by piece."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer
from torch import Tensor
from torch.nn import functional as F

from ...runtime.generation.reply_vocabulary import ReplyVocabulary, list_slots
from ...schemas.manifest import GenerationSpec, TaskSpec, Thresholds
from ..data.counts import ReadCounts, RowLeftOut
from ..data.example import Example
from ..data.replies import DIALOGUE, read_reply, write_reply
from ..data.row import Row
from ..data.rules import Rules
from .answers import Answer, Score
from .calibration import FEW_ROWS
from .figures.intervals import Interval
from .figures.outcome import Outcome, of_accuracy
from .kind import CalibrationRows, Chosen, EncodedTexts, Kind
from .replies.decoder import END, NO_PIECE, ReplyDecoder
from .replies.scores import (
    BLEU_OUTCOME,
    MEANINGS,
    ReplyScores,
    compare_with_references,
    score_bleu_and_rouge,
    score_replies,
)
from .replies.threshold import MAX_FLAGGED, choose_accept

if TYPE_CHECKING:
    from transformers import BertConfig

Array = NDArray[Any]
MOST_PIECES: Final[int] = GenerationSpec.model_fields["max_tokens"].default
SHOWN: Final = 10
SENDABLE: Final = "sendable"


class Generation(Kind):
    name = "generation"
    counted = "replies"
    served_outcomes = frozenset({SENDABLE})
    meanings: ClassVar[Mapping[str, str]] = {
        **MEANINGS,
        "exact": "share of replies that are the row's, letter for letter",
        "score": "mean of the replies' scores",
    }

    def read(self, row: Row, rules: Rules, counts: ReadCounts) -> Example | RowLeftOut:
        return read_reply(row, rules)

    @property
    def gain_unit(self) -> str:
        return BLEU_OUTCOME

    def as_row(self, example: Example) -> dict[str, Any]:
        return write_reply(example)

    def write_row(self, example: Example) -> dict[str, Any]:
        return write_reply(example)

    def as_example(self, text: str, output: Mapping[str, Any]) -> Example:
        return Example(text, reply=output["text"])

    def labels(self, examples: Sequence[Example]) -> list[str]:
        """Return none: pieces are made when the tokenizer is known."""
        return []

    def name_labels(self, labels: Sequence[str]) -> list[str]:
        """Return none: rows name no pieces."""
        return []

    def name_slots(self, labels: Sequence[str]) -> list[str]:
        return sorted(set(ReplyVocabulary(labels).slots.values())) if labels else []

    def unknown(self, example: Example, labels: frozenset[str]) -> str | None:
        """Return none: a character that no piece can spell is left out of a reply."""
        return None

    def make_head(self, config: "BertConfig", task: TaskSpec) -> ReplyDecoder:
        assert task.generation is not None
        sizes = task.generation
        return ReplyDecoder(config, pieces=len(task.labels), layers=sizes.layers, positions=sizes.max_tokens)

    def target(self, example: Example, encoding: Encoding, index: Mapping[str, int]) -> Array:
        raise TypeError("the pieces of a reply are known with a tokenizer only: see `targets`")

    def targets(
        self, examples: Sequence[Example], encodings: Iterable[Encoding], labels: Sequence[str], tokenizer: Tokenizer
    ) -> Iterator[tuple[Encoding, Array]]:
        """Yield each example's encoding and the pieces [T] of its reply, the end among them where it is not cut."""
        vocabulary = ReplyVocabulary(labels, tokenizer)
        for example, encoding in zip(examples, encodings, strict=True):
            pieces = [*vocabulary.encode(example.reply or ""), END]
            yield encoding, np.array(pieces[:MOST_PIECES], np.int64)

    def collate(self, targets: Sequence[Array], width: int) -> Tensor:
        """Return [B, T], NO_PIECE behind the end of each reply."""
        rows = np.full((len(targets), max(map(len, targets))), NO_PIECE, np.int64)
        for row, pieces in zip(rows, targets, strict=True):
            row[: len(pieces)] = pieces
        return torch.from_numpy(rows)

    def asked(self, target: Tensor) -> Tensor:
        return target != NO_PIECE

    def loss(self, logits: Tensor, target: Tensor, smoothing: float, texts: EncodedTexts | None = None) -> Tensor:
        """Return the mean over the pieces of all replies."""
        return F.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=NO_PIECE, label_smoothing=smoothing)

    def calibrate(self, rows: CalibrationRows) -> Chosen:
        """Choose the score below which a reply is not sent, on the replies to the validation rows; replies have no temperature."""
        rule = rows.rule
        if rule.accept is not None:
            return Chosen(thresholds=Thresholds(accept=rule.accept))
        most = MAX_FLAGGED if rule.max_flagged is None else rule.max_flagged
        return choose_accept(rows.replies, rows.training, most)

    def describe_thresholds(self, task: TaskSpec) -> list[str]:
        rows, least = task.threshold_rows, task.thresholds.accept
        if not least:
            why = "no threshold was chosen, as there are no validation rows" if least is None else "its threshold is 0"
            return [f"warning: every reply is sent, whatever its score: {why}; set `thresholds.accept`"]
        passed = ""
        if rows is not None and rows.passed is not None:
            few = ", few" if rows.genuine < FEW_ROWS else ""
            passed = f", which {rows.passed} of {rows.genuine + rows.others} replies to validation rows reach"
            passed += f" (chosen on {rows.genuine} right ones{few})"
        return [f"not sent below {least:.9g}{passed}"]

    def metrics(self, logits: Sequence[Array], targets: Sequence[Array], task: TaskSpec) -> dict[str, float]:
        """Score log-probabilities [T] of the pieces of replies, which stand here for logits.

        `main` is the geometric mean of the probabilities, `loss` the mean of their negative logarithms.
        """
        loss = -float(np.concatenate(list(logits)).mean())
        return {"main": float(np.exp(-loss)), "loss": loss}

    def score_decoded(self, replies: Sequence[str], references: Sequence[str]) -> dict[str, float]:
        return score_bleu_and_rouge(replies, references)

    def score(self, answers: Sequence[Answer], task: TaskSpec, scope: str | None) -> Score:
        """Score replies against those of the rows, with nothing forbidden.

        `exact` is the share of replies that are the row's, letter for letter. The table has the intervals, which draw the rows of
        a dialogue together where rows name one.
        """
        replies, references = _both(answers)
        dialogues = [answer.example.meta.get(DIALOGUE) or at for at, answer in enumerate(answers)]
        found = score_replies(replies, references, dialogues)
        exact = float(np.mean([one == other for one, other in zip(replies, references, strict=True)]))
        score = float(np.mean([answer.output["score"] for answer in answers]))
        figures = {"rows": float(found.rows), **found.figures, "exact": exact, "score": score}
        intervals = {name: Interval(*each) for name, each in found.intervals.items()}
        return Score(figures, f"{_describe(found)}\n{_samples(answers)}", intervals)

    def outcome(self, answers: Sequence[Answer], task: TaskSpec, scope: str | None) -> Outcome:
        return compare_with_references(*_both(answers))[BLEU_OUTCOME]

    def further_outcomes(self, answers: Sequence[Answer], task: TaskSpec) -> Mapping[str, Outcome]:
        """Return the slots named and not invented, the different replies, and `sendable`: replies that have ended, with the slots of
        the row's reply and no others, and a score from the threshold on, without the pieces that are forbidden in service; an agent
        says its template instead of the rest.
        """
        found = compare_with_references(*_both(answers))
        served = [(each.served, each.example.reply or "") for each in answers if each.served is not None]
        if len(served) == len(answers):
            found[SENDABLE] = of_accuracy(_is_sendable(*each, task.thresholds.accept or 0.0) for each in served)
        return {name: each for name, each in found.items() if name != BLEU_OUTCOME}

    def is_wrong(self, answer: Answer, task: TaskSpec, scope: str | None) -> bool:
        return bool(answer.output["text"] != answer.example.reply)

    def least_probability(self, answer: Answer, task: TaskSpec) -> float:
        return float(answer.output["score"])


def _both(answers: Sequence[Answer]) -> tuple[list[str], list[str]]:
    """Return the replies of a model and those of the rows."""
    return [str(each.output["text"]) for each in answers], [each.example.reply or "" for each in answers]


def _is_sendable(output: Mapping[str, Any], reference: str, least_score: float) -> bool:
    same = Counter(list_slots(output["text"])) == Counter(list_slots(reference))
    return same and output["finish"] == "end" and bool(output["score"] >= least_score)


def _samples(answers: Sequence[Answer]) -> str:
    """Return some replies below those of their rows, as text."""
    chosen = answers[:: max(1, len(answers) // SHOWN)][:SHOWN]
    return "\n".join(f"row    {each.example.reply}\nmodel  {each.output['text']}\n" for each in chosen)


def _describe(found: ReplyScores) -> str:
    """Return the 95 % intervals, a line each, and the signature of BLEU."""
    lines = [f"{name} {low:.4g} to {high:.4g}" for name, (low, high) in found.intervals.items()]
    return "\n".join(["95 % intervals", *lines, f"BLEU: {found.signature}", ""])
