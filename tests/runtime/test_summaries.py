"""Records in a line for people, whatever is in them."""

import json

import pytest
from aiokafka.structs import ConsumerRecord
from hypothesis import given
from hypothesis import strategies as st

from murmura.runtime.cli.records.tail import _json_line, _pretty_line
from murmura.runtime.wire.summary import output_line, record_line, safe


@pytest.mark.parametrize(
    ("output", "line"),
    [
        (
            {"kind": "classification", "label": "fee", "score": 0.9312, "alternatives": [], "abstained": False},
            "fee 0.93",
        ),
        (
            {
                "kind": "classification",
                "label": None,
                "score": 0.8,
                "alternatives": [],
                "abstained": True,
                "reason": "out_of_scope",
            },
            "? out_of_scope 0.80",
        ),
        (
            {"kind": "multi_label", "labels": [{"label": "a", "score": 0.5}, {"label": "b", "score": 1}]},
            "a 0.50, b 1.00",
        ),
        ({"kind": "multi_label", "labels": []}, "-"),
        ({"kind": "tagging", "spans": [{"label": "amount", "text": "£20"}]}, "£20 (amount)"),
        ({"kind": "later"}, '{"kind": "later"}'),
    ],
)
def test_each_kind_of_output_has_its_line(output, line):
    assert output_line(output) == line


def test_a_result_is_its_agent_and_outputs():
    output = {"kind": "classification", "label": "fee", "score": 0.9, "abstained": False}
    value = json.dumps({"agent": "classification", "outputs": {"intent": output}, "truncated": True}).encode()
    assert record_line(value, []) == "classification  intent: fee 0.90  (truncated)"


def test_a_result_without_a_prediction_says_that_it_expired():
    value = json.dumps({"agent": "analysis", "status": "expired", "outputs": {}, "truncated": False}).encode()
    assert record_line(value, []) == "analysis  expired"


def test_a_dead_letter_is_its_reason_and_place_and_not_its_payload():
    headers = [
        ("murmura_dl_reason", b"not_json"),
        ("murmura_dl_message", b"expected a value"),
        ("murmura_dl_topic", b"t"),
        ("murmura_dl_partition", b"1"),
        ("murmura_dl_offset", b"7"),
    ]
    assert record_line(b"secret", headers) == "dead letter not_json: expected a value  (t/1/7)"


@pytest.mark.parametrize("value", [None, b"", b"\xff\xfe", b"[1, 2]", b"null", b"[" * 100_000])
def test_any_other_value_is_a_line_too(value):
    assert "\n" not in record_line(value, [])


def test_nothing_that_a_terminal_obeys_gets_through():
    assert safe("\x1b[2Jred\x07\r\nline") == " [2Jred   line"
    assert safe("abcdef", 4) == "abc…"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
KINDS = st.sampled_from(["classification", "multi_label", "tagging", "later"])
NAMES = ("label", "labels", "score", "abstained", "reason", "spans", "text")
ANSWERS = st.fixed_dictionaries({"kind": KINDS}, optional=dict.fromkeys(NAMES, JSON)) | JSON
RESULTS = st.fixed_dictionaries({"agent": JSON, "outputs": st.dictionaries(st.text(max_size=3), ANSWERS) | JSON})
VALUES = st.none() | st.binary(max_size=50) | RESULTS.map(lambda value: json.dumps(value).encode())
HEADERS = st.lists(st.tuples(st.sampled_from(["a", "murmura_dl_reason", "murmura_dl_topic"]), st.none() | st.binary()))


@given(VALUES, HEADERS, st.none() | st.binary(max_size=8), st.integers(-(2**63), 2**63 - 1))
def test_a_record_of_any_shape_is_one_line_that_can_be_written(value, headers, key, timestamp):
    record = ConsumerRecord("t", 0, 1, timestamp, 0, key, value, None, -1, -1, tuple(headers))
    for line in (_pretty_line(record), _json_line(value)):
        assert "\n" not in line
        line.encode()


@pytest.mark.parametrize("value", [b'{"a": "\\ud800"}', b'["\\udfff \xc3\xa9"]'])
def test_half_of_a_surrogate_pair_stays_json(value):
    assert json.loads(_json_line(value)) == json.loads(value)


@pytest.mark.parametrize("timestamp", [1_764_300_000_000_000, -1, 2**63 - 1])
def test_a_timestamp_in_other_units_is_shown_all_the_same(timestamp):
    assert _pretty_line(ConsumerRecord("t", 0, 1, timestamp, 0, None, None, None, -1, -1, ()))


def test_a_result_with_an_answer_of_another_shape_is_a_line():
    assert record_line(b'{"agent":"x","outputs":{"t":1}}', []) == "x  t: 1"
