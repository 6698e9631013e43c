"""What is sent again of a dead letter, and what is not."""

from datetime import UTC, datetime

import pytest
from aiokafka.structs import ConsumerRecord
from hypothesis import given
from hypothesis import strategies as st

from murmura.runtime.errors import RecordError
from murmura.runtime.redrive.rules import ORIGINAL, Redrive, Refusal
from murmura.runtime.wire.dead_letter import cut, dead_letter
from murmura.runtime.wire.dead_letter_records import (
    Letter,
    Selection,
    is_marker,
    marked_offset,
    marker,
    original_record,
    read_letter,
)
from murmura.runtime.wire.message import Message
from murmura.runtime.wire.request import read_request
from murmura.runtime.wire.retry_record import Coordinates, Retry, read_retry, retry_message
from murmura.schemas.deadletter import DeadLetterReason

DEAD, RETRIES = "m.deadletters", "m.retries"
names = st.text(st.characters(codec="utf-8"), max_size=8).map(lambda text: "x" + text)
headers = st.lists(st.tuples(names, st.none() | st.binary(max_size=9)), max_size=4).map(tuple)


def record(topic="in", partition=2, offset=41, value=b'{"text": "a"}', key=b"k", headers=()) -> ConsumerRecord:
    return ConsumerRecord(topic, partition, offset, 1_700_000_000_000, 0, key, value, None, -1, -1, tuple(headers))


def lying(message: Message, offset: int = 7) -> ConsumerRecord:
    """A message as it lies in its topic."""
    return record(message.topic, message.partition or 0, offset, message.value, message.key, message.headers)


def letter(original=None, *, reason="agent_failed", agent="a", spring=None, attempts=1) -> Letter:
    error = RecordError(DeadLetterReason(reason), "why")
    made = dead_letter(
        original or record(), error, DEAD, agent=agent, attempts=attempts, app="desk", spring_group=spring
    )
    found = lying(made)
    return Letter(found, read_letter(found))


def rules(**more) -> Redrive:
    return Redrive(**{"retries": RETRIES, "target": RETRIES, "app": "other", "agents": {"a"}} | more)


@given(headers, st.none() | st.binary(max_size=20), st.none() | st.binary(max_size=9), st.sampled_from([None, "g"]))
def test_the_original_comes_back_as_it_was(own, value, key, spring):
    original = record(value=value, key=key, headers=own)
    found = original_record(letter(original, spring=spring))
    assert (found.topic, found.partition, found.offset, found.timestamp) == ("in", 2, 41, 1_700_000_000_000)
    assert (found.key, found.value) == (key, value)
    assert found.headers == tuple((name, raw or b"") for name, raw in own)


def test_springs_headers_that_came_with_the_original_stay():
    own = (("kafka_dlt-original-topic", b"elsewhere"),)
    assert original_record(letter(record(headers=own))).headers == own


@pytest.mark.parametrize("target", [ORIGINAL, "elsewhere"])
@pytest.mark.parametrize(
    ("value", "own"),
    [
        (b'{"text": "a"}', ()),
        (b'{"text": "a", "id": "own"}', ()),
        (b'{"text": "a", "id": "own"}', (("ce_id", b"event"),)),
        (b'{"text": "a"}', (("murmura_request_id", b"first"), ("ce_source", b"shop"))),
    ],
)
def test_a_record_sent_to_a_topic_keeps_request_id_and_source(target, value, own):
    original = record(value=value, headers=own)
    before = read_request(original, 1000)
    sent = rules(target=target).message(letter(original), 0.0)
    after = read_request(lying(sent, 99), 1000)
    assert (after.request_id, after.source) == (before.request_id, before.source)
    assert (sent.value, sent.key) == (value, b"k")
    assert (sent.topic, sent.partition) == (("in", 2) if target == ORIGINAL else ("elsewhere", None))


def test_a_record_that_cannot_be_read_keeps_the_id_of_its_place():
    sent = rules(target=ORIGINAL).message(letter(record(value=b"{"), reason="not_json", agent=None), 0.0)
    assert dict(sent.headers)["murmura_request_id"] == b"in/2/41/1700000000000"


def test_a_retry_asks_the_agent_that_failed_and_counts_on():
    sent = rules().message(letter(attempts=3), 1_700_000_100.0)
    found = read_retry(lying(sent))
    assert found == Retry("desk", Coordinates("in", 2, 41, 1_700_000_000_000), "a", 1_700_000_100.0, 3)
    assert (sent.topic, sent.partition) == (RETRIES, 0)


def test_a_dead_letter_of_a_retried_record_leads_to_the_first_topic():
    first = retry_message(record(), Retry("desk", Coordinates("in", 2, 41, 5), "a", 1.0, 2), RETRIES, 1)
    found = original_record(letter(lying(first)))
    assert (found.topic, found.partition, found.offset, found.timestamp, found.headers) == ("in", 2, 41, 5, ())


def cut_letter() -> Letter:
    made = dead_letter(record(), RecordError(DeadLetterReason.TOO_LARGE, "why"), DEAD)
    found = lying(cut(made))
    return Letter(found, read_letter(found))


@pytest.mark.parametrize(
    ("found", "more", "why"),
    [
        (cut_letter(), {}, Refusal.CUT),
        (letter(record(value=None), reason="unreadable", agent=None), {}, Refusal.UNREADABLE),
        (letter(record(topic=RETRIES)), {}, Refusal.NO_ORIGINAL),
        (letter(record(headers=[("murmura_app", b"x")])), {}, Refusal.NO_ORIGINAL),
        (letter(), {"ordered_topics": {"in"}}, Refusal.ORDERED),
        (letter(), {"ordered_agents": {"a"}}, Refusal.ORDERED),
        (letter(), {"ordered_agents": {"a"}, "out_of_order": True}, None),
        (letter(agent="stranger"), {}, Refusal.UNKNOWN_AGENT),
        (letter(agent="stranger"), {"out_of_order": True}, None),
        (letter(agent=None, reason="not_json"), {}, None),
        (letter(), {}, None),
    ],
)
def test_what_cannot_be_sent_or_would_break_an_order_is_refused(found, more, why):
    assert rules(**more).refusal(found) is why


@given(st.integers(0, 9), st.integers(0, 2**40))
def test_a_marker_names_its_letter_and_is_no_letter(partition, offset):
    dead = letter().record
    dead = record(dead.topic, partition, offset, dead.value, dead.key, dead.headers)
    made = lying(marker(dead), offset + 5)
    assert (made.partition, made.value, is_marker(made), read_letter(made)) == (partition, None, True, None)
    assert marked_offset(made) == offset
    moved = record("other.deadletters", partition, offset, None, made.key, made.headers)
    assert marked_offset(moved) is None


@pytest.mark.parametrize(
    ("selection", "has"),
    [
        (Selection(), True),
        (Selection(reasons=("not_json",)), False),
        (Selection(reasons=("not_json", "agent_failed")), True),
        (Selection(agents=("-",)), False),
        (Selection(agents=("a",), topics=("in",)), True),
        (Selection(topics=("out",)), False),
        (Selection(offsets={0: (7, 8)}), True),
        (Selection(offsets={0: (8, 9)}), False),
        (Selection(offsets={1: (0, 99)}), False),
        (Selection(since=datetime(2020, 1, 1, tzinfo=UTC).timestamp()), True),
        (Selection(until=datetime(2020, 1, 1, tzinfo=UTC).timestamp()), False),
    ],
)
def test_letters_are_selected_by_what_they_say_and_where_they_lie(selection, has):
    assert selection.has(letter()) is has
    assert Selection().is_all
