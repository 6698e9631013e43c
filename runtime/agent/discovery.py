"""Finds agents and commands of installed packages by entry point, and a user's agents by `module:attribute`."""

import importlib
import inspect
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import EntryPoint
from typing import Any, Final

from ..errors import SetupError
from ..installed import installed_points
from ..spelling import suggest
from .agent import Agent
from .handler import Handler

AGENTS: Final = "murmura.agents"
DEFAULT_AGENTS: Final = "murmura.default_agents"
"""Entry points with the names of the agents that serve by default."""
COMMANDS: Final = "murmura.commands"
PREFIX: Final = "murmura"

# The extra that installs a missing module.
_EXTRA_OF: Final = {
    "onnxruntime": "cpu",
    "spox": "cpu",
    "safetensors": "cpu",
    "confluent_kafka": "demo",
    "starlette": "console",
    "jinja2": "console",
    "multipart": "console",
    "torch": "training",
    "transformers": "training",
    "peft": "training",
    "sklearn": "training",
    "tqdm": "training",
    "tensorboard": "training",
}


def find_agents(names: Sequence[str] = (), prefix: str = PREFIX) -> list[Agent | Handler]:
    """Return agents by name: installed ones, or `module:attribute`, with the working directory first on the path.

    Without names, the default ones. In topics of installed agents `murmura` is replaced by `prefix`; a user's agents keep
    the topics of their module. Raises SetupError for a missing agent or an object that is not an agent.
    """
    installed = {point.name: point for point in installed_points(AGENTS)}
    return [
        _load_user_agent(name) if ":" in name else _apply_prefix(_load_installed(name, installed), prefix)
        for name in names or default_agents()
    ]


def find_misspelling(name: str) -> str | None:
    """Return a line about a name that no installed agent has and that is like one's; agents of other processes have any name."""
    installed = [point.name for point in installed_points(AGENTS)]
    if name in installed or not (guess := suggest(name, installed)):
        return None
    return f"--agent: no agent called {name} is installed here{guess}"


def default_agents() -> tuple[str, ...]:
    """Return the names of the agents that serve by default, from the installed packages."""
    return tuple(point.name for point in installed_points(DEFAULT_AGENTS))


def find_commands() -> list[EntryPoint]:
    """Return the commands that installed packages register, in their order."""
    return installed_points(COMMANDS)


def missing_extra(error: ModuleNotFoundError) -> str | None:
    """Return one line that names the extra to install, or None when the module belongs to no extra."""
    module = (error.name or "").partition(".")[0]
    extra = _EXTRA_OF.get(module)
    return extra and f"this needs {module}, which is not installed: pip install 'murmura[{extra}]'"


def _load_installed(name: str, installed: dict[str, EntryPoint]) -> Agent | Handler:
    if name not in installed:
        guess = suggest(name, installed)
        raise SetupError(
            f"no agent called {name}: there are {', '.join(sorted(installed))}, or MODULE:ATTRIBUTE of your own{guess}"
        )
    return _check_agent(installed[name].load(), name)


def _apply_prefix(agent: Agent | Handler, prefix: str) -> Agent | Handler:
    def rename(topic: str) -> str:
        return prefix + topic.removeprefix(PREFIX) if topic.startswith(PREFIX + ".") else topic

    if isinstance(agent, Handler):
        agent.topics, agent.outputs = tuple(map(rename, agent.topics)), tuple(map(rename, agent.outputs))
        return agent
    return replace(
        agent, topics=tuple(map(rename, agent.topics)), output=rename(agent.output) if agent.output else None
    )


def _load_user_agent(name: str) -> Agent | Handler:
    module_name, _, attribute = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name != module_name and not module_name.startswith(f"{error.name}."):
            raise  # the module exists, but not one that it imports
        raise SetupError(f"agent {name}: no module {module_name} here ({os.getcwd()}) or installed") from None
    if not hasattr(module, attribute):
        agents = [key for key, value in vars(module).items() if isinstance(value, Agent)]
        raise SetupError(
            f"agent {name}: {module_name} has no {attribute or 'attribute named'}; "
            f"agents in it: {', '.join(agents) or 'none'}"
        )
    return _check_agent(getattr(module, attribute), name)


def _check_agent(found: Any, name: str) -> Agent | Handler:
    if isinstance(found, type) and issubclass(found, Handler):
        if inspect.isabstract(found):
            raise SetupError(f"agent {name}: {found.__name__} has no `handle`, which returns the messages for a record")
        return found()
    if isinstance(found, Agent | Handler):
        return found
    raise SetupError(
        f"agent {name} is a {type(found).__name__}, expected an Agent: "
        "write @agent(topics=[...], output=...) above the function"
    )
