"""Binds agents to the model and to their topics, and refuses invalid combinations before the start."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import overload

from ...schemas.envelope import (
    CE_SOURCE,
    CE_SPECVERSION,
    CE_TYPE,
    CONTENT_TYPE,
    CONTENT_TYPE_HEADER,
    SPEC_VERSION,
    app_source,
    result_type,
)
from ...schemas.manifest import Limits, ModelManifest, TaskSpec, Thresholds
from ...schemas.topics import named_topics
from ..errors import SetupError
from ..model.inputs import find_pair_tasks
from ..model.texts.long_texts import Windows
from ..settings.agent_options import read_options
from ..settings.routing_rules import Rule
from ..settings.settings import AgentSettings, Settings
from ..wire.feedback import known_labels
from .agent import Agent
from .handler import Handler, LoadedModel
from .result_envelope import ResultEnvelope, Variant


@dataclass(frozen=True, slots=True)
class BoundAgent:
    """An agent with its tasks of a model."""

    agent: Agent
    tasks: tuple[str, ...]
    """Tasks for a request without tasks."""
    answerable: frozenset[str]
    """Tasks that a request may name."""
    headers: tuple[tuple[str, bytes], ...]
    """The constant headers of its results."""
    envelopes: dict[tuple[str | int, ...], ResultEnvelope] = field(default_factory=dict, compare=False, repr=False)
    """Cache by input topic, model (name, version) and, other than `ok`, status."""
    variant: Variant = "current"
    """As what the version answers, for its results."""

    def select_tasks(self, tasks: tuple[str, ...] | None) -> tuple[str, ...]:
        """Return the tasks to answer for a request with `tasks` (None: the request names none)."""
        return self.tasks if tasks is None else tuple(task for task in tasks if task in self.answerable)


Asked = tuple[tuple[BoundAgent, tuple[str, ...]], ...]
"""Agents, each with the tasks to answer."""


@dataclass(frozen=True, slots=True)
class Route:
    """All agents that read one topic. They share the forward pass: `tasks` is the union of their tasks."""

    topic: str
    agents: tuple[BoundAgent, ...]
    asked: Asked
    """Agents and tasks for a request without tasks."""
    tasks: tuple[str, ...]
    thresholds: Mapping[str, Thresholds] | None
    windows: Windows | None = None
    """How to split texts above the model's limit; None: only their beginning is read."""
    max_age_s: float | None = None
    """The smallest limit of its agents; None: no agent has one."""
    pair_tasks: frozenset[str] = frozenset()
    """The model's tasks that read two texts."""
    max_tokens: int = Limits().max_tokens
    """The model's limit of a text."""


@overload
def apply_settings(agent: Agent, settings: AgentSettings | None) -> Agent: ...
@overload
def apply_settings(agent: Agent | Handler, settings: AgentSettings | None) -> Agent | Handler: ...
def apply_settings(agent: Agent | Handler, settings: AgentSettings | None) -> Agent | Handler:
    """Return an agent with the settings' overrides: a copy of an Agent, and a Handler itself, changed in place.

    A handler has state, so it is not copied. Its overrides are its topics and its deadline.
    """
    if settings is None:
        return agent
    if isinstance(agent, Handler):
        agent.topics = tuple(settings.topics or agent.topics)
        agent.timeout_s = settings.timeout_s or agent.timeout_s
        return agent
    return replace(
        agent,
        topics=tuple(settings.topics or agent.topics),
        tasks=tuple(settings.tasks) if settings.tasks else agent.tasks,
        output=settings.output or agent.output,
        thresholds={**agent.thresholds, **settings.thresholds},
        windows=_make_windows(agent, settings),
        max_age_s=agent.max_age_s if settings.max_age_s is None else settings.max_age_s,
    )


def _make_windows(agent: Agent, settings: AgentSettings) -> Windows | None:
    if settings.long_texts == "cut" or (settings.long_texts is None and agent.windows is None):
        return None
    declared = agent.windows or Windows()
    overlap = settings.window_overlap
    return Windows(
        most=settings.max_windows or declared.most,
        tokens=settings.window_tokens or declared.tokens,
        overlap=declared.overlap if overlap is None else overlap,
        merge=settings.window_scores or declared.merge,
    )


def configure_agents(settings: Settings, agents: Iterable[Agent | Handler]) -> list[Agent | Handler]:
    """Return the agents with the settings applied, handlers with options set and `configure` called.

    Raises SetupError for settings that do not fit the agents, and for agents that conflict with each other.
    """
    declared = [*agents]
    _refuse_settings_of_unknown_agents(settings, {agent.name for agent in declared})
    _refuse_inapplicable_limits(settings, declared)
    everyone = [apply_settings(agent, settings.agents.get(agent.name)) for agent in declared]
    for agent in everyone:
        if isinstance(agent, Handler):
            configure_handler(agent, settings)
        else:
            read_options(agent.name, None, settings)
    _refuse_equal_names(everyone)
    _refuse_shared_handler_topics(everyone)
    _refuse_unread_inputs(settings, everyone)
    for rule in settings.routing:
        _check_endpoints(rule, everyone, settings)
    return [_with_rules(agent, settings.routing) for agent in everyone]


