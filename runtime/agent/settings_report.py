"""Every setting of a process as it holds, with its source, and nothing secret in it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, Final

from pydantic import BaseModel, SecretStr

from ..settings.agent_options import read_options
from ..settings.redaction import STARS, public_address
from ..settings.settings import Settings
from .discovery import AGENTS, find_agents

DEFAULT: Final = "default"


@dataclass(frozen=True, slots=True)
class Row:
    """One setting. `value` is what JSON can hold; a secret is stars."""

    key: str
    value: Any
    source: str
    """`default`, `command line`, a variable's name, or `FILE, line N`."""


def report(settings: Settings) -> list[Row]:
    """Return a row for each setting, in the order of the sections. SetupError for options that their agent refuses."""
    rows = [*_rows(settings, "", settings)]
    return rows + [row for name in settings.agents for row in _options(name, settings)]


def _rows(section: BaseModel, prefix: str, settings: Settings) -> Iterator[Row]:
    for name in type(section).model_fields:
        value, key = getattr(section, name), f"{prefix}{name}"
        if name == "options" and prefix.startswith("agents."):
            continue
        if isinstance(value, BaseModel):
            yield from _rows(value, f"{key}.", settings)
        elif isinstance(value, Mapping) and value:
            for inner, model in value.items():
                yield from _rows(model, f"{key}.{inner}.", settings)
        else:
            yield Row(key, shown(value), settings.given_by(key) or DEFAULT)


def _options(name: str, settings: Settings) -> Iterator[Row]:
    """Yield the options of an agent. Those of one that is not installed under its name may be secrets: stars."""
    prefix = f"agents.{name}.options."
    if name not in {point.name for point in entry_points(group=AGENTS)}:
        for key in settings.agents[name].options:
            yield Row(prefix + key, STARS, settings.given_by(prefix + key) or DEFAULT)
        return
    (agent,) = find_agents([name])
    options = read_options(name, getattr(agent, "options_model", None), settings)
    if options is not None:
        yield from _rows(options, prefix, settings)


def shown(value: Any) -> Any:
    """Return a value as JSON can hold it: a secret starred, an address without credentials."""
    if isinstance(value, SecretStr):
        return STARS
    if isinstance(value, BaseModel):
        return {name: shown(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, Mapping):
        return {str(key): shown(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [shown(item) for item in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return public_address(str(value))
