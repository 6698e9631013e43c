"""One label for a text."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding
from torch import Tensor
from torch.nn import functional as F

from ...runtime.errors import SetupError
from ...runtime.model.kinds.classification import ClassificationDecoder
from ...runtime.model.kinds.registry import kind_of
from ...schemas.manifest import TaskSpec, Thresholds
from ..data.counts import ReadCounts, RowLeftOut
from ..data.example import Example
from ..data.labelled import read_labelled
from ..data.row import Row
from ..data.rules import Rules
from .answers import Answer, Score
from .calibration import (
    FEW_ROWS,
    accept_threshold,
    count_rows,
    describe_rows,
    served_scores,
    temperature_of,
    withholding_threshold,
)
from .figures.calibration_error import calibration_error, sample_calibration_error
from .figures.findings import Choices, Details, Events
from .figures.intervals import auroc_interval, sample_shares
from .figures.label_counts import count_labels, sample_macro_f1
from .figures.outcome import Outcome, of_accuracy
from .kind import CalibrationRows, Chosen, Doubt, EncodedTexts, Kind

log = logging.getLogger(__name__)
Array = NDArray[Any]


class Classification(Kind):
    name = "classification"
    finds_doubts = True

    @property
    def is_regression(self) -> bool:
        """A kind that derives from this one with a head or a loss of its own is none."""
        return type(self).head is Kind.head and type(self).loss is Classification.loss

    @property
    def loss_reads_states(self) -> bool:
        return type(self).loss is not Classification.loss

    def read(self, row: Row, rules: Rules, counts: ReadCounts) -> Example | RowLeftOut:
        found = read_labelled(row, rules)
        if isinstance(found, RowLeftOut):
            return found
        if not found.labels and rules.reading.rest == "drop":
            return RowLeftOut.REST
        if len(found.labels) != 1:
            raise SetupError(
                f"{row.place}: expected one label, found {len(found.labels)}; one_of keeps rows with exactly one"
            )
        return found

    def as_example(self, text: str, output: Mapping[str, Any]) -> Example:
        return Example(text, (output["alternatives"][0]["label"],))

    def target(self, example: Example, encoding: Encoding, index: Mapping[str, int]) -> Array:
        return np.array(index[example.labels[0]])

    def loss(self, logits: Tensor, target: Tensor, smoothing: float, texts: EncodedTexts | None = None) -> Tensor:
        return F.cross_entropy(logits, target, label_smoothing=smoothing)

    def loss_by_row(self, logits: Tensor, target: Tensor, smoothing: float) -> Tensor:
        return F.cross_entropy(logits, target, label_smoothing=smoothing, reduction="none")

    def calibrate(self, rows: CalibrationRows) -> Chosen:
        """Choose the temperature of the softmax, and where to withhold: by the out-of-scope class where one is learned, else
        by the winner's score. Rows of the out-of-scope label are those to catch, all others are genuine.
        """
        index, rule, scope = rows.index, rows.rule, rows.scope
        logits = np.stack(rows.score(rows.validation))
        calibration = temperature_of(logits, np.array([index[example.labels[0]] for example in rows.validation]))
        given = Chosen(calibration, Thresholds(accept=rule.accept, out_of_scope=rule.out_of_scope))
        if scope is None:
            return given
        examples = [*rows.validation, *rows.outside]
        if rows.choosing:
            examples, logits = [*rows.choosing], np.stack(rows.score(rows.choosing))
        elif rows.outside:
            logits = np.concatenate([logits, np.stack(rows.score(rows.outside))])
        others = np.array([example.labels[0] == scope.label for example in examples])
        if others.all() or not others.any():
            return given
        scores = served_scores(logits, calibration)
        if scope.learn:
            doubt = scores[:, index[scope.label]]
            cut = withholding_threshold(doubt[~others].tolist(), doubt[others].tolist(), rule.max_flagged)
            _warn_of_flagged(rows, doubt[~others] >= cut)
            return given if rule.out_of_scope is not None else _choose(given, {"out_of_scope": cut}, others)
        best = scores.max(-1)
        least = accept_threshold(best[~others].tolist(), best[others].tolist(), rule.max_flagged)
        _warn_of_flagged(rows, best[~others] < least)
        return given if rule.accept is not None else _choose(given, {"accept": least}, others)

    def describe_thresholds(self, task: TaskSpec) -> list[str]:
        limits, rows, found = task.thresholds, task.threshold_rows, []
        few = rows is not None and min(rows.genuine, rows.others) < FEW_ROWS
        chosen = describe_rows(rows, "in scope", "out of scope", few=few)
        if task.out_of_scope is not None:
            likely = "where the nearest label is too far" if task.head and task.head.distance else "when most likely"
            limit = likely if limits.out_of_scope is None else f"from {limits.out_of_scope:.9g}{chosen}"
            found.append(f"{task.out_of_scope} {limit}")
        if limits.accept is not None:
            # The rows chose the threshold of the class, where there is one.
            found.append(f"withheld below {limits.accept:.9g}{'' if task.out_of_scope else chosen}")
        return found

    def metrics(self, logits: Sequence[Array], targets: Sequence[Array], task: TaskSpec) -> dict[str, float]:
        """Accuracy is the main one; with an out-of-scope label that of the argmax over all classes."""
        from sklearn.metrics import f1_score  # noqa: PLC0415  (takes seconds)

        guess, truth = np.stack(list(logits)).argmax(-1), np.stack(list(targets))
        accuracy = float((guess == truth).mean())
        return {"main": accuracy, "accuracy": accuracy, "macro_f1": float(f1_score(truth, guess, average="macro"))}

    def score(self, answers: Sequence[Answer], task: TaskSpec, scope: str | None) -> Score:
        """Score what a receiver gets, then the forced choice.

        At the thresholds of the manifest, of rows in scope: `served`, given and right; `withheld`. Of rows out of scope:
        `out_of_scope_recall`, withheld. Without thresholds, of rows in scope: `accuracy` and `macro_f1` of the best label in
        scope. `ece` holds the score of each answer against whether its label is right, over all rows whose label the model
        has, the one out of scope too where it is learned.
        """
        from sklearn.metrics import classification_report, f1_score, roc_auc_score  # noqa: PLC0415  (takes seconds)

        inner = [answer for answer in answers if answer.example.labels[0] != scope]
        outer = [answer for answer in answers if answer.example.labels[0] == scope]
        truth, guess = [answer.example.labels[0] for answer in inner], _best_in_scope(inner, task) if inner else []
        figures: dict[str, float | None] = {"rows": len(inner)}
        if inner:
            figures["served"] = float(
                np.mean([answer.output["label"] == label for answer, label in zip(inner, truth, strict=True)])
            )
            figures["withheld"] = float(np.mean([answer.output["abstained"] for answer in inner]))
        if outer:
            figures["out_of_scope_recall"] = float(np.mean([answer.output["abstained"] for answer in outer]))
        if inner:
            figures["accuracy"] = float(np.mean([a == b for a, b in zip(guess, truth, strict=True)]))
            figures["macro_f1"] = float(f1_score(truth, guess, average="macro", zero_division=0))
        events = _events(answers, task)
        figures["ece"] = calibration_error(*events) if events is not None else None
        if inner and outer:
            marks = [0] * len(inner) + [1] * len(outer)
            figures["out_of_scope_auroc"] = float(roc_auc_score(marks, _doubt([*inner, *outer], task)))
        if outer:
            figures["out_of_scope_rows"] = len(outer)
        table = str(classification_report(truth, guess, zero_division=0, digits=3)) if inner else ""
        return Score(figures, table)

    def detail(self, answers: Sequence[Answer], task: TaskSpec, scope: str | None) -> Details:
        inner = [answer for answer in answers if answer.example.labels[0] != scope]
        outer = [answer for answer in answers if answer.example.labels[0] == scope]
        guess = _best_in_scope(inner, task) if inner else []
        truth = [answer.example.labels[0] for answer in inner]
        figures = {"out_of_scope_recall": sample_shares([answer.output["abstained"] for answer in outer])}
        if inner:
            pairs = Counter(zip(truth, guess, strict=True))
            figures |= {
                "served": sample_shares(
                    [answer.output["label"] == label for answer, label in zip(inner, truth, strict=True)]
                ),
                "withheld": sample_shares([answer.output["abstained"] for answer in inner]),
                "accuracy": sample_shares([one == other for one, other in zip(truth, guess, strict=True)]),
                "macro_f1": sample_macro_f1(pairs),
            }
        events = _events(answers, task)
        doubts = [_doubt(part, task) if part else np.empty(0) for part in (inner, outer)]
        area = auroc_interval(*doubts)
        return Details(
            figures=figures | ({"ece": sample_calibration_error(*events)} if events is not None else {}),
            intervals={"out_of_scope_auroc": area} if area is not None else {},
            labels=count_labels(zip(truth, guess, strict=True)),
            confusions=Counter(pair for pair in zip(truth, guess, strict=True) if pair[0] != pair[1]),
            events=events,
            choices=_choices(inner, guess, task),
        )

    def describe(self, answer: Answer) -> tuple[str, str]:
        expected, answered = super().describe(answer)
        return expected, f"{answered}, withheld" if answer.output["abstained"] else answered

    def outcome(self, answers: Sequence[Answer], task: TaskSpec, scope: str | None) -> Outcome:
        """The best label in scope is right, withheld or not; a row out of scope is right when the answer is withheld."""
        return of_accuracy(not self.is_wrong(answer, task, scope) for answer in answers)

    def outcome_as_served(self, answers: Sequence[Answer], task: TaskSpec, scope: str | None) -> Outcome | None:
        """Answered with the right label, or rightly out of scope. Without a class of its own, all that is withheld is."""
        return of_accuracy(_is_served_right(answer, task, scope) for answer in answers)

    def is_wrong(self, answer: Answer, task: TaskSpec, scope: str | None) -> bool:
        truth = answer.example.labels[0]
        if truth == scope:
            return not answer.output["abstained"]
        return best_in_scope(answer, task) != truth

    def least_probability(self, answer: Answer, task: TaskSpec) -> float:
        return float(answer.output["score"])

    def is_sure(self, answer: Answer, task: TaskSpec) -> bool:
        """The score has to be above `accept`, too."""
        return super().is_sure(answer, task) and answer.output["reason"] != "below_threshold"

    def find_doubt(self, answer: Answer, task: TaskSpec, scope: str | None, sure: float) -> Doubt | None:
        output, given = answer.output, answer.example.labels[0]
        if output["abstained"] or given == scope or output["score"] < sure or output["label"] == given:
            return None
        first, *others = output["alternatives"]
        margin = round(abs(first["score"] - others[0]["score"]), 7) if others else None
        return Doubt(best_in_scope(answer, task), given, output["score"], margin)


def best_in_scope(answer: Answer, task: TaskSpec) -> str:
    """Return the most likely label but the one out of scope."""
    return _best_in_scope([answer], task)[0]


def _choose(given: Chosen, limit: Mapping[str, float], others: NDArray[np.bool_]) -> Chosen:
    return Chosen(given.calibration, given.thresholds.model_copy(update=limit), count_rows(others))


def _warn_of_flagged(rows: CalibrationRows, flagged: NDArray[Any]) -> None:
    """Say where no threshold withholds as few genuine texts as the recipe allows."""
    limit = rows.rule.max_flagged
    if limit is not None and flagged.mean() > limit + 1e-9:
        log.warning(
            "task %s: no threshold withholds at most %.1f %% of the genuine texts; the one chosen withholds %.1f %% of %d",
            *(rows.task, 100 * limit, 100 * flagged.mean(), len(flagged)),
        )


def _is_served_right(answer: Answer, task: TaskSpec, scope: str | None) -> bool:
    output, truth = answer.output, answer.example.labels[0]
    if truth == scope:
        return bool(output["abstained"]) and (task.out_of_scope is None or output["reason"] == "out_of_scope")
    return bool(output["label"] == truth)


def _events(answers: Sequence[Answer], spec: TaskSpec) -> Events | None:
    """Return the score of each best label, and whether it is right, over the rows whose label the model has."""
    known = [answer for answer in answers if answer.example.labels[0] in spec.labels]
    if not known:
        return None
    best = [answer.output["alternatives"][0] for answer in known]
    right = [item["label"] == answer.example.labels[0] for item, answer in zip(best, known, strict=True)]
    return Events(np.array([item["score"] for item in best], np.float64), np.array(right, np.float64))


def _choices(inner: Sequence[Answer], guess: Sequence[str], spec: TaskSpec) -> Choices | None:
    """Return the best labels in scope of the texts in scope, the surest those with the least doubt."""
    if not inner:
        return None
    right = [answer.example.labels[0] == label for answer, label in zip(inner, guess, strict=True)]
    given = [not answer.output["abstained"] for answer in inner]
    return Choices(-_doubt(inner, spec), np.array(right, np.float64), np.array(given, np.float64))


def _scores(answers: Sequence[Answer], spec: TaskSpec) -> Array:
    """Return the probability of each label as it is served, unrounded: a kind that derives from this one may have other logits."""
    decoder = kind_of(spec).make_decoder(spec)
    if not isinstance(decoder, ClassificationDecoder):
        raise TypeError(f"kind {spec.kind}: its decoder is no ClassificationDecoder, so it needs scores of its own")
    return decoder.scores(np.stack([answer.logits for answer in answers]))


def _best_in_scope(answers: Sequence[Answer], spec: TaskSpec) -> list[str]:
    scores = _scores(answers, spec)
    if spec.out_of_scope is not None:
        scores[:, spec.labels.index(spec.out_of_scope)] = -1
    return [spec.labels[number] for number in scores.argmax(-1)]


def _doubt(answers: Sequence[Answer], spec: TaskSpec) -> Array:
    """How much speaks for withholding: the out-of-scope label's score, or what the winner lacks."""
    scores = _scores(answers, spec)
    doubt: Array = scores[:, spec.labels.index(spec.out_of_scope)] if spec.out_of_scope else 1 - scores.max(-1)
    return doubt
