"""Knowledge: questions with reviewed answers, read from a file that people write. Pure but for the reading."""

import json
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Annotated, Any, Final, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from ....runtime.errors import SetupError
from ....runtime.settings.yaml_file import YamlFile

MOST_BYTES: Final = 4_000_000
MOST_ENTRIES: Final = 2_000
MOST_QUESTIONS: Final = 5_000
"""Questions and wordings together: each is a row of the index."""

_DAY_MS: Final = 86_400_000
_DAY: Final = re.compile(r"\d{4}-\d\d-\d\d")
Question = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)]


def _refuse_times(value: Any) -> Any:
    is_day = type(value) is date or (isinstance(value, str) and _DAY.fullmatch(value.strip()) is not None)
    if not is_day:
        raise ValueError(f"expected a date like 2026-01-31, found {str(value)[:40]!r}")
    return value.strip() if isinstance(value, str) else value


Day = Annotated[date, BeforeValidator(_refuse_times)]


class Entry(BaseModel):
    """A question, other wordings of it, and its answer. Days are whole days in UTC."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    question: Question
    wordings: Annotated[list[Question], Field(max_length=100)] = []
    answer: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2000)] | None
    """Sent as it is. None: texts that are nearest to this entry are not answered."""
    valid_from: Day | None = None
    """The first day on which the answer is given."""
    valid_until: Day | None = None
    """The last one."""

    @property
    def questions(self) -> list[str]:
        return [self.question, *self.wordings]

    @property
    def begins(self) -> float:
        """From when on it is valid, ms since 1970; minus infinity where nothing says so."""
        return _ms(self.valid_from) if self.valid_from else float("-inf")

    @property
    def ends(self) -> float:
        """From when on it is not valid any more, ms since 1970."""
        return _ms(self.valid_until) + _DAY_MS if self.valid_until else float("inf")

    def overlaps(self, other: "Entry") -> bool:
        """Return whether there is a time at which both are valid."""
        return self.begins < other.ends and other.begins < self.ends

    @model_validator(mode="after")
    def _is_sound(self) -> Self:
        if self.begins >= self.ends:
            raise ValueError(f"valid_until {self.valid_until} lies before valid_from {self.valid_from}")
        spellings = [plain(question) for question in self.questions]
        for number, spelling in enumerate(spellings):
            if spelling in spellings[:number]:
                raise ValueError(f"{self.questions[number]!r} stands twice among the question and its wordings")
        for text in (*self.questions, self.answer or ""):
            if any("\ud800" <= character <= "\udfff" for character in text):
                raise ValueError("a lone surrogate is no text")
        return self


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    entries: Annotated[list[Entry], Field(min_length=1, max_length=MOST_ENTRIES)]


def _ms(day: date) -> float:
    return datetime.combine(day, time(), UTC).timestamp() * 1000


def plain(text: str) -> str:
    """Return a text without case, punctuation at its end and repeated blanks, to find equal questions by."""
    return " ".join(text.casefold().split()).rstrip("?!. ")


def read_knowledge(path: Path) -> list[Entry]:
    """Read a YAML file with the key `entries`, or JSON lines (`.jsonl`) with an entry a line.

    Raises SetupError in one line, with file, line and key.
    """
    try:
        size = path.stat().st_size
    except OSError as error:
        raise SetupError(f"{path}: cannot read the knowledge: {error.strerror}") from None
    if size > MOST_BYTES:
        raise SetupError(f"{path}: {size} bytes, expected at most {MOST_BYTES}: divide the knowledge, or shorten it")
    if path.suffix == ".jsonl":
        entries = [*_read_lines(path)]
    else:
        entries = YamlFile(path, _File, "knowledge file", requires="entries").value.entries
    if not 1 <= len(entries) <= MOST_ENTRIES:
        raise SetupError(f"{path}: {len(entries)} entries, expected 1 to {MOST_ENTRIES}")
    if (count := sum(len(entry.questions) for entry in entries)) > MOST_QUESTIONS:
        raise SetupError(f"{path}: {count} questions and wordings, expected at most {MOST_QUESTIONS}")
    return entries


def _read_lines(path: Path) -> Iterator[Entry]:
    for number, value in read_objects(path, "knowledge"):
        try:
            yield Entry.model_validate(value)
        except ValidationError as error:
            raise SetupError(f"{path}:{number}: {_first_problem(error)}") from None


def read_objects(path: Path, what: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield line and object of a file of JSON lines; blank lines are skipped. Raises SetupError in one line."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SetupError(f"{path}: cannot read the {what}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SetupError(f"{path}: cannot read the {what}: it is not UTF-8") from None
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            raise SetupError(f"{path}:{number}: not JSON; expected an object a line") from None
        if not isinstance(value, dict):
            raise SetupError(f"{path}:{number}: expected an object, found {type(value).__name__}")
        yield number, value


def _first_problem(error: ValidationError) -> str:
    # An unknown key often causes the other errors (a misspelt required key).
    first = min(error.errors(include_url=False), key=lambda each: each["type"] != "extra_forbidden")
    key = ".".join(str(part) for part in first["loc"])
    problems = {
        "extra_forbidden": f"unknown key; expected one of {', '.join(sorted(Entry.model_fields))}",
        "missing": "this key is missing",
    }
    problem = problems.get(first["type"], str(first["msg"]).removeprefix("Value error, "))
    return f"{key}: {problem}" if key else problem


def rows_of(entries: Sequence[Entry]) -> list[tuple[str, int]]:
    """Return every question and wording with the number of its entry."""
    return [(question, number) for number, entry in enumerate(entries) for question in entry.questions]
