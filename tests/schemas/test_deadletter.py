"""The headers of a dead letter and the closed list of its reasons."""

import struct
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from murmura.schemas.deadletter import DeadLetter, DeadLetterReason
from murmura.schemas.deadletter_spring import SPRING_HEADERS, has_spring_headers, spring_headers
from murmura.schemas.envelope import READ_HEADERS, REQUEST_HEADERS, app_source, result_type

NOON = datetime(2025, 1, 31, 12, tzinfo=UTC)
letters = st.builds(
    dict,
    reason=st.sampled_from(DeadLetterReason),
    message=st.text(),
    agent=st.none() | st.text(min_size=1),
    topic=st.text(min_size=1),
    partition=st.integers(0, 10_000),
    offset=st.integers(0, 2**62),
    timestamp=st.integers(0, 2**42),
    attempts=st.integers(1, 9),
    app=st.none() | st.text(min_size=1),
    time=st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),
).map(DeadLetter.model_validate)


def test_the_headers_are_those_of_the_contract():
    letter = DeadLetter(
        reason=DeadLetterReason.NOT_JSON,
        message="the value is not JSON",
        agent="analysis",
        topic="support.tickets",
        partition=2,
        offset=41,
        timestamp=1_700_000_000_000,
        attempts=2,
        time=NOON,
    )
    assert letter.headers() == [
        ("murmura_dl_reason", b"not_json"),
        ("murmura_dl_message", b"the value is not JSON"),
        ("murmura_dl_agent", b"analysis"),
        ("murmura_dl_topic", b"support.tickets"),
        ("murmura_dl_partition", b"2"),
        ("murmura_dl_offset", b"41"),
        ("murmura_dl_timestamp", b"1700000000000"),
        ("murmura_dl_attempts", b"2"),
        ("murmura_dl_time", b"2025-01-31T12:00:00Z"),
        ("murmura_dl_version", b"1"),
    ]


@given(letters)
def test_a_dead_letter_is_read_back_from_its_headers(letter):
    assert DeadLetter.from_headers([("other", None), *letter.headers(), ("murmura_dl_cut", b"1")]) == letter


@given(letters, st.data())
def test_headers_with_one_missing_null_or_not_utf8_are_no_dead_letter(letter, data):
    headers = letter.headers()
    required = [
        place for place, (name, _) in enumerate(headers) if name.endswith(("reason", "topic", "offset", "time"))
    ]
    place = data.draw(st.sampled_from(required))
    name = headers[place][0]
    for wrong in ([], [(name, None)], [(name, b"\xff")]):
        with pytest.raises(ValueError, match="murmura_dl_"):
            DeadLetter.from_headers([*headers[:place], *wrong, *headers[place + 1 :]])


@given(st.text())
def test_a_message_is_short(message):
    letter = DeadLetter(
        reason=DeadLetterReason.INVALID, message=message, topic="t", partition=0, offset=0, timestamp=0, time=NOON
    )
    assert len(letter.message) <= 300
    assert letter.message == message or letter.message.endswith("…")


def test_the_reasons_are_those_of_the_contract():
    assert {reason.value for reason in DeadLetterReason} == {
        "not_json",
        "not_utf8",
        "no_value",
        "invalid",
        "unknown_task",
        "too_large",
        "bad_header",
        "agent_failed",
        "model_failed",
        "expired_retries",
        "hop_limit",
        "unreadable",
        "set_aside",
    }


def test_the_envelope_is_that_of_the_contract():
    assert result_type("analysis") == "murmura.analysis.result.v1"
    assert app_source("shop") == "murmura/shop"
    assert {"ce_id", "ce_source", "traceparent", "murmura_request_id"} <= READ_HEADERS
    assert "murmura_deadline" in REQUEST_HEADERS - READ_HEADERS


@given(letters, st.text(max_size=20))
def test_springs_numbers_are_big_endian_and_its_text_is_ours(letter, group):
    found = dict(spring_headers(letter, group))
    assert set(found) == set(SPRING_HEADERS)
    assert struct.unpack(">i", found["kafka_dlt-original-partition"]) == (letter.partition,)
    assert struct.unpack(">q", found["kafka_dlt-original-offset"]) == (letter.offset,)
    assert struct.unpack(">q", found["kafka_dlt-original-timestamp"]) == (letter.timestamp,)
    assert found["kafka_dlt-original-topic"].decode() == letter.topic
    assert found["kafka_dlt-exception-message"].decode() == letter.message
    assert found["kafka_dlt-exception-fqcn"].decode() == f"murmura.{letter.reason}"
    assert found["kafka_dlt-original-consumer-group"].decode() == group


@given(letters, letters, st.text(max_size=20))
def test_headers_of_another_dead_letter_are_not_taken_for_ours(letter, other, group):
    headers = spring_headers(letter, group)
    assert has_spring_headers(letter, headers)
    same = dict(spring_headers(other, "")) == dict(spring_headers(letter, ""))
    assert has_spring_headers(other, headers) is same


@given(letters, st.text(max_size=20))
def test_springs_headers_do_not_disturb_the_reading_of_ours(letter, group):
    assert DeadLetter.from_headers([*letter.headers(), *spring_headers(letter, group)]) == letter
