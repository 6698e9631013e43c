"""Reads YAML files written by people (recipes, policies, settings); errors are one line that names the place."""

import re
import types
import typing
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Final, Generic, Literal, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from ..errors import SetupError
from .redaction import is_named_like_a_setting
from .yaml_words import BOOLEAN, find_words

M = TypeVar("M", bound=BaseModel)
Place = tuple[int | str, ...]
"""The path of a value: keys of mappings and positions in lists."""
DEEPEST: Final = 50
"""Maximum nesting of lists and mappings. The library is recursive and would fail with a traceback."""
FAST_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The parser in C, where PyYAML has it: it takes a tenth of the time."""
_TEXT: Final = "tag:yaml.org,2002:str"
_MERGE: Final = "tag:yaml.org,2002:merge"
"""The tag of the key `<<`, which is valid only within its mapping."""
_NO_LIST: Final = frozenset({"list_type", "tuple_type", "set_type", "frozen_set_type"})
_NO_MAPPING: Final = frozenset({"dict_type", "model_type", "model_attributes_type"})
"""Types of validation errors."""


class NotYaml(Exception):
    """A text that is not valid YAML, or has an invalid value. The message is the reason."""

    def __init__(self, line: int, why: str) -> None:
        super().__init__(why)
        self.line = line


def read_yaml(text: str) -> tuple[yaml.Node | None, Any]:
    """Return the tree of a text, with lines, and its value. Raises NotYaml, also for a duplicate key."""
    with suppress(yaml.YAMLError):  # it is read again below: the two parsers describe a mistake differently
        return _read(text, FAST_LOADER)
    try:
        return _read(text, yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        raise NotYaml(mark.line + 1 if mark else 1, f"not YAML: {_without_values(problem)}") from None


def _read(text: str, loader: Any) -> tuple[yaml.Node | None, Any]:
    _refuse_depth(text, loader)
    tree = yaml.compose(text, Loader=loader)
    for line, key in _find_duplicate_keys(tree):
        raise NotYaml(line, f"{key}: this key is a duplicate")
    _refuse_values(tree)
    return tree, yaml.load(text, Loader=loader)  # noqa: S506  (both are safe)


def _without_values(problem: str) -> str:
    """Return the library's message without quoted text: a password may start with `*`, `&` or `!`."""
    return re.sub(r""" (['"])(?!<)(?:(?!\1).){2,}\1""", "", problem)


def _refuse_depth(text: str, loader: Any) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            line = event.start_mark.line + 1 if event.start_mark else 1
            raise NotYaml(line, f"nested deeper than {DEEPEST} levels")


def _refuse_values(tree: yaml.Node | None) -> None:
    """Raise NotYaml for a scalar that only looks like a date or number: 2024-13-45, or a number of 5,000 digits."""
    for node, path in _nodes(tree):
        if isinstance(node, yaml.ScalarNode) and node.tag != _MERGE:
            try:
                # Also formatted: an integer may be too long for an error message.
                repr(yaml.constructor.SafeConstructor().construct_object(node))
            except yaml.YAMLError:
                raise
            except Exception as error:
                # The value is not shown: it may be a password.
                kind = node.tag.rpartition(":")[2]
                article = "an" if kind[0] in "aeiou" else "a"
                problem = f"looks like {article} {kind} and is none; put it in quotes if it is a text"
                raise NotYaml(node.start_mark.line + 1, f"{_format_keys(path) or 'a key'}: {problem}") from error


