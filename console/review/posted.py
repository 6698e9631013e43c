"""What a person entered, as a verdict: a confirmation where it is the model's answer, else a correction. Pure."""

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final, NamedTuple

from ...runtime.model.texts.words import trim_blanks
from ...runtime.spelling import suggest
from ...schemas.feedback import LABEL_CHARACTERS, WORDING_CHARACTERS, Feedback, Verdict
from .item import ReviewItem, canonical
from .tasks import EntryForm, ReviewTask

Posted = Mapping[str, Sequence[str]]
"""The fields of a form, each with its values."""
_SPAN_LINE: Final = re.compile(r"(\d{1,9})\s+(\d{1,9})\s+(\S.*)")


class BadEntry(ValueError):
    """What was entered is no answer. The message is one line for the person, and quotes no text of the request."""


class Judgement(NamedTuple):
    """A verdict with its value, and what it stands for (`target`), by which people are compared."""

    verdict: Verdict
    value: Any
    target: str


def read_posted(posted: Posted, item: ReviewItem) -> Judgement:
    """Return the verdict on an item. Raises BadEntry."""
    task = item.task
    value = _READERS[task.form](posted, item)
    target = canonical(task.kind.target_of_correction(value))
    if target == item.guess.answer:
        return Judgement(Verdict.CONFIRMED, None, target)
    return Judgement(Verdict.CORRECTION, value, target)


def target_of(feedback: Feedback, item: ReviewItem) -> str | None:
    """Return what a verdict from elsewhere stands for; None where it cannot be read as one on this item."""
    if feedback.verdict is Verdict.CONFIRMED:
        return item.guess.answer
    try:
        return canonical(item.task.kind.target_of_correction(feedback.model_dump()["value"]))
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def _read_label(posted: Posted, item: ReviewItem) -> str:
    new = trim_blanks(_one(posted, "new_label"))
    label = new or trim_blanks(_one(posted, "label"))
    if not label:
        raise BadEntry("no label is chosen: choose one, or skip the text")
    return _check_label(label, item.task)


def _read_labels(posted: Posted, item: ReviewItem) -> list[str]:
    new = trim_blanks(_one(posted, "new_label"))
    found = [trim_blanks(label) for label in posted.get("label", ())] + ([new] if new else [])
    return [_check_label(label, item.task) for label in dict.fromkeys(found) if label]


def _check_label(label: str, task: ReviewTask) -> str:
    if len(label) > LABEL_CHARACTERS:
        raise BadEntry(f"a label of {len(label)} characters: expected {LABEL_CHARACTERS} at most")
    if label not in task.labels and not task.open:
        raise BadEntry(f"task {task.name} has no label {label[:60]!r}{suggest(label, task.labels)}")
    return label


def _read_spans(posted: Posted, item: ReviewItem) -> list[dict[str, Any]]:
    lines = [line.strip() for line in _one(posted, "spans").splitlines() if line.strip()]
    spans = sorted((_read_span(line, item) for line in lines), key=lambda span: (span["start"], span["end"]))
    for one, other in pairwise(spans):
        if other["start"] < one["end"]:
            raise BadEntry(f"the spans at {one['start']} and {other['start']} overlap: a word has one tag")
    return spans


def _read_span(line: str, item: ReviewItem) -> dict[str, Any]:
    found = _SPAN_LINE.fullmatch(line)
    if found is None:
        raise BadEntry(f"expected `start end label` on each line, found {line[:60]!r}")
    start, end, label = int(found[1]), int(found[2]), _check_label(trim_blanks(found[3]), item.task)
    if not start < end <= item.characters:
        raise BadEntry(f"a span from {start} to {end}: the text has characters 0 to {item.characters}")
    if not trim_blanks(item.text[start:end]) and end <= len(item.text):
        raise BadEntry(f"the span from {start} to {end} holds nothing but blanks")
    return {"start": start, "end": end, "label": label}


def _read_reply(posted: Posted, item: ReviewItem) -> str:
    # A browser sends line ends as CR LF.
    reply = _one(posted, "reply").replace("\r\n", "\n").strip()
    if not trim_blanks(reply) and _one(posted, "unchanged") and item.shown.value is not None:
        return str(item.shown.value)  # parts of it are masked, so the browser does not have it
    if not trim_blanks(reply):
        raise BadEntry("the reply is empty: say what it should have been, or skip it")
    if len(reply) > WORDING_CHARACTERS:
        raise BadEntry(f"a reply of {len(reply)} characters: expected {WORDING_CHARACTERS} at most")
    return reply


def _one(posted: Posted, name: str) -> str:
    values = posted.get(name) or ("",)
    return values[-1]


_READERS: Final = {
    EntryForm.LABEL: _read_label,
    EntryForm.LABELS: _read_labels,
    EntryForm.SPANS: _read_spans,
    EntryForm.REPLY: _read_reply,
}


def write_spans(spans: Sequence[Mapping[str, Any]]) -> str:
    """Return spans as the lines that `read_posted` reads."""
    return "\n".join(f"{each['start']} {each['end']} {each['label']}" for each in spans)
