"""Messages with known answers: asked before and after, over Kafka like any other, and scored as served."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...runtime.errors import SetupError
from ...training.kinds.figures.span_scores import Matches, locate, match
from .desk import Message

Spans = frozenset[tuple[int, int, str]]


@dataclass(frozen=True, slots=True)
class Source:
    """A file of messages and the field with the correct answer. `label`: the same answer for all."""

    task: str
    name: str
    file: Path
    field: str = ""
    label: str = ""

    def as_report(self) -> dict[str, Any]:
        """Return the set as in a retraining job, so that the gate compares the same rows."""
        rows = {"path": str(self.file)} | ({"label": self.label} if self.label else {})
        columns = {"spans": self.field, "span_label": "slot"} if self.field == "slots" else {"label": self.field}
        return {"rows": [rows]} | ({} if self.label else {"columns": columns})


@dataclass(frozen=True, slots=True)
class Paper:
    """One task's questions, with the correct answers."""

    task: str
    name: str
    answers: Mapping[str, str | Spans]
    """Correct answers by text."""

    def take_part(self, one_of: int) -> "Paper":
        """Return the paper with one of so many of its questions."""
        return replace(self, answers=dict([*self.answers.items()][::one_of]))

    def score(self, messages: Mapping[str, Message]) -> float:
        """Return the share of correct answers, for spans the F1 as in reports; a message without an answer is wrong."""
        outputs = {text: messages[text].outputs.get(self.task, {}) for text in self.answers}
        found = Matches()
        for text, right in self.answers.items():
            if isinstance(right, frozenset):
                found += match(locate(text, right), locate(text, _spans(outputs[text])))
        if found.f1 is not None:
            return found.f1
        return sum(_is_right(outputs[text], right) for text, right in self.answers.items()) / len(self.answers)


def _is_right(output: Mapping[str, Any], right: str | Spans) -> bool:
    return _label(output) == right if isinstance(right, str) else _spans(output) == right


def _label(output: Mapping[str, Any]) -> str | None:
    return output.get("label") or output.get("reason")  # `out_of_scope` is an answer, `below_threshold` is none


def _spans(output: Mapping[str, Any]) -> Spans:
    return frozenset((span["start"], span["end"], span["label"]) for span in output.get("spans", ()))


def read_papers(sources: Sequence[Source]) -> list[Paper]:
    """Read all sets. Raises SetupError for a file that cannot be read."""
    return [Paper(source.task, source.name, _answers(source)) for source in sources]


def _answers(source: Source) -> dict[str, str | Spans]:
    return {row["text"]: source.label or _right(row[source.field]) for row in read_rows(source.file)}


def _right(value: Any) -> str | Spans:
    if isinstance(value, str):
        return value
    return frozenset((slot["start"], slot["end"], slot["slot"]) for slot in value)


def read_rows(path: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise SetupError(f"{path}: cannot read the demo's messages ({type(error).__name__})") from None
