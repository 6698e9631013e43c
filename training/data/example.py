"""An example: one text, or two that are read together, with what a task should answer for it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Literal

from ...runtime.model.inputs import Input, first_text, second_text, with_second
from ...schemas.acts import Act
from .near_texts import near_form


@dataclass(slots=True, frozen=True)
class Span:
    """A labelled stretch of a text; code points, `end` exclusive."""

    start: int
    end: int
    label: str


@dataclass(slots=True, frozen=True)
class Example:
    """One text (or two) with what it should be answered. `labels` for sentence tasks, `spans` for tagging."""

    text: str
    labels: tuple[str, ...] = ()
    spans: tuple[Span, ...] = ()
    words: tuple[tuple[int, int], ...] | None = None
    """Tagging rows that came as tokens: where each token lies in the text."""
    place: str = field(default="", compare=False)
    """File and line, for error messages; no two rows of a file have the same."""
    soft: Literal["all", "own"] | None = field(default=None, compare=False)
    """Learned from what the model answered when it began, not from its label; see recipe.Source."""
    meta: Mapping[str, Any] = field(default_factory=dict, compare=False, hash=False)
    """The other columns of the row."""
    second: str | None = None
    """The second text, for kinds that read two."""
    reply: str | None = None
    """What is to be said, with slots as `{NAME}`, for kinds that write replies."""
    acts: tuple[Act, ...] = ()
    """What the reply is to say, where that is known."""

    @property
    def given(self) -> Input:
        """What a task reads of it."""
        return with_second(self.text, self.second)


def example_of(given: Input) -> Example:
    """Return an example without an answer."""
    return Example(first_text(given), second=second_text(given))


def labels_of(example: Example) -> tuple[str, ...]:
    """Return the labels of an example, of a tagging task those of its spans."""
    return example.labels or tuple(span.label for span in example.spans)


def near_forms(examples: Iterable[Example]) -> frozenset[bytes]:
    """Return the near forms of texts: those that differ in spelling alone have one."""
    return frozenset(near_form(example.given) for example in examples)


def digest_rows(examples: Iterable[Example]) -> str:
    """Return a digest of texts and labels in their order, by which figures are known to belong to a set."""
    sums = sha256()
    for example in examples:
        sums.update(repr((example.given, example.labels)).encode())
    return sums.hexdigest()
