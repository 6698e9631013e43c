"""A request in the topic of retries is the original with its coordinates beside it."""

from types import SimpleNamespace

import pytest

from murmura.runtime.errors import RecordError
from murmura.runtime.wire.retry_record import Coordinates, Retry, read_retry, retry_message
from murmura.schemas.envelope import ATTEMPTS, NOT_BEFORE, ORIGINAL_OFFSET, RETRY_HEADERS

RETRY = Retry("desk", Coordinates("in", 2, 41, 1_767_606_000_123), "analysis", 1_767_606_060.5, 3)


def record(headers=(("ce_id", b"7"), ("x", None)), topic="in"):
    return SimpleNamespace(
        topic=topic, partition=2, offset=41, timestamp=5, key=b"k", value=b'{"text": "a"}', headers=tuple(headers)
    )


def as_record(message):
    return record(message.headers, message.topic)


def test_what_is_written_is_read_back():
    assert read_retry(as_record(retry_message(record(), RETRY, "retries", 1))) == RETRY


def test_the_original_keeps_its_bytes():
    message = retry_message(record(), RETRY, "retries", 1)
    assert (message.key, message.value, message.partition) == (b"k", b'{"text": "a"}', 1)
    assert message.headers[:2] == [("ce_id", b"7"), ("x", b"")]


def test_a_later_round_replaces_what_an_earlier_one_wrote():
    first = as_record(retry_message(record(), RETRY, "retries"))
    second = retry_message(first, RETRY._replace(attempts=4), "retries")
    assert [name for name, _ in second.headers if name == ATTEMPTS] == [ATTEMPTS]
    assert read_retry(as_record(second)).attempts == 4


def test_without_an_agent_all_are_asked():
    assert read_retry(as_record(retry_message(record(), RETRY._replace(only_agent=None), "r"))).only_agent is None


@pytest.mark.parametrize("name", sorted(RETRY_HEADERS - {"murmura_only_agent"}))
def test_a_missing_header_is_named(name):
    headers = [pair for pair in retry_message(record(), RETRY, "r").headers if pair[0] != name]
    with pytest.raises(RecordError, match=f"{name} is missing"):
        read_retry(record(headers))


@pytest.mark.parametrize(("name", "raw"), [(ATTEMPTS, b"two"), (NOT_BEFORE, b"soon"), (ORIGINAL_OFFSET, None)])
def test_a_header_that_is_none_of_ours_is_refused(name, raw):
    headers = [(each, raw if each == name else value) for each, value in retry_message(record(), RETRY, "r").headers]
    with pytest.raises(RecordError) as refused:
        read_retry(record(headers))
    assert refused.value.reason == "bad_header"
