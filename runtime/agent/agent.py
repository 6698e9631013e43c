"""What an agent is: a declaration (topics, tasks, output) and a decision about one request and its prediction."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from ...schemas.manifest import TaskKind, TaskSpec, Thresholds
from ..errors import Retry as Retry  # noqa: PLC0414 - handed on
from ..errors import SetupError
from ..model.long_texts import Windows
from ..settings.routing_rules import Rule
from ..wire.message import Publish
from ..wire.request import Incoming
from .prediction import Output, Prediction

if TYPE_CHECKING:
    pass


Decision = Mapping[str, Output] | Publish | Iterable["Mapping[str, Output] | Publish"] | None
"""Outputs for the result, any number of `Publish`, both in a tuple, or None for no result at all."""

Decide = Callable[[Incoming, Prediction], Decision]


def answer(request: Incoming, prediction: Prediction) -> Decision:
    """Answer with everything that was predicted: the decision of an agent that adds nothing of its own."""
    return prediction.outputs


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent's declaration.

    `topics` are full names. With `tasks` None the agent may answer every task of the model whose kind is in `kinds`, and
    a request that names none is answered on those that `by_default` picks. A request that names tasks is answered on
    those among them that the agent may answer. `output` None means that results are not published (the agent only hands
    on). What `thresholds` set replaces the manifest's for the tasks that they name.
    """

    name: str
    topics: tuple[str, ...]
    tasks: tuple[str, ...] | None = None
    output: str | None = None
    decide: Decide = answer
    kinds: frozenset[TaskKind] = frozenset({"classification", "multi_label", "tagging"})
    by_default: Callable[[TaskSpec], bool] = lambda task: True
    thresholds: Mapping[str, Thresholds] = field(default_factory=dict)
    windows: Windows | None = None
    """How texts are read that are longer than the model's limit; None: their beginning is answered, and `truncated` says so."""
    max_age_s: float | None = None
    """A request whose record is older is answered `expired`, and `decide` is not called; None: none is too old."""
    retry_on: tuple[type[Exception], ...] = ()
    """Errors of `decide` after which a record is tried again, as after `Retry`; any other makes it a dead letter."""
    ordering: Literal["none"] = "none"
    routing: tuple[Rule, ...] = ()
    """By the settings: where a request goes on to, by the outputs that were decided on."""

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
        """Topics that it is known to publish to: its results' and those of its rules."""
        results = () if self.output is None else (self.output,)
        return (*results, *dict.fromkeys(rule.topic for rule in self.routing))

    def may_answer(self, task: TaskSpec) -> bool:
        """Say whether a request may ask it for this task."""
        return task.name in self.tasks if self.tasks else task.kind in self.kinds


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
    """Make an agent of a function `(request, prediction) -> decision`.

    The function's name is the agent's unless `name` is given. `thresholds` maps a task to the score from which its
    answer is accepted.
    """

    def declare(decide: Decide) -> Agent:
        return Agent(
            name=name or decide.__name__,
            topics=_several("topics", topics),
            tasks=None if tasks is None else _several("tasks", tasks),
            output=output,
            decide=decide,
            retry_on=tuple(retry_on),
            max_age_s=max_age_s,
            thresholds={task: Thresholds(accept=score, label=score) for task, score in (thresholds or {}).items()},
        )

    return declare


def _several(what: str, names: Iterable[str]) -> tuple[str, ...]:
    if isinstance(names, str):  # its letters would be the names
        raise SetupError(f"@agent: {what}={names!r}: expected a list, {what}=[{names!r}]")
    return tuple(names)
