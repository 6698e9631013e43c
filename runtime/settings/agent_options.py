"""An agent's own options: `agents.NAME.options`, checked by the model that the agent declares.

A wrong or unknown key is refused with the place that gave it, like every other setting.
"""

from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, ValidationError, ValidationInfo

from ..errors import SetupError
from .kafka import Section
from .secrets import SUFFIX, fill_from_file
from .settings import Settings
from .sources import describe_error

__all__ = ["BesideFile", "Options", "read_options"]


class Options(Section):
    """The base of the options that an agent declares as its `options_model`."""


def _beside_file(value: object, info: ValidationInfo) -> object:
    folder = (info.context or {}).get(info.field_name)
    return folder / value if isinstance(folder, Path) and isinstance(value, str | Path) else value


BesideFile = Annotated[Path, BeforeValidator(_beside_file)]
"""A path that is relative to the folder of the settings file that names it; given elsewhere, to the working folder."""


def read_options(name: str, model: type[Options] | None, settings: Settings) -> Options | None:
    """Return the options of an agent; None where it declares no model. Raises SetupError."""
    section = f"agents.{name}.options"
    agent = settings.agents.get(name)
    given = agent.options if agent else {}
    if model is None:
        if given:
            raise SetupError(f"{settings.place(section)}: agent {name} has no options")
        return None
    given = _with_secrets_read(model, given, section, settings)
    folders = {key: settings.folder(f"{section}.{key}") for key in given}
    try:
        return model.model_validate(given, context=folders)
    except ValidationError as error:
        first = min(error.errors(include_url=False), key=lambda e: e["type"] != "extra_forbidden")
        key = ".".join([section, *map(str, first["loc"])])
        what = describe_error(first, tuple(first["loc"]), key, model)
        raise SetupError(f"{settings.source(key)}: {what}") from None


def _with_secrets_read(model: type[Options], given: dict[str, Any], section: str, settings: Settings) -> dict[str, Any]:
    """Return the options with each secret that `KEY_file` names; a field of that name is a field like any other."""
    filled = dict(given)
    for name, field in model.model_fields.items():
        named = name + SUFFIX
        if named in given and named not in model.model_fields and "SecretStr" in str(field.annotation):
            folder = settings.folder(f"{section}.{named}")
            fill_from_file(filled, name, lambda key: settings.place(f"{section}.{key}"), folder)
    return filled
