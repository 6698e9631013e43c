"""Records in a line for people, whatever is in them."""

import json

import pytest

from murmura.runtime.summaries import output_line, record_line, safe


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
