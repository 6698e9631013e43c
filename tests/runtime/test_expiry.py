"""When a request is too old: the rule, and the header in which a sender says so."""

import math
from datetime import UTC, datetime, timedelta, timezone

import pytest
from aiokafka.structs import ConsumerRecord
from hypothesis import example, given
from hypothesis import strategies as st
from test_request_body import record

from murmura.agents.classification import agent as classification
from murmura.runtime.agent.agent import Agent, agent
from murmura.runtime.agent.handler import Handler
from murmura.runtime.agent.routes import configure_agents, make_routes
from murmura.runtime.errors import RecordError, SetupError
from murmura.runtime.output.expiry import age_s, expiry_time, passed_limit
from murmura.runtime.settings.settings import Settings
from murmura.runtime.testing.fakes import FakeModel
from murmura.runtime.wire.request import read_headers, read_request
from murmura.schemas.envelope import DEADLINE
from murmura.schemas.manifest import TaskSpec

INTENT = TaskSpec(name="intent", kind="classification", labels=["a", "b"])
MOMENTS = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30))


def deadline_of(header: bytes | None) -> float | None:
    return read_request(record({"text": "x"}, (DEADLINE, header)), 1000).deadline


@pytest.mark.parametrize(
    ("timestamp", "deadline", "max_age_s", "limit"),
    [
        (90_000, None, None, None),
        (90_000, None, 10.0, None),
        (89_999, None, 10.0, "max_age"),
        (-1, None, 10.0, None),
        (0, None, 10.0, "max_age"),
        (200_000, None, 10.0, None),
        (90_000, 100.0, None, None),
        (90_000, 99.999, None, "deadline"),
        (90_000, 99.0, 1e9, "deadline"),
        (90_000, 1e9, 9.0, "max_age"),
        (90_000, 99.0, 9.0, "deadline"),
        (-1, 99.0, 9.0, "deadline"),
        (90_000, -62e9, None, "deadline"),
        (90_000, None, math.inf, None),
    ],
)
def test_a_request_is_too_old_by_its_agents_age_or_its_senders_deadline(timestamp, deadline, max_age_s, limit):
    assert passed_limit(timestamp, deadline, max_age_s, now=100.0) == limit


@given(
    st.integers(-1, 2**45),
    st.none() | st.floats(-1e12, 1e12),
    st.none() | st.floats(0, 1e12, exclude_min=True),
    st.floats(0, 1e12),
)
def test_what_is_too_old_once_stays_so_and_is_not_a_moment_before(timestamp, deadline, max_age_s, now):
    last = expiry_time(timestamp, deadline, max_age_s)
    assert (passed_limit(timestamp, deadline, max_age_s, now) is None) == (now <= last)
    assert passed_limit(timestamp, deadline, max_age_s, min(last, 1e13)) is None
    if last < 1e13:
        assert passed_limit(timestamp, deadline, max_age_s, math.nextafter(last, math.inf)) is not None


def test_a_record_without_a_timestamp_has_no_age():
    assert [age_s(timestamp, 100.0) for timestamp in (-1, 0, 90_000, 200_000)] == [0, 100, 10, 0]


