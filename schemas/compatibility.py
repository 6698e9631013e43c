"""Finds changes of a JSON Schema that make old records unreadable or change their meaning.

The rule of the wire: a field may be added with a default, never renamed, retyped or made required. The check is
structural over what pydantic writes: objects, arrays, unions, references, enumerations and limits.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

Schema = dict[str, Any]

# Limits that may only be loosened.
_FLOORS: Final = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_CEILINGS: Final = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
_FORMS: Final = ("pattern", "format", "multipleOf", "uniqueItems")
_MISSING: Final = object()


def incompatibilities(old: Schema, new: Schema) -> list[str]:
    """Return what `new` refuses, drops or reads differently of the records that `old` allows; empty if nothing."""
    return list(_Comparison(old, new).compare(old, new, "$"))


class _Comparison:
    """Two documents and the pairs of definitions already being compared (a schema may refer to itself)."""

    def __init__(self, old: Schema, new: Schema) -> None:
        self._old = old
        self._new = new
        self._open: set[tuple[str, str]] = set()

    def compare(self, old: Schema, new: Schema, path: str) -> Iterator[str]:
        pair = (old.get("$ref", ""), new.get("$ref", ""))
        if all(pair):
            if pair in self._open:
                return
            self._open.add(pair)
        old, new = _resolve(self._old, old), _resolve(self._new, new)
        old_members, new_members = _members(old), _members(new)
        if len(old_members) > 1 or len(new_members) > 1:
            yield from self._union(old_members, new_members, path)
        else:
            yield from self._one(old_members[0], new_members[0], path)
        self._open.discard(pair)

    def _union(self, old: list[Schema], new: list[Schema], path: str) -> Iterator[str]:
        """Check that a new member reads each old member; with only one candidate, yield its problems."""
        for member in old:
            name = _name(_resolve(self._old, member))
            found = [list(self.compare(member, candidate, path)) for candidate in new]
            if all(found):
                same = [
                    f for f, candidate in zip(found, new, strict=True) if _name(_resolve(self._new, candidate)) == name
                ]
                yield from same[0] if len(same) == 1 else [f"{path}: union member {name} was removed"]

    def _one(self, old: Schema, new: Schema, path: str) -> Iterator[str]:
        yield from _types(old, new, path)
        yield from _values(old, new, path)
        yield from _limits(old, new, path)
        yield from self._object(old, new, path)
        for keyword, step in (("items", "[]"), ("additionalProperties", ".*")):
            yield from self._inner(old.get(keyword, True), new.get(keyword, True), path + step)

    def _inner(self, old: Schema | bool, new: Schema | bool, path: str) -> Iterator[str]:
        if new is True or old is False:
            return
        if new is False or old is True:
            yield f"{path}: what was free is restricted"
        else:
            yield from self.compare(old, new, path)

    def _object(self, old: Schema, new: Schema, path: str) -> Iterator[str]:
        fields, kept = old.get("properties", {}), new.get("properties", {})
        required = set(new.get("required", ())) - set(old.get("required", ()))
        for name in sorted(required):
            yield f"{path}.{name}: {'made required' if name in fields else 'added without a default'}"
        for name, field in fields.items():
            if name not in kept:
                yield f"{path}.{name}: removed or renamed"
                continue
            yield from self.compare(field, kept[name], f"{path}.{name}")
            before, after = field.get("default", _MISSING), kept[name].get("default", _MISSING)
            if _MISSING not in (before, after) and before != after:
                yield f"{path}.{name}: default changed from {before!r} to {after!r}"


def _resolve(document: Schema, schema: Schema) -> Schema:
    while "$ref" in schema:
        found: Any = document
        for step in schema["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        schema = found
    return schema


def _members(schema: Schema) -> list[Schema]:
    members: list[Schema] = schema.get("anyOf") or schema.get("oneOf") or [schema]
    return members


def _name(schema: Schema) -> str:
    """Return a name for a member of a union: its `kind`, its title or its type."""
    kind = schema.get("properties", {}).get("kind", {}).get("const")
    return str(kind or schema.get("title") or schema.get("type", "any"))


def _types(old: Schema, new: Schema, path: str) -> Iterator[str]:
    before, after = old.get("type"), new.get("type")
    if after is not None and before != after and (before, after) != ("integer", "number"):
        yield f"{path}: type changed from {before or 'any'} to {after}"


def _values(old: Schema, new: Schema, path: str) -> Iterator[str]:
    before, after = _allowed_values(old), _allowed_values(new)
    if after is None:
        return
    if before is None:
        yield f"{path}: restricted to {after}"
        return
    for value in before:
        if value not in after:
            yield f"{path}: value {value!r} was removed"


def _allowed_values(schema: Schema) -> list[Any] | None:
    if "const" in schema:
        return [schema["const"]]
    values: list[Any] | None = schema.get("enum")
    return values


def _limits(old: Schema, new: Schema, path: str) -> Iterator[str]:
    narrower: tuple[tuple[tuple[str, ...], Callable[[Any, Any], bool]], ...] = (
        (_FLOORS, lambda before, after: after > before),
        (_CEILINGS, lambda before, after: after < before),
        (_FORMS, lambda before, after: before != after),
    )
    for keywords, is_narrower in narrower:
        for keyword in keywords:
            if keyword not in new:
                continue
            if keyword not in old:
                yield f"{path}: {keyword} {new[keyword]} is new"
            elif is_narrower(old[keyword], new[keyword]):
                yield f"{path}: {keyword} narrowed from {old[keyword]} to {new[keyword]}"
