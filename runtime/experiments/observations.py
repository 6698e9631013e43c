"""Turns records into what an experiment counts: units, and events of its measures. Pure."""

from collections.abc import Container, Iterable, Iterator, Mapping
from typing import Final

from ...schemas.experiment import Unit
from ...schemas.feedback import Feedback, Verdict
from ...schemas.result import ClassificationOutput, Result
from ...schemas.review import Review, ReviewReason

Counts = dict[str, tuple[float, float]]
"""By measure's key: a number of events out of a number of chances."""

Drawn = tuple[str, str]
"""An answer that was drawn at random: its prediction id, and the task."""

OTHER_AGREEMENT: Final = "other_agreement"
"""Measure of the verdicts that nobody was asked for at random. It is shown; no rule can name it."""

_BLIND: Final = frozenset({Verdict.CONFIRMED, Verdict.CORRECTION})
"""Verdicts that a person can give without seeing the answer: up and down are given by those who saw it."""

_METADATA = "metadata."


def find_unit(unit: Unit, key: bytes | None, request_id: str, metadata: Mapping[str, str]) -> str | None:
    """Return the unit that a record belongs to; None where its metadata has no such field: the current version then answers it.

    The key of a conversation's records is the conversation. Bytes that are no UTF-8 keep their value. A request without a
    key is a unit of its own: its result has the request's id as key, and must be of the same unit.
    """
    if unit.startswith(_METADATA):
        return metadata.get(unit.removeprefix(_METADATA))
    if unit == "request" or key is None:
        return request_id
    return key.decode("utf-8", "surrogateescape")


def count_result(result: Result) -> Counts:
    """Return what an answer says of a version: that it is one, and which of its classifications were withheld and why."""
    outputs = result.outputs.items()
    reasons = {task: output.reason for task, output in outputs if isinstance(output, ClassificationOutput)}
    return count_answer(reasons, candidate_failed=result.candidate_failed)


def count_answer(reasons: Mapping[str, str | None], *, candidate_failed: bool = False) -> Counts:
    """Return the same; `reasons` says by classification task why there is no label, None where there is one.

    `candidate_failed`: the current version answered in place of a candidate that failed on the record: an error of its side,
    since nobody answers in its place once it is current.
    """
    counts: Counts = {"errors": (float(candidate_failed), 1.0)}
    for task, reason in reasons.items():
        _add(counts, "withheld", task, reason == "below_threshold")
        _add(counts, "out_of_scope", task, reason == "out_of_scope")
    return counts


def count_error() -> Counts:
    """Return what a record says of a version that failed to answer it."""
    return {"errors": (1.0, 1.0)}


def find_drawn(review: Review, experiment: str) -> Drawn | None:
    """Return the answer that a review asks about where it was drawn at random, by unit, in this experiment; else None."""
    if review.why is not ReviewReason.RANDOM or review.experiment != experiment or review.prediction_id is None:
        return None
    return review.prediction_id, review.task


def counts_for_goals(feedback: Feedback, drawn: Container[Drawn]) -> bool:
    """Return whether goals and guardrails may use a verdict: one that was given blind, on an answer that was drawn at random.

    People judge what looks wrong, so agreement among verdicts that nobody asked for does not estimate the agreement on all
    answers, and the bias need not be equal on both sides; so do those of a person who saw the answer, where it happened to be
    drawn. `drawn`: what `find_drawn` returned of the experiment's reviews.
    """
    return feedback.blind and feedback.verdict in _BLIND and (feedback.prediction_id, feedback.task) in drawn


def count_feedback(feedback: Feedback, drawn: Container[Drawn]) -> Counts:
    """Return whether a person agreed, apart for verdicts that no rule may use; nothing where the verdict does not say."""
    counts: Counts = {}
    agrees = feedback.verdict.agrees
    if agrees is not None:
        measure = "agreement" if counts_for_goals(feedback, drawn) else OTHER_AGREEMENT
        _add(counts, measure, feedback.task, agrees)
    return counts


def count_ratio(name: str, value: float) -> Counts:
    """Return events of a ratio of the user's own. Its chances are the requests that were answered: `count_chances`."""
    return {_ratio_key(name): (value, 0.0)}


def count_chances(names: Iterable[str]) -> Counts:
    """Return one chance for each ratio of the user's own, of a request that was answered."""
    return {_ratio_key(name): (0.0, 1.0) for name in names}


def _ratio_key(name: str) -> str:
    return f"ratio/{name}"


def _add(counts: Counts, measure: str, task: str, happened: bool) -> None:
    """Count a chance of a measure for its task and over all tasks."""
    for key in _keys(measure, task):
        value, weight = counts.get(key, (0.0, 0.0))
        counts[key] = value + float(happened), weight + 1.0


def _keys(measure: str, task: str) -> Iterator[str]:
    yield measure
    yield f"{measure}/{task}"
