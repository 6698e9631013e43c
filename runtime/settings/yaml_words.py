"""Finds `yes`, `no`, `on` and `off` without quotes where a text is expected: YAML reads them as true and false."""

import types
import typing
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Final, NamedTuple, get_args, get_origin

import yaml
from pydantic import BaseModel, PydanticSchemaGenerationError, TypeAdapter, ValidationError

BOOLEAN: Final = "tag:yaml.org,2002:bool"
_TEXT: Final = "\ue000"
"""A private character, which only a place for any text accepts."""


class Word(NamedTuple):
    """A word without quotes. `keys` leads to it, and ends with it where the word is itself a key."""

    line: int
    keys: tuple[str, ...]
    text: str
    expected: str

    def describe(self, shown: str) -> str:
        """Return what is wrong; `shown` stands for the word."""
        return f"YAML reads {shown} as true or false; {self.expected}"


def find_words(tree: yaml.Node | None, model: type[BaseModel], apart: Iterable[str] = ()) -> Iterator[Word]:
    """Yield each word that stands where `model` does not take true and false. What lies below the keys `apart` may be anything."""
    waiting: list[tuple[yaml.Node, Any, tuple[str, ...]]] = [(tree, model, ())] if tree is not None else []
    known: set[tuple[int, str]] = set()  # an alias is the same node as its anchor, and may be nested in it
    ignored = frozenset(apart)
    while waiting:
        node, kind, keys = waiting.pop(0)
        if (id(node), str(kind)) in known:
            continue
        known.add((id(node), str(kind)))
        if isinstance(node, yaml.ScalarNode) and _is_word(node) and (expected := _find_expected(kind)):
            yield Word(node.start_mark.line + 1, keys, node.value, expected)
        elif isinstance(node, yaml.SequenceNode):
            waiting += [(item, _item_of(kind), keys) for item in node.value]
        elif isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                name = str(key.value)
                if name not in ignored:
                    waiting.append((key, _key_of(kind), (*keys, name)))
                    waiting.append((value, _value_of(kind, name), (*keys, name)))


def _is_word(node: yaml.ScalarNode) -> bool:
    return node.tag == BOOLEAN and node.value.lower() not in {"true", "false"}


def _find_expected(kind: Any) -> str | None:
    """Return what to write instead of a word; None where true and false are meant."""
    is_number = not {int, float}.isdisjoint(_members(kind))
    if _accepts(kind, _TEXT):
        return "put it in quotes"
    if is_number:
        return "expected a number"
    return None if _accepts(kind, True) else "put it in quotes"


def _accepts(kind: Any, value: Any) -> bool:
    try:
        TypeAdapter(kind).validate_python(value)
    except (ValidationError, PydanticSchemaGenerationError):
        return False
    return True


def _members(kind: Any) -> Iterator[Any]:
    """Yield a type, or what it is a choice of."""
    if get_origin(kind) is Annotated:
        yield from _members(get_args(kind)[0])
    elif get_origin(kind) in {typing.Union, types.UnionType}:
        for each in get_args(kind):
            yield from _members(each)
    else:
        yield kind


def _item_of(kind: Any) -> Any:
    """Return the type of a list's items; what takes no list as such may still take one of its own type."""
    lists = (each for each in _members(kind) if get_origin(each) in {list, tuple, set, frozenset})
    return next((get_args(each)[0] for each in lists), kind)


def _key_of(kind: Any) -> Any:
    mappings = (each for each in _members(kind) if get_origin(each) is dict)
    return next((get_args(each)[0] for each in mappings), str)


def _value_of(kind: Any, key: str) -> Any:
    if key == "<<":
        return kind
    for each in (*_members(kind), *_members(_item_of(kind))):
        if isinstance(each, type) and issubclass(each, BaseModel) and key in each.model_fields:
            field = each.model_fields[key]
            return Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
        if get_origin(each) is dict:
            return get_args(each)[1]
    return Any