def configure_handler(handler: Handler, settings: Settings) -> None:
    """Set a handler's options and call its `configure`. Raises SetupError for settings that do not fit it."""
    handler.options = read_options(handler.name, handler.options_model, settings)
    handler.configure(settings)


def _refuse_settings_of_unknown_agents(settings: Settings, names: Collection[str]) -> None:
    for name in settings.agents:
        if name not in names:
            who = ", ".join(sorted(names))
            raise SetupError(f"{settings.place(f'agents.{name}')}: no such agent runs here; those that do: {who}")


def _refuse_unread_inputs(settings: Settings, everyone: Iterable[Agent | Handler]) -> None:
    topics = sorted({topic for agent in everyone for topic in agent.topics})
    for topic in settings.inputs:
        if topic not in topics:
            place = settings.place(f"inputs.{topic}")
            raise SetupError(f"{place}: no agent reads topic {topic} here; read are {', '.join(topics)}")


def _refuse_inapplicable_limits(settings: Settings, agents: Iterable[Agent | Handler]) -> None:
    """Refuse `timeout_s` for an agent and `max_age_s` for a handler."""
    for agent in agents:
        overrides = settings.agents.get(agent.name)
        if overrides is None:
            continue
        place = f"agents.{agent.name}"
        if overrides.timeout_s is not None and isinstance(agent, Agent):
            problem = f"{agent.name} decides at once; only a handler has a deadline"
            raise SetupError(f"{settings.place(f'{place}.timeout_s')}: {problem}")
        if overrides.max_age_s is not None and isinstance(agent, Handler):
            problem = f"{agent.name} is a handler: it gets every record and answers old ones itself"
            raise SetupError(f"{settings.place(f'{place}.max_age_s')}: {problem}")


def _refuse_equal_names(everyone: Iterable[Agent | Handler]) -> None:
    names: set[str] = set()
    for agent in everyone:
        if agent.name in names:
            raise SetupError(f"two agents are called {agent.name}: give each its own name")
        names.add(agent.name)


def _refuse_shared_handler_topics(everyone: Sequence[Agent | Handler]) -> None:
    """Refuse a topic that a handler shares with another agent: only the handler finishes its records."""
    for handler in everyone:
        if not isinstance(handler, Handler):
            continue
        for other in everyone:
            shared = [topic for topic in handler.topics if topic in other.topics] if other is not handler else []
            if shared:
                raise SetupError(
                    f"{handler.name} and {other.name} both read {shared[0]}: a handler has its topics for itself; "
                    f"give one of them another topic (agents.{other.name}.topics)"
                )


def _with_rules(agent: Agent | Handler, rules: Sequence[Rule]) -> Agent | Handler:
    own_rules = tuple(rule for rule in rules if rule.agent == agent.name)
    return replace(agent, routing=own_rules) if own_rules and isinstance(agent, Agent) else agent


def _check_endpoints(rule: Rule, everyone: Iterable[Agent | Handler], settings: Settings) -> None:
    """Refuse a rule with an agent that does not run here, or with a topic that cannot carry requests."""
    predicting = {agent.name: agent for agent in everyone if isinstance(agent, Agent)}
    agent = predicting.get(rule.agent)
    if agent is None:
        who = ", ".join(sorted(predicting)) or "none"
        raise SetupError(f"{rule.place('agent')}: no agent {rule.agent} that predicts runs here; those that do: {who}")
    topic = rule.topic
    if topic in agent.topics:
        raise SetupError(f"{rule.place('topic')}: {rule.agent} itself reads {topic}; it would go in a circle")
    if (why := _find_conflict(topic, agent, everyone, settings)) is not None:
        raise SetupError(f"{rule.place('topic')}: {topic} {why}: requests may not be among them")


def _find_conflict(topic: str, agent: Agent, everyone: Iterable[Agent | Handler], settings: Settings) -> str | None:
    """Return why a topic cannot carry requests; None for one that can."""
    if topic == agent.output:
        return f"takes the results of {agent.name}"
    for other in everyone:
        if isinstance(other, Handler) and topic in other.changelogs:
            return f"is the changelog of {other.name}"
    spec = dict(named_topics(settings.prefix)).get(topic)
    return None if spec is None or spec.requests else f"holds records of another kind ({spec.record})"


def make_routes(
    agents: Sequence[Agent], manifest: ModelManifest, app: str, *, variant: Variant = "current"
) -> dict[str, Route]:
    """Return the routes by topic. Raises SetupError for agents that do not fit the model or each other.

    `variant`: as what results name the version.
    """
    bound = [replace(_bind(agent, manifest, app), variant=variant) for agent in agents]
    topics = dict.fromkeys(topic for agent in agents for topic in agent.topics)
    return {topic: _make_route(topic, [b for b in bound if topic in b.agent.topics], manifest) for topic in topics}


