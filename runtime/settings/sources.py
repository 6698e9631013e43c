"""Loads settings from flags, environment, file and defaults, in this order of precedence.

Every error is one line that names the source (flag, variable, or file and line), the key and the expected value.
"""

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import reduce
from itertools import takewhile
from pathlib import Path
from typing import Any, Final, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict
from pydantic_settings.exceptions import SettingsError

from ..errors import SetupError
from ..spelling import suggest
from .redaction import describe_value, is_named_like_a_setting
from .secrets import FROM_FILES, SUFFIX, fill_from_file, section_of
from .settings import Origin, Settings
from .yaml_file import NotYaml, read_yaml
from .yaml_words import find_words

ENV_PREFIX: Final = "MURMURA_"
CONFIG_VARIABLE: Final = "MURMURA_CONFIG"

KeyPath = tuple[int | str, ...]

MOVED: Final[dict[tuple[str, ...], str]] = {
    ("dialogue",): "agents.dialogue.options",
    ("feedback",): "agents.feedback.options",
}
"""Sections that have moved; their keys keep their names."""


class _Environment(BaseSettings, Settings):
    """The same fields, which tell pydantic-settings the names of the variables."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_nested_delimiter="__", frozen=True, extra="forbid", protected_namespaces=()
    )


def load(
    config: Path | None = None,
    flags: Mapping[str, Any] | None = None,
    *,
    environment: bool = True,
    one_model: bool = False,
) -> Settings:
    """Return the settings of this process.

    `flags` is nested like the sections; None means not given. `config` is a YAML file, by default that of
    `MURMURA_CONFIG`. Without `environment` variables are ignored. `one_model`: `flags` name the only model, and `models` is
    left out. Raises SetupError.
    """
    if config is None and environment and os.environ.get(CONFIG_VARIABLE):
        config = Path(os.environ[CONFIG_VARIABLE])
    given = _without_none(flags or {})
    variables = _read_environment() if environment else {}
    file = _File(config) if config else None
    merged = _merge(_merge(file.values if file else {}, variables), given)
    if one_model:
        merged = _without_models(merged)

    def source(path: KeyPath) -> str:
        return _describe_source(path, given, variables, file)

    def folder(path: KeyPath) -> Path | None:
        return file.path.parent if file and _source_is_file(path, given, variables) else None

    def origin(path: KeyPath) -> Origin:
        return Origin(source(path), folder(path))

    _refuse_moved(merged, source)
    origins = {_format_path(path): origin(path) for path in _paths_in(merged, ())}
    origins |= _fill_from_files(merged, source, folder)
    try:
        settings = Settings.model_validate(merged)
    except ValidationError as error:
        # An unknown key often causes the other errors (a misspelt required key): report it first.
        first = min(error.errors(include_url=False), key=lambda e: e["type"] != "extra_forbidden")
        path = tuple(first["loc"])
        shown = _without_odd_names(path)
        raise SetupError(f"{source(path)}: {describe_error(first, shown, _format_path(shown))}") from None

    settings.set_origins(origins)
    for number, rule in enumerate(settings.routing):
        keys = _list_keys(merged["routing"][number])
        paths = {_format_path(key): ("routing", number, *key) for key in keys}
        rule.set_places({key: f"{source(path)}: {_format_path(path)}" for key, path in paths.items()})
    return settings


def _source_is_file(path: KeyPath, flags: Mapping[str, Any], environment: Mapping[str, Any]) -> bool:
    return not _has(flags, path) and not _has(environment, path)


def _fill_from_files(
    merged: dict[str, Any], source: Callable[[KeyPath], str], folder: Callable[[KeyPath], Path | None]
) -> dict[str, Origin]:
    """Read the secrets of `..._file` keys into `merged`; returns their origins."""
    origins: dict[str, Origin] = {}
    for path in FROM_FILES:
        section, named = section_of(merged, path), (*path[:-1], path[-1] + SUFFIX)
        if section is not None and path[-1] + SUFFIX in section:
            places = {key[-1]: f"{source(key)}: {_format_path(key)}" for key in (path, named)}
            fill_from_file(section, path[-1], places.__getitem__, folder(named))
            origins[_format_path(path)] = Origin(source(named))
    return origins


def _refuse_moved(merged: Mapping[str, Any], source: Callable[[KeyPath], str]) -> None:
    for old, new in MOVED.items():
        if not _has(merged, old):
            continue
        value = reduce(lambda values, part: values[part], old, merged)
        keys = [str(name) for name in value][:1] if isinstance(value, Mapping) else []
        names = [name for name in keys if is_named_like_a_setting(name)]
        path = (*old, *names)
        raise SetupError(f"{source(path)}: {_describe_move(_format_path(path), '.'.join([new, *names]))}")


def _describe_move(old: str, new: str) -> str:
    return f"{old} is now {new}"


def _paths_in(value: Any, path: KeyPath) -> Iterator[KeyPath]:
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from _paths_in(inner, (*path, key))


def _list_keys(rule: Any) -> list[KeyPath]:
    """Return the keys of a rule and the items of its lists."""
    if not isinstance(rule, Mapping):
        return []
    items = [(key, item) for key, value in rule.items() if isinstance(value, list) for item in range(len(value))]
    return [*((key,) for key in rule), *items]


def _read_environment() -> dict[str, Any]:
    for name in sorted(os.environ):
        parts = name.removeprefix(ENV_PREFIX).lower().split("__")
        section = parts[0]
        if name.startswith(ENV_PREFIX) and "__" in name and (moved := _moved_variable(parts)):
            raise SetupError(f"{name}: {moved}")
        # A name without `__` may belong to something else (Kubernetes sets MURMURA_PORT for a service named murmura).
        if name.startswith(ENV_PREFIX) and "__" in name and section not in Settings.model_fields:
            raise SetupError(f"{name}: {section} is not a section of the settings{_suggest(section, Settings)}")
    try:
        values = EnvSettingsSource(_Environment)()
    except SettingsError as error:
        raise SetupError(f"environment: {str(error).splitlines()[0]}; lists and mappings are written as JSON") from None
    agents = values.get("agents")
    for agent in agents.values() if isinstance(agents, dict) else ():
        if isinstance(agent, dict) and isinstance(options := agent.get("options"), dict):
            agent["options"] = {key: _from_json(value) for key, value in options.items()}
    return values


def _from_json(value: Any) -> Any:
    """Return the list or mapping in an option's variable: only the agent knows its type."""
    if isinstance(value, str) and value.startswith(("[", "{")):
        with suppress(ValueError):
            return json.loads(value)
    return value


