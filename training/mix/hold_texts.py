"""Texts on which the current version's answers are kept, and those kept apart to see whether they were."""

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

from ...runtime.model.inputs import Input, first_text, with_second
from ...runtime.model.model import Model
from ...schemas.manifest import TaskSpec
from ..data.example import near_forms
from ..data.near_texts import first_spellings, near_form
from ..kinds.registry import kind_of
from ..prepare.reading import read_part
from ..recipe.keys.reading import Columns, Source
from ..recipe.keys.tasks import Task
from ..recipe.keys.unused_keys import VALIDATION_SHARE
from .corrections import Corrections
from .earlier import Earlier

KEPT_APART: Final = 0.2
Rows = list[dict[str, Any]]


def is_kept_apart(text: Input) -> bool:
    """Say whether a text is never held on to, so that agreement on it can be measured; for ever the same, in every spelling.

    Another hash than that by which ingest divides texts: all that it has put into a train part lies on one side of that.
    """
    number = int.from_bytes(blake2b(near_form(text), digest_size=8, person=b"hold").digest(), "big")
    return number < KEPT_APART * 2**64


def all_texts(corrections: Mapping[str, Corrections], files: Sequence[Path]) -> list[Input]:
    """Return the texts of the feedback and of further files, each once, in its first spelling, and the pairs of texts that are
    read together.
    """
    judged = [each for each in corrections.values() if not kind_of(each.spec).generates]
    every = [example.given for each in judged for example in each.train] + _further(files)
    return first_spellings([*map(first_text, every), *every])


def texts_read_by(spec: TaskSpec, texts: Sequence[Input]) -> list[Input]:
    """Return the texts, or the pairs, of which a task reads one; none for a task that generates: nobody knows acts for them."""
    if kind_of(spec).generates:
        return []
    pairs = kind_of(spec).per_pair
    return [given for given in texts if isinstance(given, str) is not pairs]


def _further(files: Sequence[Path]) -> list[Input]:
    """Return texts; where a row has a second one in the column `text_pair`, both."""
    found: list[Input] = []
    for path in files:
        task = Task(train=[Source(path=path.name, label="any")])
        for example in read_part(task.train, task, path.parent, seed=0):
            second = example.meta.get(Columns().text_pair)
            found.append(with_second(example.text, second if isinstance(second, str) and second.strip() else None))
    return found


def kept_apart(texts: Sequence[Input], *judged: Corrections | Earlier | None) -> list[Input]:
    """Return the texts to measure agreement on: those that nobody said anything about, in whatever spelling."""
    forms = near_forms(example for part in judged if part for example in (*part.train, *part.heldout))
    return [text for text in texts if is_kept_apart(text) and near_form(text) not in forms]


class CurrentAnswers:
    """What the current version answers to the texts that are at hand."""

    def __init__(self, current: Path, specs: Sequence[TaskSpec], texts: Sequence[Input]) -> None:
        model = Model.load(current)
        self._texts = {spec.name: texts_read_by(spec, texts) for spec in specs}
        self._outputs: dict[str, list[Any]] = {}
        for pairs in (False, True):
            names = [spec.name for spec in specs if kind_of(spec).per_pair is pairs]
            if names:
                answers = model.predict(self._texts[names[0]], names)
                self._outputs |= {name: [each[name] for each in answers] for name in names}

    def to_hold(self, spec: TaskSpec, feedback: Corrections | None, earlier: Earlier | None = None) -> dict[str, Rows]:
        """Return the rows to hold on to: `all` where the version answered, `own` where it withheld or did not know.

        A text that was corrected, now or earlier, to a label which the version has is not held on to, in whatever spelling:
        its answer was wrong. Nor is one that feedback holds out: it is judged by what people said of it.
        """
        kind = kind_of(spec)
        rows: dict[str, Rows] = {"all": [], "own": [], "validation": []}
        parts = [part for part in (feedback, earlier) if part]
        learned = [example for part in parts for example in part.train]
        new = [example for example in learned if feedback and feedback.is_new(example)]
        known = [example for example in learned if not (feedback and feedback.is_new(example))]
        judged = near_forms([*known, *(example for part in parts for example in part.heldout)])
        unknown, apart = near_forms(new), set(kept_apart(self._texts[spec.name], *parts))
        for text, output in zip(self._texts[spec.name], self._outputs[spec.name], strict=True):
            near = near_form(text)
            if text in apart or near in judged:
                continue
            unsure = near in unknown or output.get("abstained", False)
            rows["own" if unsure else "all"].append(kind.write_row(kind.make_example(text, output)))
        for name in ("all", "own"):
            few = round(VALIDATION_SHARE * len(rows[name]))
            rows["validation"] += rows[name][:few]
            del rows[name][:few]
        if not rows["validation"]:  # every row was taken for training, or there is none
            rows["validation"] = (rows["all"] or rows["own"])[:1]
        return rows
