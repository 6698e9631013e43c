"""Which model of a process an agent asks."""

from collections.abc import Iterable

from ..errors import SetupError
from ..settings.settings import Settings
from .agent import Agent
from .handler import Handler


def assign_models(settings: Settings, everyone: Iterable[Agent | Handler]) -> dict[str, str]:
    """Return the name of each agent's model: the one that `agents.NAME.model` names, or the only one (`` without `models`).

    Raises SetupError for an agent that names none of several, and for agents that read one topic and name different ones.
    """
    names = settings.model_names
    assigned: dict[str, str] = {}
    readers: dict[str, str] = {}
    for agent in everyone:
        overrides = settings.agents.get(agent.name)
        chosen = overrides.model if overrides is not None else None
        if chosen is None and len(names) > 1:
            place = settings.place(f"agents.{agent.name}.model")
            raise SetupError(f"{place}: {agent.name} must name its model, since there are several: {', '.join(names)}")
        assigned[agent.name] = chosen or names[0]
        for topic in agent.topics:
            other = readers.setdefault(topic, agent.name)
            if assigned[other] != assigned[agent.name]:
                raise SetupError(
                    f"agents {other} and {agent.name} both read {topic} and ask different models ({assigned[other]}, "
                    f"{assigned[agent.name]}): they share one forward pass; give one of them its own topic"
                )
    return assigned
