"""What a task reads of a request: a text, or two texts together."""

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from ...schemas.deadletter import DeadLetterReason as Reason
from ...schemas.manifest import TaskSpec
from ..errors import RecordError
from .kinds.forms import Reads
from .kinds.registry import kind_of


class TextPair(NamedTuple):
    """Two texts that are read together, in one row of a batch."""

    text: str
    second: str
    alone: bool = False
    """Whether other tasks read the text alone: that is one more row."""


Input = str | TextPair


def find_pair_tasks(tasks: Iterable[TaskSpec]) -> frozenset[str]:
    """Return the names of the tasks that read two texts."""
    return frozenset(task.name for task in tasks if kind_of(task).reads is Reads.PAIR)


def choose_input(text: str, second: str | None, tasks: Sequence[str], pair_tasks: Collection[str]) -> Input:
    """Return what these tasks read; the second text only where one of them does."""
    count = 0 if second is None else sum(task in pair_tasks for task in tasks)
    return TextPair(text, second, alone=count < len(tasks)) if second is not None and count else text


def missing_pair(tasks: Iterable[str], pair_tasks: Collection[str]) -> RecordError:
    """Return the error for a request without a second text, and a task that reads one."""
    task = next(task for task in tasks if task in pair_tasks)
    return RecordError(Reason.INVALID, f"task {task} reads two texts, and `text_pair` is missing")


def first_text(given: Input) -> str:
    """Return the text that spans lie in."""
    return given if isinstance(given, str) else given.text


def second_text(given: Input) -> str | None:
    """Return the second text of two; None of a text alone."""
    return None if isinstance(given, str) else given.second


def plain_key(given: Input) -> str:
    """Return one text that tells inputs apart; of a text alone itself."""
    return given if isinstance(given, str) else "\n".join(given[:2])


def with_second(text: str, second: str | None) -> Input:
    """Return a text, or two that are read together."""
    return text if second is None else TextPair(text, second)
