"""Files of texts without labels, and files of suggestions that people fill in and the trainer reads back."""

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ...runtime.model.inputs import Input, TextPair
from ...runtime.model.kinds.forms import AnswerForm, Reads
from ...runtime.model.kinds.registry import kind_of
from ...schemas.manifest import TaskSpec
from ..data.fields import check_text
from ..data.files import read_rows
from ..data.near_texts import near_form, near_id
from ..data.opening import suffix_of
from ..data.row import SUGGESTED, Row, UnnamedNumber
from ..recipe.keys.reading import Reading
from ..run_folders.os_errors import as_os_error
from .pool import Candidate

GUESS, SCORE, USEFULNESS = "guess", "guess_score", "usefulness"
_OWN: Final = (SUGGESTED, GUESS, SCORE, USEFULNESS)


@dataclass(frozen=True)
class Form:
    """Where text and label stand in the rows of a task."""

    spec: TaskSpec
    text: str = "text"
    label: str = "label"
    second: str = "text_pair"

    @property
    def target(self) -> str:
        """The column that people fill in."""
        return "spans" if kind_of(self.spec).form is AnswerForm.SPANS else self.label

    def read(self, row: Row) -> Input:
        """Return what the task reads of a row. SetupError for a row without a text."""
        text = check_text(row, row.need(self.text))
        if kind_of(self.spec).reads is not Reads.PAIR:
            return text
        return TextPair(text, check_text(row, row.need(self.second), "the second text"))


@dataclass
class Texts:
    """The texts of a file that have no label, in its order. `labelled` counts the others, once they are read."""

    path: Path
    form: Form
    labelled: int = 0

    def __iter__(self) -> Iterator[tuple[Input, Row]]:
        for row in _rows(self.path):
            if _has_label(row, self.form):
                self.labelled += 1
            else:
                yield self.form.read(row), row


def _rows(path: Path) -> Iterator[Row]:
    return read_rows(path, Reading(format="lines" if suffix_of(path) == ".txt" else None))


def _has_label(row: Row, form: Form) -> bool:
    value = row.fields.get(form.target)
    is_blank = value is None or isinstance(value, UnnamedNumber) or (isinstance(value, str) and not value.strip())
    return row.left_out is None and not is_blank


def read_known(paths: Sequence[Path], form: Form) -> tuple[set[bytes], list[Input]]:
    """Return the near ids of texts that have a label, and the texts. Rows that nobody filled in have none; where a file has no
    column for labels, all its texts count.
    """
    rows = (row for path in paths for row in _rows(path))
    texts = [form.read(row) for row in rows if form.target not in row.fields or _has_label(row, form)]
    return {near_id(near_form(each)) for each in texts}, texts


def find_problem(out: Path, spec: TaskSpec) -> str | None:
    """Return why suggestions cannot be written here; None where they can."""
    if out.exists():
        return f"{out} is there already, and people may have filled it in; name another file"
    if out.suffix not in {".csv", ".jsonl"}:
        return f"{out}: expected a file that ends with .csv or .jsonl"
    if out.suffix == ".csv" and kind_of(spec).form is not AnswerForm.LABEL:
        return f"{out}: a cell holds one label, and task {spec.name} is of kind {spec.kind}; write JSON lines (.jsonl)"
    return None


def write_suggestions(chosen: Sequence[Candidate], form: Form, out: Path) -> None:
    """Write a row for each text: its rank as `suggested`, the text, the model's guess, and an empty place for the answer.

    Other columns of its row are kept.
    """
    rows = [_suggestion(rank, each, form) for rank, each in enumerate(chosen, 1)]
    draft = out.with_name(f"{out.name}.part")
    out.parent.mkdir(parents=True, exist_ok=True)
    with as_os_error(draft), draft.open("w", encoding="utf-8", newline="") as file:
        if suffix_of(out) == ".csv":
            columns = list(dict.fromkeys(name for row in rows for name in row))
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
        else:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    draft.replace(out)


def _suggestion(rank: int, each: Candidate, form: Form) -> dict[str, Any]:
    kind, given = kind_of(form.spec), each.given
    texts = {form.text: given} if isinstance(given, str) else {form.text: given.text, form.second: given.second}
    score = next((score for _, score in kind.list_answers(each.answer)), None)
    first = {SUGGESTED: rank, **texts, GUESS: guess_of(form.spec, each.answer), SCORE: score}
    first |= {USEFULNESS: round(each.usefulness, 6), form.target: None}
    return first | {name: value for name, value in each.row.fields.items() if name not in (*first, *_OWN)}


def guess_of(spec: TaskSpec, answer: Any) -> Any:
    """Return the label that an answer names, also a withheld one, or the list of its labels or spans."""
    kind = kind_of(spec)
    if kind.form is AnswerForm.LABEL:
        return answer["alternatives"][0]["label"]
    (found,) = kind.fields_of_target(kind.target_of_answer(answer)).values()
    return found


def _cell(value: Any) -> Any:
    return (
        ""
        if value is None
        else value
        if isinstance(value, str | int | float)
        else json.dumps(value, ensure_ascii=False)
    )
