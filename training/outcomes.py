"""What a model gets right of a set's rows, row by row: the numbers that the gate compares."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from ..runtime.model.decoding import sigmoid, softmax, word_spans
from ..schemas.manifest import TaskSpec
from .answers import Answer
from .data.example import Span
from .gate import Outcome, of_accuracy, of_f1
from .kind_tagging import bio

SURE_ENOUGH: Final = 0.7
Named = set[tuple[object, ...]]


def outcome(found: Sequence[Answer], spec: TaskSpec, scope: str | None) -> Outcome:
    """Return what is right. A label that the model does not have it gets wrong.

    Classification: the best label in scope is right, withheld or not, as `accuracy` in reports; a row out of scope is
    right when the answer is withheld. Several labels: the labels named. Tagging: whole spans over the data's words.
    """
    if spec.kind == "classification":
        return of_accuracy(is_right(answer, spec, scope) for answer in found)
    pairs = [named_labels(answer) if spec.kind == "multi_label" else _spans(answer) for answer in found]
    return of_f1(
        [len(truth & guess) for truth, guess in pairs],
        [len(guess - truth) for truth, guess in pairs],
        [len(truth - guess) for truth, guess in pairs],
    )


def outcome_as_served(found: Sequence[Answer], spec: TaskSpec, scope: str | None) -> Outcome:
    """Return what a receiver gets right of a classification: answered with the right label, or rightly out of scope."""
    return of_accuracy(is_served_right(answer, spec, scope) for answer in found)


def is_right(answer: Answer, spec: TaskSpec, scope: str | None) -> bool:
    """Say whether a classification's answer is right; of a withheld one the best label in scope counts."""
    truth = answer.example.labels[0]
    if truth == scope:
        return bool(answer.output["abstained"])
    return best_in_scope(answer, spec) == truth


def is_served_right(answer: Answer, spec: TaskSpec, scope: str | None) -> bool:
    """Say whether what is sent is right. Without a class of its own, all that is withheld is out of scope."""
    output, truth = answer.output, answer.example.labels[0]
    if truth == scope:
        return bool(output["abstained"]) and (spec.out_of_scope is None or output["reason"] == "out_of_scope")
    return bool(output["label"] == truth)


def is_wrong(answer: Answer, spec: TaskSpec, scope: str | None) -> bool:
    """Say whether an answer of any kind differs from what should be answered."""
    if spec.kind == "classification":
        return not is_right(answer, spec, scope)
    truth, guess = named_labels(answer) if spec.kind == "multi_label" else _spans(answer)
    return truth != guess


def is_sure(answer: Answer, spec: TaskSpec) -> bool:
    """Say whether a model stands by an answer: every decision in it has a probability of at least SURE_ENOUGH.

    Of a classification that is the answer's score, which has to be above `accept`, too; of several labels whether each is
    named or not, whatever its threshold is; of tagging the tag of each word.
    """
    logits = answer.logits.astype(np.float64) / spec.calibration.temperature
    if spec.kind == "classification":
        return bool(answer.output["score"] >= SURE_ENOUGH and answer.output["reason"] != "below_threshold")
    if spec.kind == "multi_label":
        named = np.isin(spec.labels, [item["label"] for item in answer.output["labels"]])
        scores = sigmoid(logits)
        return bool((np.where(named, scores, 1 - scores) >= SURE_ENOUGH).all())
    words = [first for first, _, _ in word_spans(answer.encoding)]
    return bool((softmax(logits[words]).max(axis=-1) >= SURE_ENOUGH).all())


def best_in_scope(answer: Answer, spec: TaskSpec) -> str:
    """Return the most likely label but the one out of scope."""
    order: list[int] = answer.logits.argsort()[::-1].tolist()
    labels = (spec.labels[number] for number in order)
    return next(label for label in labels if label != spec.out_of_scope)


def named_labels(answer: Answer) -> tuple[Named, Named]:
    """Return the labels that there are, and those that were named."""
    return {(label,) for label in answer.example.labels}, {(item["label"],) for item in answer.output["labels"]}


def _spans(answer: Answer) -> tuple[Named, Named]:
    words = answer.example.words or tuple((start, end) for _, start, end in word_spans(answer.encoding))
    guess = tuple(Span(item["start"], item["end"], item["label"]) for item in answer.output["spans"])
    return _whole(bio(words, answer.example.spans)), _whole(bio(words, guess))


def _whole(tags: Sequence[str]) -> Named:
    """Return first word, word behind the last, and label of each span."""
    found: Named = set()
    start = None
    for at, tag in enumerate([*tags, "O"]):
        if start is not None and not tag.startswith("I-"):
            found.add((start, at, tags[start][2:]))
            start = None
        if tag.startswith("B-"):
            start = at
    return found
