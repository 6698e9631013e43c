"""Requests as other programs write them: at a field path, as a structured CloudEvent, behind a schema registry's frame."""

import base64
import json
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from murmura.runtime.agent.routes import configure_agents
from murmura.runtime.errors import RecordError, SetupError
from murmura.runtime.field_paths import FieldPath, FieldPaths
from murmura.runtime.settings.settings import Settings
from murmura.runtime.wire.request import read_request
from murmura.schemas.envelope import READ_HEADERS
from murmura.schemas.ids import prediction_id

LIMIT = 100_000
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda text: not text.isspace())


def record(value, *headers):
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return SimpleNamespace(topic="in", partition=1, offset=2, timestamp=3, key=None, value=raw, headers=headers)


def fields(**paths):
    return FieldPaths({name: FieldPath.parse(path) for name, path in paths.items()})


def refused(*args, **more):
    with pytest.raises(RecordError) as error:
        read_request(*args, **more)
    return error.value.reason, str(error.value)


# -- field paths ---------------------------------------------------------------------------------------------------------


def test_text_and_id_are_taken_from_where_the_topic_has_them():
    value = {"payload": {"body": "where is it?"}, "meta": [{"id": 17}]}
    request = read_request(record(value), LIMIT, fields=fields(text="$.payload.body", id="$.meta[0].id"))
    assert (request.text, request.request_id, request.value) == ("where is it?", "17", json.dumps(value).encode())


def test_what_has_no_path_lies_at_the_top():
    value = {"body": "a", "id": "7", "tasks": ["intent"], "metadata": {"k": "v"}}
    request = read_request(record(value), LIMIT, fields=fields(text="$.body"))
    assert (request.request_id, request.tasks, request.metadata) == ("7", ("intent",), {"k": "v"})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({}, "`text` at `$.a.b` is missing"),
        ({"a": "secret"}, "`text` at `$.a.b` is missing"),
        ({"a": {"b": None}}, "`text` at `$.a.b` is missing"),
        ({"a": {"b": 5}}, "`text` at `$.a.b`: Expected `str`, got `int`"),
        ({"a": {"b": " "}}, "`text` at `$.a.b` is empty"),
        (["secret"], "`text` at `$.a.b` is missing"),
        ({"a": {"b": "t"}, "tasks": "secret"}, "`tasks`: Expected `array | null`, got `str`"),
    ],
)
def test_what_is_wrong_names_the_path_and_never_the_value(value, message):
    assert refused(record(value), LIMIT, fields=fields(text="$.a.b")) == ("invalid", message)


@given(st.lists(st.sampled_from(["a", "b c", "d-e", "é"]) | st.integers(0, 3), min_size=1, max_size=5), TEXT)
def test_a_path_finds_what_was_put_at_its_place(steps, text):
    value = text
    for step in reversed(steps):
        value = {step: value} if isinstance(step, str) else [None] * step + [value]
    path = "$" + "".join(f"['{step}']" if isinstance(step, str) else f"[{step}]" for step in steps)
    assert FieldPath.parse(path).steps == tuple(steps)
    if isinstance(value, dict):
        assert read_request(record(value), LIMIT, fields=fields(text=path)).text == text


@pytest.mark.parametrize(
    "path", ["", "$", "payload.body", "$.", "$..a", "$.a[", "$.a[-1]", "$.a b", "$.a.*", "$['']", 7]
)
def test_what_is_no_path_is_refused_when_the_settings_are_read(path):
    with pytest.raises(ValueError, match=r"expected a path such as|valid string"):
        Settings(inputs={"in": {"text": path}})


def test_a_topic_that_nobody_reads_is_refused_at_start():
    with pytest.raises(SetupError, match=r"inputs\.other: no agent reads topic other here"):
        configure_agents(Settings(inputs={"other": {"text": "$.a"}}), [])


# -- CloudEvents -----------------------------------------------------------------------------------------------------------

STRUCTURED = ("content-type", b"application/cloudevents+json; charset=UTF-8")
EVENT = {"specversion": "1.0", "id": "e-1", "source": "/shop", "type": "ticket"}


def binary(data, **more):
    headers = {"ce_specversion": "1.0", "ce_id": "e-1", "ce_source": "/shop", "ce_type": "ticket", **more}
    return record(data, *((name, value.encode()) for name, value in headers.items()))


@given(
    st.fixed_dictionaries(
        {"text": TEXT}, optional={"id": st.text(min_size=1, max_size=9), "metadata": st.just({"a": "b"})}
    )
)
def test_an_event_in_structured_mode_is_the_request_of_binary_mode(data):
    expected = read_request(binary(data), LIMIT)
    encoded = base64.b64encode(json.dumps(data).encode()).decode()
    for event in ({**EVENT, "data": data}, {**EVENT, "data_base64": encoded}):
        found = read_request(record(event, STRUCTURED), LIMIT)
        assert (found.text, found.request_id, found.source) == (expected.text, "e-1", "/shop")
        assert found.metadata == expected.metadata
        assert prediction_id("a", found.source, found.request_id) == prediction_id("a", "/shop", "e-1")


