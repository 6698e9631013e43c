"""Options of an agent: `agents.NAME.options`, validated by the model that the agent declares.

An invalid or unknown key is refused with its source, like every other setting.
"""

from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, ValidationError, ValidationInfo

from ..errors import SetupError
from .kafka import Section, refuse_address
from .secrets import SUFFIX, fill_from_file
from .settings import Settings
from .sources import describe_error

__all__ = ["Options", "RelativePath", "read_options"]


class Options(Section):
    """Base class for the `options_model` of an agent."""


def _resolve_relative(value: object, info: ValidationInfo) -> object:
    refuse_address(value)
    folder = (info.context or {}).get(info.field_name)
    return folder / value if isinstance(folder, Path) and isinstance(value, str | Path) else value


RelativePath = Annotated[Path, BeforeValidator(_resolve_relative)]
"""A path relative to the folder of the settings file that sets it; if set elsewhere, to the working directory."""


def read_options(name: str, model: type[Options] | None, settings: Settings) -> Options | None:
    """Return the options of an agent; None if it declares no model. Raises SetupError."""
    section = f"agents.{name}.options"
    agent = settings.agents.get(name)
    values = agent.options if agent else {}
    if model is None:
        if values:
            raise SetupError(f"{settings.place(section)}: agent {name} has no options")
        return None
    values = _read_secrets(model, values, section, settings)
    folders = {key: settings.folder(f"{section}.{key}") for key in values}
    try:
        return model.model_validate(values, context=folders)
    except ValidationError as error:
        first = min(error.errors(include_url=False), key=lambda e: e["type"] != "extra_forbidden")
        key = ".".join([section, *map(str, first["loc"])])
        problem = describe_error(first, tuple(first["loc"]), key, model)
        raise SetupError(f"{settings.source(key)}: {problem}") from None


def _read_secrets(model: type[Options], values: dict[str, Any], section: str, settings: Settings) -> dict[str, Any]:
    """Return the options with the secrets from files (`KEY_file`), unless the model has a field of that name."""
    filled = dict(values)
    for name, field in model.model_fields.items():
        named = name + SUFFIX
        if named in values and named not in model.model_fields and "SecretStr" in str(field.annotation):
            folder = settings.folder(f"{section}.{named}")
            fill_from_file(filled, name, lambda key: settings.place(f"{section}.{key}"), folder)
    return filled
