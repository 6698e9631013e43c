"""An agent: a declaration (topics, tasks, output) and a decision function for a request and its prediction."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from ...schemas.manifest import TaskSpec, Thresholds
from ..errors import Retry as Retry  # noqa: PLC0414 - re-exported
from ..errors import SetupError
from ..model.kinds.forms import AnswerForm
from ..model.kinds.registry import kind_of
from ..model.texts.long_texts import Windows
from ..settings.routing_rules import Rule
from ..wire.message import Publish
from ..wire.request import Incoming
from .prediction import Output, Prediction

if TYPE_CHECKING:
    pass


Decision = Mapping[str, Output] | Publish | Iterable["Mapping[str, Output] | Publish"] | None
"""Outputs for the result, any number of `Publish`, both in a tuple, or None for no result."""

Decide = Callable[[Incoming, Prediction], Decision]


def answer(request: Incoming, prediction: Prediction) -> Decision:
    """Return all predicted outputs: the default decision."""
    return prediction.outputs


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent's declaration.

    `topics` are full names. With `tasks` None the agent may answer every task of the model whose answers have one of
    `forms` (None: any), and a request without tasks is answered on those that name it in `default_for`; for a task without
    that list `by_default` decides. A request with tasks is answered on those of them
    that the agent may answer. `output` None: no results are published. `thresholds` override the manifest's by task.
    """

    name: str
    topics: tuple[str, ...]
    tasks: tuple[str, ...] | None = None
    output: str | None = None
    decide: Decide = answer
    forms: frozenset[AnswerForm] | None = None
    by_default: Callable[[TaskSpec], bool] = lambda task: True
    thresholds: Mapping[str, Thresholds] = field(default_factory=dict)
    windows: Windows | None = None
    """How to split texts above the model's limit; None: only their beginning is read, and `truncated` is set."""
    max_age_s: float | None = None
    """A request with an older record is answered `expired` without calling `decide`; None: no limit."""
    retry_on: tuple[type[Exception], ...] = ()
    """Errors of `decide` after which a record is retried, as after `Retry`; any other error makes it a dead letter."""
    ordering: Literal["none"] = "none"
    routing: tuple[Rule, ...] = ()
    """Rules of the settings that publish a request to further topics, by its outputs."""

    def __post_init__(self) -> None:
        if not self.name or not self.name.replace("-", "").replace("_", "").isalnum():
            raise SetupError(f"agent name {self.name!r}: use letters, digits, - and _")
        if not self.topics:
            raise SetupError(f"agent {self.name}: it reads no topic; give it at least one in `topics`")
        if self.output in self.topics:
            raise SetupError(f"agent {self.name}: output topic {self.output} is one of its input topics")
        if self.max_age_s is not None and not self.max_age_s > 0:
            raise SetupError(f"agent {self.name}: max_age_s is {self.max_age_s}, expected seconds above 0")
        if inspect.iscoroutinefunction(self.decide):
            raise SetupError(
                f"agent {self.name}: its decision is an async function, expected a plain one: "
                "the model has answered when it is called; an agent that has to await something is a Handler"
            )

    @property
    def outputs(self) -> tuple[str, ...]:
        """Topics that it declares to publish to: the results topic and those of its rules."""
        results = () if self.output is None else (self.output,)
        return (*results, *dict.fromkeys(rule.topic for rule in self.routing))

    def may_answer(self, task: TaskSpec) -> bool:
        """Return whether a request may ask it for this task."""
        if self.tasks:
            return task.name in self.tasks
        return self.forms is None or kind_of(task).form in self.forms

    def answers_by_default(self, task: TaskSpec) -> bool:
        """Return whether it answers this task for a request that names none."""
        return self.by_default(task) if task.default_for is None else self.name in task.default_for


def agent(
    *,
    topics: Iterable[str],
    tasks: Iterable[str] | None = None,
    output: str | None = None,
    name: str | None = None,
    thresholds: Mapping[str, float] | None = None,
    retry_on: Iterable[type[Exception]] = (),
    max_age_s: float | None = None,
) -> Callable[[Decide], Agent]:
    """Turn a function `(request, prediction) -> decision` into an agent.

    The agent has the function's name unless `name` is given. `thresholds` maps a task to the score from which its answer
    is accepted.
    """

    def declare(decide: Decide) -> Agent:
        return Agent(
            name=decide.__name__ if name is None else name,
            topics=_as_names("topics", topics),
            tasks=None if tasks is None else _as_names("tasks", tasks),
            output=output,
            decide=decide,
            retry_on=tuple(retry_on),
            max_age_s=max_age_s,
            thresholds={task: Thresholds(accept=score, label=score) for task, score in (thresholds or {}).items()},
        )

    return declare


def _as_names(argument: str, names: Iterable[str]) -> tuple[str, ...]:
    if isinstance(names, str):  # iterating over it would give letters
        raise SetupError(f"@agent: {argument}={names!r}: expected a list, {argument}=[{names!r}]")
    return tuple(names)
