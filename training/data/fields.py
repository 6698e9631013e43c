"""Reads the text and the labels of a row. Every error names the file and the line."""

import re
from typing import Any, Final

from ...runtime.errors import SetupError
from ...runtime.model.texts.words import trim_blanks
from ..recipe.keys.reading import Reading
from .row import Row, UnnamedNumber
from .rules import Rules

MISSING: Final = frozenset(
    {
        *("nan", "-nan", "null", "none", "<na>", "na", "n/a", "#n/a", "#na", "#n/a n/a"),
        *("1.#ind", "-1.#ind", "1.#qnan", "-1.#qnan"),
        *("nat", "nil", "<nil>", "undefined", "\\n"),
    }
)
"""What programs write for a value that is missing, in any letter case: all that pandas reads as missing, what it writes for
a date (`NaT`), and what Ruby and Lua (`nil`), Go (`<nil>`), JavaScript (`undefined`) and database exports (`\\N`) write.

Words that people choose (`unknown`, `missing`, `-`) may be labels."""
_LIST: Final = re.compile(r"""\[(\s*|\s*['"].*|.*,.*)\]|\{\s*['"].*\}|\(\s*['"].*\)""", re.DOTALL)
"""A list as some languages print it."""
_MAY_SEPARATE: Final = re.compile(r"[^\w.-]")


def read_text(row: Row, rules: Rules) -> str:
    """Return the text of a row, or its tokens joined by blanks where it has none."""
    if not row.has(rules.columns.text) and row.has(rules.columns.tokens):
        return check_text(row, " ".join(read_tokens(row, rules)))
    return check_text(row, row.need(rules.columns.text))


def read_second(row: Row, rules: Rules) -> str:
    """Return the second text of a row, for kinds that read two."""
    return check_text(row, row.need(rules.columns.text_pair), "the second text")


def check_text(row: Row, value: Any, what: str = "the text") -> str:
    """Return a text. SetupError for anything else, an empty one, and one that is not Unicode."""
    if not isinstance(value, str) or not value.strip():
        raise SetupError(f"{row.place}: {what} is {'empty' if isinstance(value, str) else type(value).__name__}")
    if not _is_unicode(value):
        raise SetupError(f"{row.place}: {what} has a lone surrogate")
    return value


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def read_tokens(row: Row, rules: Rules) -> list[str]:
    """Return the tokens: a list of texts, or one text with blanks between them."""
    tokens = row.need(rules.columns.tokens)
    if isinstance(tokens, str):
        tokens = tokens.split()
    if not isinstance(tokens, list) or not tokens:
        raise SetupError(f"{row.place}: {rules.columns.tokens!r} should be a list of texts, found {_show(tokens)}")
    for token in tokens:
        if not isinstance(token, str) or not token:
            raise SetupError(f"{row.place}: a token should be a text that is not empty, found {_show(token)}")
    return tokens


def read_labels(row: Row, rules: Rules) -> list[str]:
    """Return the labels of a row without white space and invisible characters around them.

    A list, or one text; with `label_separator` a text may hold several. SetupError for a text that looks like several
    labels, an empty label, and a name for a missing value that the recipe does not name.
    """
    column = rules.columns.label
    value = row.need(column)
    if isinstance(value, list):
        return [check_label(row, label, rules, f"a label of {column!r}") for label in value]
    separator = rules.reading.label_separator
    if isinstance(value, str) and separator is not None:
        _refuse_printed_list(row, value, column)
        parts = (trim_blanks(part) for part in value.split(separator))
        return [check_label(row, part, rules, f"a label of {column!r}") for part in parts if part]
    if rules.several and not row.typed and _MAY_SEPARATE.search(trim_blanks(str(value))):
        raise SetupError(
            f'{row.place}: {column!r} is {_show(value)}: one label or several? Set `label_separator` (",", say), '
            "also where no label has one, or take JSON lines, which have lists"
        )
    return [check_label(row, value, rules, f"{column!r}")]


def check_label(row: Row, value: Any, rules: Rules, what: str) -> str:
    """Return one label without the white space around it; `what` names it in errors."""
    if isinstance(value, UnnamedNumber):
        raise SetupError(
            f"{row.place}: {what} is {value}, which means that the label is not known; drop such rows with `unless`"
        )
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise SetupError(f"{row.place}: {what} should be a label or a list of labels, found {_show(value)}")
    label = trim_blanks(str(value))
    if not label:
        hint = "" if row.typed else "; with `label_separator` an empty cell means no label"
        raise SetupError(f"{row.place}: {what} is empty; expected a label{hint if rules.several else ''}")
    if not _is_unicode(label):
        raise SetupError(f"{row.place}: {what} has a lone surrogate")
    if rules.named is not None and label.lower() in MISSING and label not in rules.named:
        raise SetupError(
            f"{row.place}: {what} is {label!r}, which programs write where a value is missing; drop such rows with "
            "`unless`, or name it in `labels` if it is a label"
        )
    _refuse_printed_list(row, label, what)
    if not row.typed and len(label) > 1 and label[0] == label[-1] == '"':
        raise SetupError(
            f"{row.place}: {what} is {_show(label)}: white space before the quotation mark makes it a part"
        )
    rules.findings.labels.add(label)
    return label


def _refuse_printed_list(row: Row, value: str, what: str) -> None:
    if _LIST.fullmatch(trim_blanks(value)):
        raise SetupError(
            f"{row.place}: {what} is {_show(value)}, a list that was written as a text; write a list (JSON lines), or "
            "labels with a `label_separator` between them"
        )


def rename_labels(row: Row, labels: list[str], reading: Reading) -> list[str]:
    """Return the labels under the names of `merge`; `rest` decides about others."""
    if not reading.merge:  # also the empty mapping of a source whose task has one
        return labels
    to = {old: new for new, olds in reading.merge.items() for old in olds}
    rest = reading.rest or "error"
    unnamed = [label for label in labels if label not in to]
    if unnamed and rest == "error":
        raise SetupError(f"{row.place}: label {unnamed[0]!r} is not in merge; name it there or set rest: keep or drop")
    return [to.get(label, label) for label in labels if label in to or rest == "keep"]


def _show(value: Any) -> str:
    """Return a value on one line, cut."""
    return repr(value)[:60]
