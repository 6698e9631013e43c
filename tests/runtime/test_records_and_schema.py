"""The fast reader of requests and the contract's model give the same verdict on everything."""

import json

from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from murmura.runtime.errors import RecordError
from murmura.runtime.wire.request_body import read_body
from murmura.schemas.request import Request

FIELDS = ("text", "tasks", "id", "metadata", "text_pair", "other")
scalars = st.none() | st.booleans() | st.integers(-3, 3) | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = scalars | st.lists(scalars, max_size=3) | st.dictionaries(st.text(), scalars, max_size=18)
likely = st.fixed_dictionaries(
    {"text": st.text(min_size=1)},
    optional={
        "tasks": st.lists(st.text(), max_size=3) | values,
        "id": st.text() | values,
        "metadata": st.dictionaries(st.text(), st.text(), max_size=18) | values,
        "text_pair": st.none() | st.text(),
    },
)


@settings(max_examples=300)
@given(likely | st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, values)) | values)
@example({"text": "\u2003"})
@example({"text": "a", "id": "ä" * 257})
@example({"text": "a", "id": "ä" * 256})
@example({"text": "a", "metadata": {str(i): "" for i in range(17)}})
def test_both_accept_or_both_refuse(value):
    raw = json.dumps(value).encode()
    try:
        expected = Request.model_validate_json(raw)
    except ValidationError:
        expected = None
    try:
        found = read_body(raw)
    except RecordError:
        found = None
    assert (found is None) == (expected is None), value
    if expected is not None:
        assert (found.text, found.tasks, found.id, found.metadata, found.text_pair) == (
            expected.text,
            expected.tasks,
            expected.id,
            expected.metadata,
            expected.text_pair,
        )
