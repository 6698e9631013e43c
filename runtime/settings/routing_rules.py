"""Rules that hand a record on by what was predicted: the settings' form of them, and which of them fit. Pure.

routing:
  - {agent: classification, task: sentiment, label: negative, score_at_least: 0.8, topic: murmura.analysis.requests}
  - {agent: classification, task: intent, abstained: true, topic: people}
  - {agent: classification, otherwise: true, topic: archive}
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, StringConstraints, model_validator

Label = Annotated[str, StringConstraints(min_length=1)]


def _several(given: Any) -> Any:
    """A single label may stand without a list. What YAML takes for something else than text is said to be that."""
    labels = given if isinstance(given, list | tuple) else (given,)
    for label in labels:
        if isinstance(label, bool | int | float | date):
            raise ValueError(f"YAML reads this as {label} ({type(label).__name__}), not as text: put it in quotes")
    return labels


Labels = Annotated[tuple[Label, ...], Field(min_length=1), BeforeValidator(_several)]
Score = Annotated[float, Field(ge=0, le=1)]
Topic = Annotated[str, StringConstraints(pattern="^[A-Za-z0-9._-]{1,200}$")]
Name = Annotated[str, StringConstraints(min_length=1)]

_CONDITIONS = ("label", "score_below", "score_at_least", "abstained")


class Rule(BaseModel):
    """Hand the record on to `topic` when one answer of `agent` on `task` meets everything that the rule says.

    An answer is a classification's label, or any label of a multi-label task, or any span. Where an answer was withheld
    it has a score and no label; a task that found no label and no span is withheld too and has no score either.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    agent: Name
    topic: Topic
    task: Name | None = None
    label: Labels | None = None
    """One of these; a single one may stand without a list."""
    score_below: Score | None = None
    score_at_least: Score | None = None
    abstained: bool | None = None
    otherwise: bool = False
    """Fits when no other rule of the agent does; instead of task and conditions."""

    _places: dict[str, str] = PrivateAttr(default_factory=dict)
    """Where the rule's keys stand."""

    @model_validator(mode="after")
    def _can_fit(self) -> Self:
        conditions = [name for name in _CONDITIONS if getattr(self, name) is not None]
        if self.otherwise:
            if self.task is not None or conditions:
                raise ValueError(f"otherwise clashes with {'task' if self.task is not None else conditions[0]}")
            return self
        if self.task is None:
            raise ValueError("task is missing; a rule for all that no other rule takes has `otherwise: true`")
        if not conditions:
            raise ValueError(f"a task without a condition: give one of {', '.join(_CONDITIONS)}")
        if self.abstained and self.label is not None:
            raise ValueError("abstained: true clashes with label: what is withheld has none")
        below, at_least = self.score_below, self.score_at_least
        if below is not None and at_least is not None and below <= at_least:
            raise ValueError(f"score_below {below:g} must be above score_at_least {at_least:g}")
        return self

    def place(self, key: str, item: int | None = None) -> str:
        """Return where a key of the rule stands, or an item of its list, for whoever has to change it."""
        return self._places.get(key if item is None else f"{key}.{item}") or self._places.get(key, f"routing.{key}")

    def keys_stand_at(self, places: Mapping[str, str]) -> None:
        """Say where: by key (`topic`), and by key and position (`label.1`)."""
        self._places.update(places)

    def fits(self, outputs: Mapping[str, Mapping[str, Any]]) -> bool:
        """Say whether the rule's own conditions hold; a task that was not answered meets none."""
        output = outputs.get(self.task) if self.task is not None else None
        if output is None:
            return False
        answers = [*_answers(output)]
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


def _answers(output: Mapping[str, Any]) -> Iterator[tuple[str | None, float]]:
    """Yield label and score of everything that a task said."""
    match output["kind"]:
        case "classification":
            yield output["label"], output["score"]
        case "multi_label":
            yield from ((found["label"], found["score"]) for found in output["labels"])
        case "tagging":
            yield from ((span["label"], span["score"]) for span in output["spans"])


def topics(rules: Iterable[Rule], outputs: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """Return where a record goes: the topics of all rules that fit, each once, else those of the `otherwise` rules."""
    rules = tuple(rules)
    fitting = dict.fromkeys(rule.topic for rule in rules if rule.fits(outputs))
    return tuple(fitting or dict.fromkeys(rule.topic for rule in rules if rule.otherwise))
