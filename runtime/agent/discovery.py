"""Finding what others bring: agents and commands by entry point, a user's own agents by `module:attribute`."""

import difflib
import importlib
import inspect
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final

from ..errors import SetupError
from .agent import Agent
from .handler import Handler

AGENTS: Final = "murmura.agents"
DEFAULT_AGENTS: Final = "murmura.default_agents"
"""Entry points whose names are those of the agents that serve when none is named."""
COMMANDS: Final = "murmura.commands"
PREFIX: Final = "murmura"

# What a missing module says about the extra that is not installed.
_EXTRA_OF: Final = {
    "onnxruntime": "cpu",
    "spox": "cpu",
    "safetensors": "cpu",
    "confluent_kafka": "demo",
    "torch": "training",
    "transformers": "training",
    "peft": "training",
    "sklearn": "training",
    "seqeval": "training",
    "tqdm": "training",
    "tensorboard": "training",
}


def find_agents(names: Sequence[str] = (), prefix: str = PREFIX) -> list[Agent | Handler]:
    """Return the agents called so: names of installed ones, or `module:attribute` with the working directory first.

    Without names, the default ones. Topics of installed agents get another `prefix` in place of `murmura`; a user's own
    keep the names that stand in the module. Raises SetupError for one that is not there or is no agent.
    """
    installed = {point.name: point for point in entry_points(group=AGENTS)}
    return [
        _own(name) if ":" in name else _prefixed(_installed(name, installed), prefix)
        for name in names or default_agents()
    ]


def default_agents() -> tuple[str, ...]:
    """Return the names of the agents that serve when none is named, as the installed packages say."""
    return tuple(point.name for point in entry_points(group=DEFAULT_AGENTS))


def find_commands() -> list[EntryPoint]:
    """Return the commands that packages register, in their order."""
    return list(entry_points(group=COMMANDS))


def missing_extra(error: ModuleNotFoundError) -> str | None:
    """Return one line on which extra to install, or None when the module belongs to none of ours."""
    module = (error.name or "").partition(".")[0]
    extra = _EXTRA_OF.get(module)
    return extra and f"this needs {module}, which is not installed: pip install 'murmura[{extra}]'"


def _installed(name: str, installed: dict[str, EntryPoint]) -> Agent | Handler:
    if name not in installed:
        near = difflib.get_close_matches(name, installed, n=1)
        guess = f"; did you mean {near[0]}?" if near else ""
        raise SetupError(
            f"no agent called {name}: there are {', '.join(sorted(installed))}, or MODULE:ATTRIBUTE of your own{guess}"
        )
    return _agent(installed[name].load(), name)


def _prefixed(agent: Agent | Handler, prefix: str) -> Agent | Handler:
    def renamed(topic: str) -> str:
        return prefix + topic.removeprefix(PREFIX) if topic.startswith(PREFIX + ".") else topic

    if isinstance(agent, Handler):
        agent.topics, agent.outputs = tuple(map(renamed, agent.topics)), tuple(map(renamed, agent.outputs))
        return agent
    return replace(
        agent, topics=tuple(map(renamed, agent.topics)), output=renamed(agent.output) if agent.output else None
    )


def _own(name: str) -> Agent | Handler:
    module_name, _, attribute = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name != module_name and not module_name.startswith(f"{error.name}."):
            raise  # the module is there, something that it imports is not
        raise SetupError(f"agent {name}: no module {module_name} here ({os.getcwd()}) or installed") from None
    if not hasattr(module, attribute):
        agents = [key for key, value in vars(module).items() if isinstance(value, Agent)]
        raise SetupError(
            f"agent {name}: {module_name} has no {attribute or 'attribute named'}; "
            f"agents in it: {', '.join(agents) or 'none'}"
        )
    return _agent(getattr(module, attribute), name)


def _agent(found: Any, name: str) -> Agent | Handler:
    if isinstance(found, type) and issubclass(found, Handler):
        if inspect.isabstract(found):
            raise SetupError(f"agent {name}: {found.__name__} has no `handle`, which says what comes of a record")
        return found()
    if isinstance(found, Agent | Handler):
        return found
    raise SetupError(
        f"agent {name} is a {type(found).__name__}, expected an Agent: "
        "write @agent(topics=[...], output=...) above the function"
    )
