"""What a model gets right of a set's rows, row by row: the numbers that the gate compares."""

from collections import Counter
from collections.abc import Sequence
from typing import Final

import numpy as np

from ...runtime.model.decoding import sigmoid, softmax
from ...runtime.model.tokenizing import read_words
from ...schemas.manifest import TaskSpec
from .answers import Answer
from .outcome import Outcome, of_accuracy, of_f1
from .span_scores import locate
from .tagging import served_spans, true_spans

SURE_ENOUGH: Final = 0.7
Named = Counter[tuple[object, ...]]


def outcome(found: Sequence[Answer], spec: TaskSpec, scope: str | None) -> Outcome:
    """Return what is right. A label that the model does not have it gets wrong.

    Classification: the best label in scope is right, withheld or not, as `accuracy` in reports; a row out of scope is
    right when the answer is withheld. Several labels: the labels named. Tagging: whole spans by the words of the text, also
    those behind `max_tokens`. Where no row of the set has a label or a span, F1 says nothing; then a row is right when
    nothing is named.
    """
    if spec.kind == "classification":
        return of_accuracy(is_right(answer, spec, scope) for answer in found)
    pairs = [named(answer, spec) for answer in found]
    if not any(truth for truth, _ in pairs):
        return of_accuracy(not guess for _, guess in pairs)
    return of_f1(
        [(truth & guess).total() for truth, guess in pairs],
        [(guess - truth).total() for truth, guess in pairs],
        [(truth - guess).total() for truth, guess in pairs],
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
    truth, guess = named(answer, spec)
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
    words = [first for first, _, _ in read_words(spec.words, answer.example.text, answer.encoding)]
    return bool((softmax(logits[words]).max(axis=-1) >= SURE_ENOUGH).all())


def best_in_scope(answer: Answer, spec: TaskSpec) -> str:
    """Return the most likely label but the one out of scope."""
    order: list[int] = answer.logits.argsort()[::-1].tolist()
    labels = (spec.labels[number] for number in order)
    return next(label for label in labels if label != spec.out_of_scope)


def named(answer: Answer, spec: TaskSpec) -> tuple[Named, Named]:
    """Return the labels, for tagging the spans, that there are, and those that were named."""
    example, output = answer.example, answer.output
    if spec.kind == "multi_label":
        return Named((label,) for label in example.labels), Named((item["label"],) for item in output["labels"])
    return Named(locate(example.text, true_spans(example))), Named(locate(example.text, served_spans(output)))
