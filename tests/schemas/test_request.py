"""What a request may hold, what is refused, what is left alone."""

import json

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from murmura.schemas.generate import schema_of
from murmura.schemas.request import Request

texts = st.text(min_size=1).filter(lambda text: not text.isspace())
requests = st.fixed_dictionaries(
    {"text": texts},
    optional={
        "tasks": st.none() | st.lists(st.text(min_size=1), min_size=1),
        "id": st.none() | st.text(min_size=1),
        "metadata": st.none() | st.dictionaries(st.text(), st.text(), max_size=16),
        "text_pair": st.none() | st.text(min_size=1).filter(lambda text: not text.isspace()),
    },
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(requests)
def test_a_request_survives_the_wire(value):
    assert Request.model_validate_json(json.dumps(value)) == Request.model_validate(value)


@given(requests, st.dictionaries(st.text().map(lambda name: f"x_{name}"), json_values, max_size=3))
def test_unknown_fields_are_ignored_and_never_echoed(value, unknown):
    read = Request.model_validate({**value, **unknown})
    assert read == Request.model_validate(value)
    assert not set(read.model_dump()) & set(unknown)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(Request.model_fields, json_values)))
def test_what_the_model_reads_its_json_schema_allows(value):
    try:
        Request.model_validate_json(json.dumps(value))
    except ValidationError:
        return
    jsonschema.validate(value, schema_of("request.v1"))


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ({}, "text"),
        ({"text": None}, "text"),
        ({"text": 5}, "text"),
        ({"text": ""}, "text"),
        ({"text": " \n\t"}, "text"),
        ({"text": "\ud800"}, "text"),
        ({"text": "a", "tasks": "intent"}, "tasks"),
        ({"text": "a", "tasks": []}, "tasks"),
        ({"text": "a", "tasks": [1]}, "tasks"),
        ({"text": "a", "tasks": [""]}, "tasks"),
        ({"text": "a", "id": ""}, "id"),
        ({"text": "a", "id": 17}, "id"),
        ({"text": "a", "metadata": {"a": 1}}, "metadata"),
        ({"text": "a", "metadata": {str(i): "" for i in range(17)}}, "metadata"),
        ({"text": "a", "text_pair": " "}, "text_pair"),
        ({"text": "a", "text_pair": 1}, "text_pair"),
    ],
)
def test_a_wrong_field_is_refused_by_its_name(value, place):
    with pytest.raises(ValidationError) as refused:
        Request.model_validate(value)
    assert refused.value.errors()[0]["loc"][0] == place


def test_the_shortest_request_is_enough():
    assert Request.model_validate_json('{"text": "hello"}').model_dump(exclude_none=True) == {"text": "hello"}