@given(MOMENTS, st.integers(-14 * 60 + 1, 14 * 60 - 1), st.sampled_from("Tt "), st.integers(0, 6))
def test_a_deadline_in_any_zone_and_precision_is_the_moment_that_it_names(moment, minutes, between, digits):
    moment = moment.replace(microsecond=moment.microsecond // 10 ** (6 - digits) * 10 ** (6 - digits))
    aware = moment.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    fraction = f".{moment.microsecond:06}"[: digits + 1] if digits else ""
    zone = f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"
    text = f"{moment:%Y-%m-%d}".zfill(10) + f"{between}{moment:%H:%M:%S}{fraction}{zone}"
    assert deadline_of(text.encode()) == pytest.approx(aware.timestamp(), abs=1e-5)


@pytest.mark.parametrize("zone", ["Z", "z", "+00:00", "-00:00"])
def test_utc_is_written_in_several_ways(zone):
    assert deadline_of(f"2026-01-05T09:40:00{zone}".encode()) == datetime(2026, 1, 5, 9, 40, tzinfo=UTC).timestamp()


def test_a_leap_second_is_the_one_behind_its_minute():
    assert deadline_of(b"2016-12-31T23:59:60Z") == datetime(2017, 1, 1, tzinfo=UTC).timestamp()


@given(st.none() | st.binary() | st.text().map(str.encode))
@example(b"")
@example(b"2026-01-05T09:40:00")
@example(b"2026-01-05")
@example(b"1767606000")
@example(b"1767606000000")
@example(b" 2026-01-05T09:40:00Z")
@example(b"2026-01-05T09:40:00Z\n")
@example(b"2026-02-30T09:40:00Z")
@example(b"2026-01-05T24:00:00Z")
@example(b"2026-01-05T09:40:61Z")
@example(b"2026-01-05T09:40:00+24:00")
@example(b"2026-01-05T09:40Z")
@example(b"20260105T094000Z")
@example(b"2026-W01-1T09:40:00Z")
@example(b"9999-12-31T23:59:59.9999999Z")
@example("２０２６-01-05T09:40:00Z".encode())
@example(b"tomorrow, my card is 4000 1234")
@example(b"\xff")
def test_what_is_no_time_with_a_zone_is_the_records_own_bad_header_and_is_not_quoted(header):
    with pytest.raises(RecordError) as refused:
        deadline_of(header)
    assert refused.value.reason == "bad_header"
    assert "4000" not in str(refused.value)


@given(st.binary().filter(lambda raw: len(raw) < 10))
def test_whoever_does_not_read_requests_does_not_read_the_deadline(raw):
    assert read_headers([(DEADLINE, raw), (DEADLINE, None)]) == {}


def test_a_deadline_that_is_named_twice_is_the_last_one():
    both = ((DEADLINE, b"2026-01-05T09:40:00Z"), (DEADLINE, b"2027-01-05T09:40:00Z"))
    read = read_request(ConsumerRecord("in", 0, 0, 0, 0, None, b'{"text":"x"}', None, -1, -1, both), 1000)
    assert read.deadline == datetime(2027, 1, 5, 9, 40, tzinfo=UTC).timestamp()


def named(name: str, **options) -> Agent:
    return Agent(name=name, topics=("in",), output=f"{name}.out", **options)


def test_the_setting_replaces_the_age_that_an_agent_declares_and_a_route_knows_the_shortest():
    settings = Settings(agents={"b": {"max_age_s": 5}, "c": {}})
    everyone = configure_agents(settings, [named("a"), named("b", max_age_s=60.0), named("c", max_age_s=7.0)])
    assert [each.max_age_s for each in everyone] == [None, 5, 7]
    assert make_routes(everyone, FakeModel([INTENT]).manifest, "app")["in"].max_age_s == 5
    assert make_routes(everyone[:1], FakeModel([INTENT]).manifest, "app")["in"].max_age_s is None
    assert agent(topics=["in"], max_age_s=3, name="quick")(lambda request, prediction: None).max_age_s == 3
    assert classification.max_age_s is None


@pytest.mark.parametrize("age", [0, -1, math.nan])
def test_an_age_that_nothing_can_be_below_is_refused(age):
    with pytest.raises(SetupError, match=r"agent a: max_age_s is .*, expected seconds above 0"):
        named("a", max_age_s=age)


def test_a_handler_has_no_largest_age():
    class Reader(Handler):
        name, topics = "reader", ("in",)

        async def handle(self, record, engine):
            return []

    settings = Settings(agents={"reader": {"max_age_s": 5}})
    with pytest.raises(SetupError, match=r"agents\.reader\.max_age_s: reader is a handler"):
        configure_agents(settings, [Reader()])
