"""Reports the effective settings of a process with their sources, without secrets."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel, SecretStr

from ..installed import installed_points
from ..settings.agent_options import read_options
from ..settings.redaction import STARS, public_address
from ..settings.settings import Settings
from .discovery import AGENTS, find_agents

DEFAULT: Final = "default"


@dataclass(frozen=True, slots=True)
class Row:
    """One setting. `value` is JSON-compatible; a secret is replaced by stars."""

    key: str
    value: Any
    source: str
    """`default`, `command line`, a variable's name, or `FILE, line N`."""


def report(settings: Settings) -> list[Row]:
    """Return a row for each setting, in the order of the sections. Raises SetupError for invalid options of an agent."""
    rows = [*_iterate_rows(settings, "", settings)]
    return rows + [row for name in settings.agents for row in _iterate_options(name, settings)]


def _iterate_rows(section: BaseModel, prefix: str, settings: Settings) -> Iterator[Row]:
    for name in type(section).model_fields:
        value, key = getattr(section, name), f"{prefix}{name}"
        if name == "options" and prefix.startswith("agents."):
            continue
        if isinstance(value, BaseModel):
            yield from _iterate_rows(value, f"{key}.", settings)
        elif isinstance(value, Mapping) and value and all(isinstance(inner, BaseModel) for inner in value.values()):
            for inner, model in value.items():
                yield from _iterate_rows(model, f"{key}.{inner}.", settings)
        else:
            yield Row(key, redact(value), settings.find_source(key) or DEFAULT)


def _iterate_options(name: str, settings: Settings) -> Iterator[Row]:
    """Yield the options of an agent. Those of an agent that is not installed are starred: they may be secrets."""
    prefix = f"agents.{name}.options."
    if name not in {point.name for point in installed_points(AGENTS)}:
        for key in settings.agents[name].options:
            yield Row(prefix + key, STARS, settings.find_source(prefix + key) or DEFAULT)
        return
    (agent,) = find_agents([name])
    options = read_options(name, getattr(agent, "options_model", None), settings)
    if options is not None:
        yield from _iterate_rows(options, prefix, settings)


def redact(value: Any) -> Any:
    """Return a JSON-compatible value: a secret is starred, credentials are removed from an address."""
    if isinstance(value, SecretStr):
        return STARS
    if isinstance(value, BaseModel):
        return {name: redact(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, Mapping):
        return {str(key): redact(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [redact(item) for item in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return public_address(str(value))