def _moved_variable(parts: list[str]) -> str | None:
    for old, new in MOVED.items():
        if tuple(parts[: len(old)]) == old:
            key = ".".join([new, *parts[len(old) :]])
            return f"{_describe_move('.'.join(parts), key)} ({ENV_PREFIX}{key.replace('.', '__').upper()})"
    return None


class _File:
    """A YAML file: its values, and the line of each key."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._root, values = read_yaml(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise SetupError(f"{path}: no such settings file") from None
        except (OSError, UnicodeDecodeError) as error:
            raise SetupError(f"{path}: cannot be read as a settings file: {error}") from None
        except NotYaml as error:
            raise SetupError(f"{path}, line {error.line}: {error}") from None
        if values is not None and not isinstance(values, dict):
            raise SetupError(f"{path}: expected settings as `key: value` lines, found a {type(values).__name__}")
        for word in find_words(self._root, Settings, apart={"options"}):
            raise SetupError(f"{path}, line {word.line}: {_format_path(word.keys)}: {word.describe('this')}")
        self.values: dict[str, Any] = values or {}

    def line(self, path: KeyPath) -> int:
        """Return the line of the deepest existing key of `path`, counted from 1."""
        node, line = self._root, 1
        for part in path:
            if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
                node = node.value[part]
                line = node.start_mark.line + 1
                continue
            if not isinstance(node, yaml.MappingNode):
                break
            hit = next(((k, v) for k, v in node.value if getattr(k, "value", None) == str(part)), None)
            if hit is None:
                break
            line, node = hit[0].start_mark.line + 1, hit[1]
        return line


def _describe_source(
    path: KeyPath, flags: Mapping[str, Any], environment: Mapping[str, Any], file: _File | None
) -> str:
    """Return the source of a setting."""
    if path and _has(flags, path):
        return "command line"
    if path and _has(environment, path):
        return _variable(path)
    if file and (not path or _has(file.values, path)):
        return f"{file.path}, line {file.line(path)}" if path else str(file.path)
    return "settings"


def _variable(path: KeyPath) -> str:
    """Return the variable of a setting: its own, or one with a section or a list as JSON."""
    parts = [part.upper() for part in takewhile(lambda part: isinstance(part, str), path) if isinstance(part, str)]
    names = [ENV_PREFIX + "__".join(parts[:end]) for end in range(len(parts), 0, -1)]
    return next((name for name in names if name in os.environ), names[0])


def _format_path(path: KeyPath) -> str:
    parts = map(str, path)
    return ".".join(part if part.isprintable() else repr(part) for part in parts)  # an error is one line


def describe_error(error: ErrorDetails, path: KeyPath, key: str, model: type[BaseModel] = Settings) -> str:
    """Return in one line what is wrong with a key and what was expected; `path` is its path within `model`."""
    match error["type"]:
        case "extra_forbidden":
            guess = _suggest(str(path[-1]), _model_at(path[:-1], model))
            known = guess or (is_named_like_a_setting(str(path[-1])) and not _is_secret(path, model))
            return f"{key if known else _hidden_key(key, path[-1:])} is not a setting{guess}"
        case "value_error":
            reason = str(error["ctx"]["error"])
            key = _hidden_key(key, path[-2:]) if path[-1:] == ("[key]",) else key
            return f"{key}: {reason}" if key else reason
        case _:
            found = "" if _is_secret(path, model) else f", found {describe_value(error['input'])}"
            message = error["msg"].replace("tuple", "list")  # a file has no tuples
            key = _hidden_key(key, path[-1:]) if _is_name_of_section(path, model) else key
            quotes = isinstance(error["input"], bool) and error["type"] in {"string_type", "path_type"}
            hint = "; YAML reads yes, no, on and off as true or false: put it in quotes" if quotes else ""
            return f"{key}: {message[:1].lower()}{message[1:]}{found}{hint}"


def _is_secret(path: KeyPath, model: type[BaseModel]) -> bool:
    """Return whether the value at `path` must not be described: all of kafka.security, and secrets of a model."""
    if model is Settings and path[:2] == ("kafka", "security"):
        return True
    section = _model_at(path[:-1], model) if path else None
    field = section.model_fields.get(str(path[-1])) if section else None
    return field is not None and "Secret" in str(field.annotation)


def _is_name_of_section(path: KeyPath, model: type[BaseModel]) -> bool:
    """Return whether the last part of `path` is a name that people give: of an agent, a topic, a task or a label.

    With a wrong value behind it, it may be a secret that stands in the place of a name.
    """
    if not path or not isinstance(path[-1], str):
        return False
    section = _model_at(path[:-1], model)
    return section is None or path[-1] not in section.model_fields


def _without_odd_names(path: KeyPath) -> KeyPath:
    """Return a path with NAME for names that no agent, topic or task has: an address or a sentence may be a secret."""

    def is_odd(end: int) -> bool:
        return _is_name_of_section(path[:end], Settings) and not re.fullmatch(r"[\w. -]{1,200}", str(path[end - 1]))

    return tuple("NAME" if part != "[key]" and is_odd(end) else part for end, part in enumerate(path, 1))


def _hidden_key(key: str, end: KeyPath) -> str:
    """Return the section of a key instead of the key, whose path ends with `end`: it may be a secret in the wrong place."""
    section = key.removesuffix(_format_path(end)).removesuffix(".")
    return f"a key in {section}" if section else "a key"


def _suggest(name: str, model: type[BaseModel] | None) -> str:
    return suggest(name, model.model_fields) if model else ""


def _model_at(path: KeyPath, root: type[BaseModel]) -> type[BaseModel] | None:
    model: type[BaseModel] | None = root
    for part in path:
        field = model.model_fields.get(str(part)) if model else None
        if field is None:
            continue  # the name of an agent: the model is that of the mapping's values
        kinds = [field.annotation, *get_args(field.annotation)]
        model = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
    return model


def _has(values: Any, path: KeyPath) -> bool:
    for part in path:
        if not isinstance(values, Mapping):
            return isinstance(part, int) and isinstance(values, list)
        if part not in values:
            return False
        values = values[part]
    return True


def _merge(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(low)
    for key, value in high.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _without_models(values: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out `models`, and which of them an agent asks."""
    left = {key: value for key, value in values.items() if key != "models"}
    if isinstance(agents := left.get("agents"), dict):
        left["agents"] = {
            name: {key: value for key, value in each.items() if key != "model"} if isinstance(each, dict) else each
            for name, each in agents.items()
        }
    return left


def _without_none(flags: Mapping[str, Any]) -> dict[str, Any]:
    nested = {k: _without_none(v) if isinstance(v, Mapping) else v for k, v in flags.items()}
    return {k: v for k, v in nested.items() if v is not None and v != {}}
