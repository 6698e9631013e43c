"""What is wrong with a few examples, found before anything is trained: each row counts, so a mistake in one does, too."""

import re
from collections import Counter
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Final

from ...runtime.errors import SetupError
from ..data.example import Example
from ..data.files import find_source, read_rows
from ..data.near_texts import near_form
from ..data.opening import COMPRESSED
from ..recipe.keys.reading import Columns, Reading
from ..recipe.keys.tasks import Task
from .data_checks import list_names, suggest
from .reading import read_part

LEAST: Final = 2
"""Different texts of a label: with one, none is left to learn from where the other is the question."""
FEW: Final = 5
MANY: Final = 20
_SEPARATED: Final = re.compile(r"[;\t|]")
LONGEST: Final = 20_000
"""Characters of an example; of a longer one `max_tokens` would show the beginning alone."""


def check_columns(file: Path, columns: Columns) -> Path:
    """Return the file, or the compressed one of its name. SetupError for a column that the first row lacks, with the name that comes
    nearest.
    """
    if not file.is_file() and not file.with_name(f"{file.name}{COMPRESSED}").is_file():
        raise SetupError(f"{file}: no such file; expected a CSV or JSON lines with a text and a label a row")
    found = find_source(file.parent, file.name)
    first = next(read_rows(found, Reading()), None)
    if first is None:
        raise SetupError(f"{file}: no rows; expected a header and rows with a text and a label")
    if len(first.fields) == 1 and (between := _SEPARATED.search(next(iter(first.fields)))):
        raise SetupError(
            f"{first.place}: one column, {next(iter(first.fields))!r}; expected commas, found {between[0]!r} between cells"
        )
    for option, name in (("--text", columns.text), ("--label", columns.label)):
        if name in first.fields:
            continue
        names = {each.lower(): each for each in first.fields}
        near = get_close_matches(name.lower(), names, n=1, cutoff=0.5)
        hint = f"; did you mean `{option} {names[near[0]]}`?" if near else f"; name it with {option}"
        raise SetupError(f"{first.place}: column {name!r} is missing; found {', '.join(first.fields)}{hint}")
    return found


def read_examples(file: Path, task: Task, seed: int) -> list[Example]:
    """Read the examples of a task. SetupError in one line for the first row that cannot be learned from."""
    examples = read_sound(file, task, seed)
    _refuse_single(file, examples, task)
    return examples


def read_sound(file: Path, task: Task, seed: int) -> list[Example]:
    """Read examples that may be of one label alone. SetupError as of `read_examples`."""
    examples = read_part(task.train, task, file.parent, seed=seed)
    _refuse_long(examples)
    _refuse_contradictions(examples)
    return examples


def refuse_test_labels(file: Path, task: Task, examples: Sequence[Example], seed: int) -> None:
    """Read the test rows of a task; SetupError for the first one whose label has no example."""
    scope = {task.out_of_scope.label} if task.out_of_scope else set()
    known = {example.labels[0] for example in examples} | scope
    for row in read_part(task.test, task, file.parent, seed=seed) if task.test else ():
        if row.labels and row.labels[0] not in known:
            raise SetupError(
                f"{row.place}: the label {row.labels[0]!r} has no example in {file}; add some, or name it with --out-of-scope where it "
                f"stands for none of the others{suggest(row.labels[0], known)}"
            )


def _refuse_long(examples: Sequence[Example]) -> None:
    for example in examples:
        if len(example.text) > LONGEST:
            raise SetupError(
                f"{example.place}: the text has {len(example.text):,} characters; expected an example of at most "
                f"{LONGEST:,}, a message or the part of it that decides"
            )


def _refuse_contradictions(examples: Sequence[Example]) -> None:
    first: dict[bytes, Example] = {}
    for example in examples:
        before = first.setdefault(near_form(example.given), example)
        if before.labels != example.labels:
            raise SetupError(
                f"{example.place}: the text of {before.place} again, here with the label {example.labels[0]!r} and there "
                f"with {before.labels[0]!r}; keep the one that is right"
            )


def _refuse_single(file: Path, examples: Sequence[Example], task: Task) -> None:
    scope = task.out_of_scope.label if task.out_of_scope else None
    texts = dict.fromkeys((near_form(each.given), each.labels[0]) for each in examples)
    counts = Counter(label for _, label in texts if label != scope)
    counts.update(dict.fromkeys((label for label in task.labels or () if label != scope), 0))
    if len(counts) < 2:
        known = list_names([*counts]) or "none"
        raise SetupError(
            f"{file}: examples of {len(counts)} label{'' if len(counts) == 1 else 's'} ({known}); expected two labels or "
            "more, of which the model chooses one"
        )
    if few := [label for label, count in counts.items() if count < LEAST]:
        most, of_most = counts.most_common(1)[0]
        raise SetupError(
            f"{file}: {counts[few[0]]} different example{'' if counts[few[0]] == 1 else 's'} of {list_names(few)}, and {of_most} of "
            f"{most!r}; expected {LEAST} of each label at least, {FEW} to {MANY} are good"
        )


def describe_counts(examples: Sequence[Example], scope: str | None) -> list[str]:
    """Return a line on the labels with too few examples, and one where there are so many that another way learns more."""
    counts = Counter(example.labels[0] for example in examples if example.labels[0] != scope)
    lines = []
    if few := sorted(label for label, count in counts.items() if count < FEW):
        lines.append(f"too few: {list_names(few)} with fewer than {FEW} examples; each further one there helps most")
    if counts.total() > MANY * len(counts):
        lines.append(f"more than {MANY} examples a label: `murmura train` learns more from so many")
    return lines