def test_paths_lead_into_the_event_s_data_in_both_modes():
    data, paths = {"body": {"text": "a"}}, fields(text="$.body.text")
    assert read_request(binary(data), LIMIT, fields=paths).text == "a"
    assert read_request(record({**EVENT, "data": data}, STRUCTURED), LIMIT, fields=paths).text == "a"


def test_the_trace_of_an_event_goes_on():
    trace = "00-" + "1" * 32 + "-" + "2" * 16 + "-01"
    event = {**EVENT, "data": {"text": "a"}, "traceparent": trace}
    assert read_request(record(event, STRUCTURED), LIMIT).traceparent == trace.encode()


def test_a_redriven_event_keeps_the_id_that_it_was_given():
    event = record({**EVENT, "data": {"text": "a"}}, STRUCTURED, ("murmura_request_id", b"r-9"))
    assert read_request(event, LIMIT).request_id == "r-9"


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ({**EVENT}, "the event has no `data`"),
        ({**EVENT, "id": ""}, "the event's `id` is empty"),
        ({**EVENT, "data": "<a/>", "datacontenttype": "text/xml"}, "the event's `datacontenttype` is not JSON"),
        ({**EVENT, "data_base64": "§"}, "the event's `data_base64` is not base64"),
        ({"id": "1", "source": "s", "type": "t", "data": {}}, "Object missing required field `specversion`"),
        ({**EVENT, "data": {"text": ""}}, "`text` is empty"),
        ({**EVENT, "id": "x" * 513, "data": {"text": "a"}}, "the event's `id` has 513 bytes, at most 512 are an id"),
    ],
)
def test_a_wrong_event_is_refused_by_name(event, message):
    assert refused(record(event, STRUCTURED), LIMIT) == ("invalid", message)


def test_a_batch_of_events_is_refused():
    headers = ("content-type", b"application/cloudevents-batch+json")
    assert refused(record([], headers), LIMIT) == ("invalid", "a batch of CloudEvents; send a record for each")


# -- a schema registry's frame ---------------------------------------------------------------------------------------------


@given(TEXT, st.integers(0, 2**32 - 1))
def test_json_behind_a_registry_s_frame_is_read(text, schema):
    framed = b"\0" + schema.to_bytes(4, "big") + json.dumps({"text": text}).encode()
    assert read_request(record(framed), LIMIT).text == text


@given(st.binary(min_size=1).filter(lambda raw: raw.lstrip()[:1] not in (b"{", b"[", b'"')), st.integers(0, 2**32 - 1))
def test_what_else_is_behind_a_frame_is_named(payload, schema):
    reason, message = refused(record(b"\0" + schema.to_bytes(4, "big") + payload), LIMIT)
    assert reason in {"not_json", "invalid"}  # a number is JSON, and no request
    assert reason == "invalid" or f"(schema {schema})" in message


def test_a_frame_goes_before_paths_too():
    framed = b"\0\0\0\0\x07" + json.dumps({"a": "text"}).encode()
    assert read_request(record(framed), LIMIT, fields=fields(text="$.a")).text == "text"


@pytest.mark.parametrize("raw", [b"\0", b"\0\0\0\0\x07", b"\0" * 9])
def test_a_frame_alone_is_no_request(raw):
    assert refused(record(raw), LIMIT)[0] == "not_json"


# -- ids and headers -------------------------------------------------------------------------------------------------------


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=100, max_size=600))
def test_an_id_has_at_most_512_bytes(request_id):
    too_long = len(request_id.encode()) > 512
    for asked, reason in (
        (record({"text": "a", "id": request_id}), "invalid"),
        (record({"text": "a"}, ("ce_id", request_id.encode())), "bad_header"),
        (record({"text": "a"}, ("murmura_request_id", request_id.encode())), "bad_header"),
    ):
        if too_long:
            found, message = refused(asked, LIMIT)
            assert found == reason
            assert request_id not in message
        else:
            assert read_request(asked, LIMIT).request_id == request_id


names = st.sampled_from(["ce_time", "ce_type", "ce_specversion", "content-type", "murmura_cause", "x", "é", ""])


@given(st.lists(st.tuples(names, st.none() | st.binary(max_size=9)), max_size=6))
def test_a_header_that_nobody_reads_is_never_a_reason(headers):
    assert not {name for name, _ in headers} & READ_HEADERS
    request = read_request(record({"text": "a", "id": "1"}, *headers), LIMIT)
    assert (request.request_id, request.source, request.headers) == ("1", "in", tuple(headers))
