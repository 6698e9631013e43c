"""YAML files that people write (recipes, policies): read into a model, and refused in one line that names the place."""

import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from .errors import SetupError

M = TypeVar("M", bound=BaseModel)
Place = tuple[int | str, ...]
"""The way to a value: keys of mappings and positions in lists."""


class YamlFile(Generic[M]):
    """A file that has been read. `value` is the model; `refusal` names the line of any part of it."""

    def __init__(
        self,
        path: Path,
        kind: type[M],
        what: str,
        *,
        requires: str,
        defaults: Mapping[str, Any] | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> None:
        """Read and check `path`. `what` is the file to people ("recipe"), `requires` the key that it cannot do without.

        Raises SetupError with one line: file, line, key, what was expected.
        """
        self.path, self._kind, self._what = path, kind, what
        raw = self._read(requires)
        for line, key in _twice(self._tree):
            raise SetupError(f"{path}:{line}: {key}: this key stands here a second time")
        try:
            self.value = kind.model_validate({**(defaults or {}), **raw}, context=dict(context or {}))
        except ValidationError as error:
            raise self._explained(error) from None

    def refusal(self, place: Place, message: str) -> SetupError:
        """Return what to raise for something that is wrong at `place`."""
        line, key = _find(self._tree, place)
        return SetupError(f"{self.path}:{line}: {key or self._what}: {message}")

    def _read(self, requires: str) -> dict[str, Any]:
        try:
            text = self.path.read_text(encoding="utf-8")
        except OSError as error:
            raise SetupError(f"{self.path}: cannot read the {self._what}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise SetupError(f"{self.path}: cannot read the {self._what}: it is not UTF-8") from None
        try:
            self._tree = yaml.compose(text, Loader=yaml.SafeLoader)
            raw = yaml.safe_load(text)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            line = mark.line + 1 if mark else 1
            raise SetupError(f"{self.path}:{line}: not YAML: {getattr(error, 'problem', None) or error}") from None
        if not isinstance(raw, dict):
            raise SetupError(f"{self.path}:1: a {self._what} is a mapping with at least the key `{requires}`")
        return raw

    def _explained(self, error: ValidationError) -> SetupError:
        # An unknown key is most often the cause of what else is wrong (a required key misspelt): name it first.
        problems = sorted(error.errors(include_url=False), key=lambda e: e["type"] != "extra_forbidden")
        first = problems[0]
        _, key = _find(self._tree, first["loc"])
        what = str(first["msg"]).removeprefix("Value error, ").replace("\n", " ")
        if first["type"] == "extra_forbidden":
            what = f"unknown key; expected one of {', '.join(sorted(_keys_at(self._kind, first['loc'][:-1])))}"
        elif first["type"] == "missing":
            what = "this key is missing"
        elif first["type"] != "value_error" and not what.startswith(key):
            what = f"{what}, found {str(first['input'])[:60]!r}"
        return self.refusal(first["loc"], what)


def _find(node: yaml.Node | None, place: Place) -> tuple[int, str]:
    """Return the line (from 1) of the deepest node on the way, and the path as the writer knows it."""
    line, shown = 1, []
    for part in place:
        if isinstance(part, str):
            shown.append(part)
        if isinstance(node, yaml.MappingNode) and isinstance(part, str):
            hit = next(((k, v) for k, v in node.value if k.value == part), None)
            if hit is None:
                continue
            line, node = hit[0].start_mark.line + 1, hit[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
    return line, ".".join(shown)


def _twice(node: yaml.Node | None) -> Iterator[tuple[int, str]]:
    """Yield line and path of keys that stand twice in their mapping: YAML would take the last and say nothing."""
    waiting: list[tuple[yaml.Node | None, tuple[str, ...]]] = [(node, ())]
    known: set[int] = set()  # an alias is the node that it stands for, and may even stand inside of it
    while waiting:
        node, path = waiting.pop()
        if id(node) in known:
            continue
        known.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += [(item, path) for item in node.value]
        if isinstance(node, yaml.MappingNode):
            keys: set[str] = set()
            for key, value in node.value:
                here = (*path, str(key.value))
                if here[-1] in keys:
                    yield key.start_mark.line + 1, ".".join(here)
                keys.add(here[-1])
                waiting.append((value, here))


def _keys_at(kind: Any, place: Place) -> set[str]:
    for part in place:
        kind = _model_in(kind.model_fields[part].annotation if _is_field(kind, part) else kind)
    return set(kind.model_fields) if hasattr(kind, "model_fields") else set()


def _is_field(kind: Any, part: int | str) -> bool:
    return isinstance(part, str) and part in getattr(kind, "model_fields", {})


def _model_in(annotation: Any) -> Any:
    """Return the first of our models inside Optional, list, dict or Annotated."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in {typing.Union, types.UnionType, list, dict, Annotated}:
        return next((found for arg in get_args(annotation) if (found := _model_in(arg))), None)
    return None
