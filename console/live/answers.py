"""What a result says, for people: an answer for each task, and the parts of a text that its spans mark. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Final, NamedTuple

_MOST_LABELS: Final = 50
_NAME_CHARACTERS: Final = 200
"""Of a task, a label or a reason: what is longer is another program's, and cut."""
_LARGEST_SCORE: Final = 1e9


class Scored(NamedTuple):
    label: str
    score: float | None = None


class Marked(NamedTuple):
    """A part of a text with the label of its span; None where it has none."""

    text: str
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of a task. `withheld`: why it was, with the guess in `labels`."""

    task: str
    labels: tuple[Scored, ...]
    withheld: str | None = None
    text: str | None = None
    """Of a generated reply."""
    spans: tuple[tuple[int, int, str], ...] = ()
    """Start, end and label, in code points, in order and without overlaps."""
    note: str = ""
    """What more there is to say of a reply: what kind it is, and where its words come from."""


def read_answers(outputs: Mapping[str, Any]) -> list[Answer]:
    """Return the answers in the outputs of a result. What another program wrote in another shape has no labels."""
    return [
        _read_answer(task[:_NAME_CHARACTERS], output) for task, output in outputs.items() if isinstance(output, Mapping)
    ]


def _read_answer(task: str, output: Mapping[str, Any]) -> Answer:
    score = _read_score(output.get("score"))
    text = output.get("text")
    if isinstance(label := output.get("label"), str):
        return Answer(task, (Scored(label[:_NAME_CHARACTERS], score),))
    if output.get("abstained"):
        best = _read_scored(output.get("alternatives"))[:1]
        return Answer(task, tuple(best), _read_reason(output.get("reason")))
    if isinstance(output.get("spans"), list):
        spans = _read_spans(output["spans"])
        return Answer(task, tuple(_read_scored(output["spans"])), spans=spans)
    if isinstance(output.get("labels"), list):
        return Answer(task, tuple(_read_scored(output["labels"])))
    return Answer(task, () if score is None else (Scored("", score),), text=text if isinstance(text, str) else None)


def _read_score(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and abs(value) < _LARGEST_SCORE else None


def _read_reason(value: Any) -> str:
    return value.replace("_", " ")[:_NAME_CHARACTERS] if value and isinstance(value, str) else "withheld"


def _read_scored(values: Any) -> list[Scored]:
    found = values[:_MOST_LABELS] if isinstance(values, list) else []
    return [
        Scored(each["label"][:_NAME_CHARACTERS], _read_score(each.get("score")))
        for each in found
        if isinstance(each, Mapping) and isinstance(each.get("label"), str)
    ]


def _read_spans(values: Sequence[Any]) -> tuple[tuple[int, int, str], ...]:
    spans: list[tuple[int, int, str]] = []
    for each in values[:_MOST_LABELS]:
        if not isinstance(each, Mapping):
            continue
        start, end, label = each.get("start"), each.get("end"), each.get("label")
        if isinstance(start, int) and isinstance(end, int) and isinstance(label, str) and 0 <= start < end:
            spans.append((start, end, label[:_NAME_CHARACTERS]))
    kept: list[tuple[int, int, str]] = []
    for span in sorted(spans):
        if not kept or span[0] >= kept[-1][1]:
            kept.append(span)
    return tuple(kept)


def mark_spans(text: str, answers: Sequence[Answer], most: int) -> list[Marked]:
    """Return the parts of a text, with the labels of the first answer that has spans.

    Behind `most` characters no span is marked: what is there says how much more there is.
    """
    most = min(most, len(text))
    spans = next((each.spans for each in answers if each.spans), ())
    parts, at = [], 0
    for start, end, label in takewhile(lambda span: span[1] <= most, spans):
        parts += [Marked(text[at:start]), Marked(text[start:end], label)]
        at = end
    return [part for part in [*parts, Marked(text[at:])] if part.text]
