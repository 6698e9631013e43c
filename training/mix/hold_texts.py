"""Texts on which the current version's answers are kept, and those kept apart to see whether they were."""

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

from ...runtime.model.model import Model
from ...schemas.manifest import TaskSpec
from ..data.example import Example
from ..data.near_texts import near_form
from ..kinds.registry import kind_of
from ..prepare.reading import read_part
from ..recipe.reading import Source
from ..recipe.tasks import Task
from .corrections import Corrections

KEPT_APART: Final = 0.2
VALIDATION_SHARE: Final = 0.1
Rows = list[dict[str, Any]]


def is_kept_apart(text: str) -> bool:
    """Say whether a text is never held on to, so that agreement on it can be measured; for ever the same.

    Another hash than that by which ingest divides texts: all that it has put into a train part lies on one side of that.
    """
    number = int.from_bytes(blake2b(text.encode(), digest_size=8, person=b"hold").digest(), "big")
    return number < KEPT_APART * 2**64


def all_texts(corrections: Mapping[str, Corrections], files: Sequence[Path]) -> list[str]:
    """Return the texts of the feedback and of further files, each once."""
    every = [example.text for each in corrections.values() for example in each.train]
    return list(dict.fromkeys([*every, *_further(files)]))


def _further(files: Sequence[Path]) -> list[str]:
    found = []
    for path in files:
        task = Task(train=[Source(path=path.name, label="any")])
        found += [example.text for example in read_part(task.train, task, path.parent, seed=0)]
    return found


def kept_apart(texts: Sequence[str], feedback: Corrections | None) -> list[str]:
    """Return the texts to measure agreement on: those that nobody said anything about."""
    judged = {near_form(example.text) for example in (*feedback.train, *feedback.heldout)} if feedback else set()
    return [text for text in texts if is_kept_apart(text) and near_form(text) not in judged]


class CurrentAnswers:
    """What the current version answers to the texts that are at hand."""

    def __init__(self, current: Path, tasks: Sequence[str], texts: Sequence[str]) -> None:
        self._texts = texts
        self._outputs = Model.load(current).predict(texts, tasks)

    def to_hold(self, spec: TaskSpec, feedback: Corrections | None, earlier: Sequence[Example] = ()) -> dict[str, Rows]:
        """Return the rows to hold on to: `all` where the version answered, `own` where it withheld or did not know.

        A text that was corrected to a label which the version has is not held on to: its answer was wrong. Nor is one that
        the feedback, or `earlier` feedback, holds out, in whatever spelling: it is judged by what people said of it.
        """
        kind = kind_of(spec)
        rows: dict[str, Rows] = {"all": [], "own": [], "validation": []}
        given = {example.text: example for example in feedback.train} if feedback else {}
        apart = set(kept_apart(self._texts, feedback))
        held_out = {near_form(example.text) for example in (*(feedback.heldout if feedback else ()), *earlier)}
        for text, outputs in zip(self._texts, self._outputs, strict=True):
            output, example = outputs[spec.name], given.get(text)
            known = example is not None and feedback is not None and not feedback.is_new(example)
            if known or text in apart or near_form(text) in held_out:
                continue
            unsure = example is not None or output.get("abstained", False)
            rows["own" if unsure else "all"].append(kind.as_row(kind.as_example(text, output)))
        for name in ("all", "own"):
            few = round(VALIDATION_SHARE * len(rows[name]))
            rows["validation"] += rows[name][:few]
            del rows[name][:few]
        if not rows["validation"]:  # every row was taken for training, or there is none
            rows["validation"] = (rows["all"] or rows["own"])[:1]
        return rows