def check_handlers(handlers: Iterable[Handler], manifest: ModelManifest) -> None:
    """Raise SetupError for a model that lacks tasks of the handlers, or that their `check` refuses."""
    names = {task.name for task in manifest.tasks}
    for handler in handlers:
        if missing := [task for task in handler.tasks if task not in names]:
            raise SetupError(
                f"handler {handler.name}: {manifest.name} {manifest.version} has no task {', '.join(missing)}; "
                f"its tasks are {', '.join(sorted(names))}"
            )
        handler.check(manifest)


def prepare_handlers(handlers: Iterable[Handler], model: LoadedModel) -> None:
    """Let handlers compute what depends on a model. Blocks, perhaps for seconds."""
    for handler in handlers:
        handler.prepare(model)


def _bind(agent: Agent, manifest: ModelManifest, app: str) -> BoundAgent:
    specs = {task.name: task for task in manifest.tasks}
    named = (agent.tasks or ()) + tuple(agent.thresholds)
    for task in named:
        if task not in specs:
            raise SetupError(
                f"agent {agent.name}: task {task} is not one of model {manifest.name}'s, which are {', '.join(specs)}"
            )
    may = [spec for spec in manifest.tasks if agent.may_answer(spec)]
    if not may:
        raise SetupError(
            f"agent {agent.name}: model {manifest.name} has no task that is answered with "
            f"{' or '.join(sorted(form.value for form in agent.forms or ()))}"
        )
    for rule in agent.routing:
        _check_rule(rule, [spec.name for spec in may], specs, manifest.name)
    headers = (
        (CE_SPECVERSION, SPEC_VERSION.encode()),
        (CE_TYPE, result_type(agent.name).encode()),
        (CE_SOURCE, app_source(app).encode()),
        (CONTENT_TYPE_HEADER, CONTENT_TYPE.encode()),
    )
    return BoundAgent(agent, _default_tasks(agent, may), frozenset(spec.name for spec in may), headers)


def _check_rule(rule: Rule, may: Sequence[str], specs: Mapping[str, TaskSpec], model: str) -> None:
    if rule.task is None:
        return
    if rule.task not in may:
        raise SetupError(f"{rule.place('task')}: {rule.agent} does not answer {rule.task}, but {', '.join(may)}")
    known = known_labels(specs[rule.task])
    for number, label in enumerate(rule.label or ()):
        place = rule.place("label", number)
        if label == specs[rule.task].out_of_scope:
            raise SetupError(f"{place}: {label} is never answered but withheld: use abstained: true")
        if label not in known:
            some = ", ".join(sorted(known)[:20])
            raise SetupError(f"{place}: {label} is not a label of {rule.task} in model {model}: {some}")


def _default_tasks(agent: Agent, may: Sequence[TaskSpec]) -> tuple[str, ...]:
    if agent.tasks:
        return agent.tasks
    picked = tuple(spec.name for spec in may if agent.answers_by_default(spec))
    return picked or tuple(spec.name for spec in may)


def _make_route(topic: str, bound: Sequence[BoundAgent], manifest: ModelManifest) -> Route:
    tasks = tuple(dict.fromkeys(task for b in bound for task in b.tasks))
    overrides: dict[str, tuple[str, Thresholds]] = {}
    for b in bound:
        for task, thresholds in b.agent.thresholds.items():
            other, set_before = overrides.setdefault(task, (b.agent.name, thresholds))
            if set_before != thresholds:
                # All agents of a topic share one forward pass and one decoding.
                raise SetupError(
                    f"agents {other} and {b.agent.name} both read {topic} and set different thresholds for {task}: "
                    "set the same, or give one of them its own topic"
                )
    merged = {task: _merge(manifest.task(task).thresholds, new) for task, (_, new) in overrides.items()}
    asked = tuple((b, b.tasks) for b in bound)
    max_age_s = min((b.agent.max_age_s for b in bound if b.agent.max_age_s is not None), default=None)
    windows, pair_tasks = _shared_windows(topic, bound), find_pair_tasks(manifest.tasks)
    limit = manifest.limits.max_tokens
    return Route(topic, tuple(bound), asked, tasks, merged or None, windows, max_age_s, pair_tasks, limit)


def _shared_windows(topic: str, bound: Sequence[BoundAgent]) -> Windows | None:
    first = bound[0].agent
    for other in (b.agent for b in bound[1:]):
        if other.windows != first.windows:
            # All agents of a topic share one forward pass and one decoding.
            raise SetupError(
                f"agents {first.name} and {other.name} both read {topic} and read long texts differently (long_texts and its "
                "windows): set the same, or give one of them its own topic"
            )
    return first.windows


def _merge(base: Thresholds, new: Thresholds) -> Thresholds:
    return Thresholds(**{**base.model_dump(), **{name: getattr(new, name) for name in new.model_fields_set}})


def all_topics(agents: Iterable[Agent | Handler], dead_letters: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the input topics and the output topics of a set of agents."""
    inputs: dict[str, None] = {}
    outputs: dict[str, None] = {}
    for agent in agents:
        inputs.update(dict.fromkeys(agent.topics))
        outputs.update(dict.fromkeys(agent.outputs))
    return tuple(inputs), (*outputs, dead_letters)
