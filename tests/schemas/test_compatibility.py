"""Which changes of a type old records survive: each refused one by name, each allowed one shown."""

from typing import Annotated, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, create_model

from murmura.schemas.compatibility import incompatibilities
from murmura.schemas.generate import MODELS, schema_of


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"


class Owner(BaseModel):
    name: str
    age: Annotated[int, Field(ge=0, le=150)] = 0
    town: str | None = None
    state: Literal["new", "known"] = "new"
    animals: list[Annotated[Cat | Dog, Field(discriminator="kind")]] = []
    tags: dict[str, str] = {}


def changed(**fields) -> type[BaseModel]:
    """Owner with some fields of another definition; None takes one away."""
    kept = {n: (f.annotation, f) for n, f in Owner.model_fields.items() if n not in fields}
    return create_model("Owner", **kept, **{n: f for n, f in fields.items() if f is not None})


def problems(new: type[BaseModel]) -> list[str]:
    return incompatibilities(Owner.model_json_schema(), new.model_json_schema())


class Goldfish(BaseModel):
    kind: Literal["goldfish"] = "goldfish"


class CatOfOneLife(BaseModel):
    kind: Literal["cat"] = "cat"


REFUSED = {
    "a removed field": (changed(town=None), ["$.town: removed or renamed"]),
    "a renamed field": (changed(town=None, city=(str | None, None)), ["$.town: removed or renamed"]),
    "a changed type": (changed(name=(int, ...)), ["$.name: type changed from string to integer"]),
    "a field made required": (changed(age=(int, ...)), ["$.age: made required"]),
    "a new field without a default": (changed(email=(str, ...)), ["$.email: added without a default"]),
    "a changed default": (changed(state=(Literal["new", "known"], "known")), ["$.state: default changed from 'new'"]),
    "a removed value": (changed(state=(Literal["new"], "new")), ["$.state: value 'known' was removed"]),
    "free text made a choice": (changed(name=(Literal["Ann"], ...)), ["$.name: restricted to ['Ann']"]),
    "a removed null": (changed(town=(str, ...)), ["$.town: made required", "$.town: union member null was removed"]),
    "a removed union member": (
        changed(animals=(list[Cat], [])),
        ["$.animals[]: union member dog was removed"],
    ),
    "a field removed inside a union member": (
        changed(animals=(list[Annotated[CatOfOneLife | Dog, Field(discriminator="kind")]], [])),
        ["$.animals[].lives: removed or renamed"],
    ),
    "a narrowed ceiling": (
        changed(age=(Annotated[int, Field(ge=0, le=99)], 0)),
        ["$.age: maximum narrowed from 150 to 99"],
    ),
    "a narrowed floor": (
        changed(age=(Annotated[int, Field(ge=1, le=150)], 0)),
        ["$.age: minimum narrowed from 0 to 1"],
    ),
    "a new limit": (changed(name=(Annotated[str, Field(max_length=9)], ...)), ["$.name: maxLength 9 is new"]),
    "a new pattern": (changed(name=(Annotated[str, Field(pattern="^a")], ...)), ["$.name: pattern ^a is new"]),
    "retyped values of a mapping": (changed(tags=(dict[str, int], {})), ["$.tags.*: type changed from string"]),
    "unknown fields refused": (
        create_model("Owner", __base__=Owner, __config__=None, __cls_kwargs__={"extra": "forbid"}),
        ["$.*: what was free is restricted"],
    ),
}

ALLOWED = {
    "nothing": Owner,
    "a new field with a default": changed(email=(str | None, None)),
    "a required field made optional": changed(name=(str, "")),
    "a wider type": changed(age=(Annotated[float, Field(ge=0, le=150)], 0)),
    "a null more": changed(name=(str | None, ...)),
    "a value more": changed(state=(Literal["new", "known", "gone"], "new")),
    "a union member more": changed(
        animals=(list[Annotated[Cat | Dog | Goldfish, Field(discriminator="kind")]], []),
    ),
    "a wider limit": changed(age=(Annotated[int, Field(ge=-1, le=200)], 0)),
    "a limit less": changed(age=(int, 0)),
    "a choice made free text": changed(state=(str, "new")),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_change_that_old_records_do_not_survive_is_refused(case):
    new, expected = REFUSED[case]
    found = problems(new)
    assert len(found) == len(expected)
    assert all(f.startswith(e) for f, e in zip(found, expected, strict=True)), found


@pytest.mark.parametrize("case", ALLOWED)
def test_a_change_that_old_records_survive_passes(case):
    assert problems(ALLOWED[case]) == []


def test_a_type_that_refers_to_itself_ends():
    class Node(BaseModel):
        children: list["Node"] = []

    assert incompatibilities(Node.model_json_schema(), Node.model_json_schema()) == []


@pytest.mark.parametrize("name", MODELS)
def test_our_own_types_are_compatible_with_themselves(name):
    assert incompatibilities(schema_of(name), schema_of(name)) == []


@pytest.mark.parametrize("name", MODELS)
@settings(deadline=None)
@given(data=st.data())
def test_taking_any_field_of_our_own_types_away_is_refused(name, data):
    old, new = schema_of(name), schema_of(name)
    field = data.draw(st.sampled_from(sorted(new["properties"])))
    del new["properties"][field]
    new["required"] = [r for r in new["required"] if r != field]
    assert incompatibilities(old, new) == [f"$.{field}: removed or renamed"]
