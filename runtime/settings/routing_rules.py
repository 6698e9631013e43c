"""Routing rules: publish a record to further topics by its outputs. The settings' form, and their evaluation. Pure.

routing:
  - {agent: classification, task: sentiment, label: negative, score_at_least: 0.8, topic: murmura.analysis.requests}
  - {agent: classification, task: intent, abstained: true, topic: people}
  - {agent: classification, otherwise: true, topic: archive}
"""

from collections.abc import Iterable, Mapping
from datetime import date
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, StringConstraints, model_validator

from ..model.kinds.registry import find_kind
from .kafka import AgentName

Label = Annotated[str, StringConstraints(min_length=1)]


def _as_list(given: Any) -> Any:
    """Return a single label as a list. Raises ValueError for a value that YAML does not read as text."""
    labels = given if isinstance(given, list | tuple) else (given,)
    for label in labels:
        if isinstance(label, bool | int | float | date):
            raise ValueError(f"YAML reads this as {label} ({type(label).__name__}), not as text: put it in quotes")
    return labels


Labels = Annotated[tuple[Label, ...], Field(min_length=1), BeforeValidator(_as_list)]
Score = Annotated[float, Field(ge=0, le=1)]
Topic = Annotated[str, StringConstraints(pattern="^[A-Za-z0-9._-]{1,200}$")]
Name = Annotated[str, StringConstraints(min_length=1)]

_CONDITIONS = ("label", "score_below", "score_at_least", "abstained")


class Rule(BaseModel):
    """Publish the record to `topic` when one answer of `agent` on `task` meets all conditions of the rule.

    An answer is the label of a classification, any label of a multi-label task, or any span. A withheld answer has a score
    but no label; a task without labels and spans also counts as withheld, without a score.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    agent: AgentName
    topic: Topic
    task: Name | None = None
    label: Labels | None = None
    """Accepted labels; a single one may be given without a list."""
    score_below: Score | None = None
    score_at_least: Score | None = None
    abstained: bool | None = None
    otherwise: bool = False
    """Applies when no other rule of the agent does; replaces task and conditions."""

    _places: dict[str, str] = PrivateAttr(default_factory=dict)
    """Sources of the rule's keys."""

    @model_validator(mode="after")
    def _can_fit(self) -> Self:
        conditions = [name for name in _CONDITIONS if getattr(self, name) is not None]
        if self.otherwise:
            if self.task is not None or conditions:
                raise ValueError(f"otherwise clashes with {'task' if self.task is not None else conditions[0]}")
            return self
        if self.task is None:
            raise ValueError("task is missing; a rule for records without another matching rule has `otherwise: true`")
        if not conditions:
            raise ValueError(f"a task without a condition: give one of {', '.join(_CONDITIONS)}")
        if self.abstained and self.label is not None:
            raise ValueError("abstained: true clashes with label: a withheld answer has none")
        below, at_least = self.score_below, self.score_at_least
        if below is not None and at_least is not None and below <= at_least:
            raise ValueError(f"score_below {below:g} must be above score_at_least {at_least:g}")
        return self

    def place(self, key: str, item: int | None = None) -> str:
        """Return the source of a key of the rule, or of an item of its list, for error messages."""
        return self._places.get(key if item is None else f"{key}.{item}") or self._places.get(key, f"routing.{key}")

    def set_places(self, places: Mapping[str, str]) -> None:
        """Set the sources by key (`topic`), and by key and position (`label.1`)."""
        self._places.update(places)

    def fits(self, outputs: Mapping[str, Mapping[str, Any]]) -> bool:
        """Return whether the rule's conditions hold; False for a task without an answer."""
        output = outputs.get(self.task) if self.task is not None else None
        if output is None:
            return False
        kind = find_kind(output)
        answers = [] if kind is None else [*kind.list_answers(output)]
        if self.abstained is not None and self.abstained != all(label is None for label, _ in answers):
            return False
        if self.label is None and self.score_below is None and self.score_at_least is None:
            return True
        return any(self._meets(label, score) for label, score in answers)

    def _meets(self, label: str | None, score: float) -> bool:
        return (
            (self.label is None or label in self.label)
            and (self.score_below is None or score < self.score_below)
            and (self.score_at_least is None or score >= self.score_at_least)
        )


def select_topics(rules: Iterable[Rule], outputs: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """Return the topics of all matching rules, each once, else those of the `otherwise` rules."""
    rules = tuple(rules)
    fitting = dict.fromkeys(rule.topic for rule in rules if rule.fits(outputs))
    return tuple(fitting or dict.fromkeys(rule.topic for rule in rules if rule.otherwise))