class YamlFile(Generic[M]):
    """A file that has been read. `value` is its model; `refusal` makes errors with the line of any part."""

    def __init__(
        self,
        path: Path,
        kind: type[M],
        what: str,
        *,
        requires: str,
        defaults: Mapping[str, Any] | None = None,
        context: Mapping[str, Any] | None = None,
        secret: Collection[str] = (),
        extra: Literal["forbid"] | None = None,
    ) -> None:
        """Read and validate `path`. `what`: the kind of file ("recipe"). `requires`: its required key.

        `secret`: keys at the top with secrets below them: errors quote nothing of what stands there. `extra`: "forbid"
        refuses unknown keys also where the model does not, as those of the wire.

        Raises SetupError in one line: file, line, key, expected value.
        """
        self.path, self._kind, self._what, self._secret = path, kind, what, secret
        raw = self._read(requires)
        self._refuse_words()
        try:
            self.value = kind.model_validate({**(defaults or {}), **raw}, context=dict(context or {}), extra=extra)
        except ValidationError as error:
            raise self._explain(error) from None

    def refusal(self, place: Place, message: str) -> SetupError:
        """Return the error for a problem at `place`."""
        line, key = _find(self._tree, place)
        return SetupError(f"{self.path}:{line}: {key or self._what}: {message}")

    def _refuse_words(self) -> None:
        for word in find_words(self._tree, self._kind):
            shown = "this" if word.keys[0] in self._secret else f"`{word.text}`"
            raise SetupError(f"{self.path}:{word.line}: {_format_keys(word.keys)}: {word.describe(shown)}")

    def _read(self, requires: str) -> dict[str, Any]:
        try:
            text = self.path.read_text(encoding="utf-8")
        except OSError as error:
            raise SetupError(f"{self.path}: cannot read the {self._what}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise SetupError(f"{self.path}: cannot read the {self._what}: it is not UTF-8") from None
        try:
            self._tree, raw = read_yaml(text)
        except NotYaml as error:
            raise SetupError(f"{self.path}:{error.line}: {error}") from None
        if not isinstance(raw, dict):
            raise SetupError(f"{self.path}:1: a {self._what} is a mapping with at least the key `{requires}`")
        return raw

    def _explain(self, error: ValidationError) -> SetupError:
        # An unknown key often causes the other errors (a misspelt required key): report it first.
        problems = sorted(error.errors(include_url=False), key=lambda e: e["type"] != "extra_forbidden")
        first = problems[0]
        is_secret = first["loc"][:1] and first["loc"][0] in self._secret
        line, key = _find(self._tree, first["loc"])
        problem = self._expected(first["type"], first["loc"]) or str(first["msg"]).removeprefix("Value error, ")
        problem = problem.replace("\n", " ")
        if first["type"] == "extra_forbidden":
            problem = f"unknown key; expected one of {', '.join(sorted(_keys_at(self._kind, first['loc'][:-1])))}"
            if is_secret and not is_named_like_a_setting(str(first["loc"][-1])):
                return SetupError(f"{self.path}:{line}: {_find(self._tree, first['loc'][:-1])[1]}: {problem}")
        elif first["type"] == "missing":
            problem = "this key is missing"
        elif first["type"] == "string_type" and not is_secret and (plain := _find_plain(self._tree, first["loc"])):
            key = key.removesuffix("[key]") + (plain.value if key.endswith("[key]") else "")
            return SetupError(f"{self.path}:{plain.start_mark.line + 1}: {key}: {_describe_plain(plain)}")
        elif first["type"] != "value_error" and not problem.startswith(key):
            problem += "" if is_secret else f", found {str(first['input'])[:60]!r}"
        return self.refusal(first["loc"], problem)

    def _expected(self, found: str, place: Place) -> str:
        """Return what is to stand where a value of another type does, in words of YAML; nothing for errors of other kinds."""
        expected = describe_type(found)
        has_keys = found in _NO_MAPPING and found != "dict_type"
        keys = ", ".join(sorted(_keys_at(self._kind, place))) if has_keys else ""
        return f"{expected} with some of the keys {keys}" if keys else expected


def describe_type(found: str) -> str:
    """Return in words of YAML what is to stand where a validation error of this type is; nothing for errors of other kinds."""
    if found in _NO_LIST:
        return "expected a list"
    return "expected a mapping" if found in _NO_MAPPING else ""


def _find(node: yaml.Node | None, place: Place) -> tuple[int, str]:
    """Return the line (from 1) of the deepest existing node of `place`, and its keys."""
    line, keys = 1, []
    for part in place:
        if isinstance(part, str):
            keys.append(part)
        if isinstance(node, yaml.MappingNode) and isinstance(part, str):
            hit = next(((k, v) for k, v in node.value if k.value == part), None)
            if hit is None:
                continue
            line, node = hit[0].start_mark.line + 1, hit[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
    return line, _format_keys(keys)


def _find_plain(node: yaml.Node | None, place: Place) -> yaml.ScalarNode | None:
    """Return the value (or the key) at `place` where it is written without quotes and YAML reads it as no text."""
    for at, part in enumerate(place):
        if isinstance(node, yaml.MappingNode):
            pairs = {str(key.value): (key, value) for key, value in node.value}
            keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.tag != _TEXT]
            if place[at + 1 :] == ("[key]",):
                return next(iter(keys), None)
            if isinstance(part, int):  # one item without a list around it
                continue
            node = pairs[str(part)][1] if str(part) in pairs else None
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
    return node if isinstance(node, yaml.ScalarNode) and node.tag != _TEXT and node.value else None


def _describe_plain(node: yaml.ScalarNode) -> str:
    kind = {BOOLEAN: "true or false"}.get(node.tag, f"a value of type {node.tag.rpartition(':')[2]}")
    return f"YAML reads `{node.value[:40]}` as {kind}; put it in quotes"


def _format_keys(path: Iterable[str]) -> str:
    """Return keys as a path on one line."""
    return ".".join(part if part.isprintable() else repr(part) for part in path)


def _find_duplicate_keys(tree: yaml.Node | None) -> Iterator[tuple[int, str]]:
    """Yield line and path of duplicate keys: YAML would silently use the last."""
    for node, path in _nodes(tree):
        if isinstance(node, yaml.MappingNode):
            keys: set[str] = set()
            for key, _ in node.value:
                name = str(key.value)
                if name in keys:
                    yield key.start_mark.line + 1, _format_keys((*path, name))
                keys.add(name)


def _nodes(tree: yaml.Node | None) -> Iterator[tuple[yaml.Node, tuple[str, ...]]]:
    """Yield every node once, with its keys."""
    waiting: list[tuple[yaml.Node | None, tuple[str, ...]]] = [(tree, ())]
    known: set[int] = set()  # an alias is the same node as its anchor, and may be nested in it
    while waiting:
        node, path = waiting.pop()
        if node is None or id(node) in known:
            continue
        known.add(id(node))
        yield node, path
        if isinstance(node, yaml.SequenceNode):
            waiting += [(item, path) for item in node.value]
        if isinstance(node, yaml.MappingNode):
            waiting += [(key, path) for key, _ in node.value]
            waiting += [(value, (*path, str(key.value))) for key, value in node.value]


def _keys_at(kind: Any, place: Place) -> set[str]:
    for part in place:
        kind = _model_in(kind.model_fields[part].annotation if _is_field(kind, part) else kind)
    return set(kind.model_fields) if hasattr(kind, "model_fields") else set()


def _is_field(kind: Any, part: int | str) -> bool:
    return isinstance(part, str) and part in getattr(kind, "model_fields", {})


def _model_in(annotation: Any) -> Any:
    """Return the first model inside Optional, list, tuple, dict or Annotated."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in {typing.Union, types.UnionType, list, tuple, dict, Annotated}:
        return next((found for arg in get_args(annotation) if (found := _model_in(arg))), None)
    return None
