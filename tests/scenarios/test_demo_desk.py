"""The demo's books: everything that is sent is answered, dead-lettered or open, and counted once."""

from hypothesis import given
from hypothesis import strategies as st

from murmura.scenarios.stage.desk import Desk

BOTH = frozenset({"classification", "analysis"})
OUTPUT = {"intent": {"kind": "classification"}}


def test_a_message_is_answered_when_every_agent_has_answered():
    desk = Desk(BOTH)
    message = desk.add_message((0, 1), "hello", now=10.0)
    desk.add_result((0, 1), "classification", OUTPUT, now=10.1)
    assert (desk.answered, desk.open) == (0, 1)
    desk.add_result((0, 1), "analysis", {"sentiment": {}}, now=10.3)
    assert (desk.answered, desk.open) == (1, 0)
    assert message.outputs.keys() == {"intent", "sentiment"}
    assert round(message.latency_s, 3) == 0.3


def test_a_result_may_come_before_its_place_is_known():
    desk = Desk(frozenset({"analysis"}))
    desk.add_result((2, 7), "analysis", OUTPUT, now=5.0)
    message = desk.add_message((2, 7), "hello", now=4.9)
    assert (desk.answered, desk.open, message.settled) == (1, 0, True)


def test_a_dead_letter_settles_a_message_whatever_else_comes():
    desk = Desk(BOTH)
    message = desk.add_message((0, 0), "{", now=0.0)
    desk.add_result((0, 0), "analysis", OUTPUT, now=0.1)
    desk.add_dead_letter((0, 0), "agent_failed", now=0.2)
    desk.add_result((0, 0), "classification", OUTPUT, now=0.3)
    assert (desk.answered, desk.dead_lettered, desk.open, message.dead) == (0, 1, 0, "agent_failed")


PLACES = st.integers(0, 5)
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("sent"), PLACES),
        st.tuples(st.sampled_from(sorted(BOTH)), PLACES),
        st.tuples(st.just("dead"), PLACES),
    ),
    max_size=60,
)


@given(EVENTS)
def test_the_books_balance_in_any_order_and_with_any_repetition(events):
    desk, sent, came = Desk(BOTH), set(), {}
    for kind, place in events:
        if kind == "sent":
            if place not in sent:
                desk.add_message((0, place), "text", 0.0)
            sent.add(place)
        elif kind == "dead":
            desk.add_dead_letter((0, place), "invalid", 1.0)
        else:
            desk.add_result((0, place), kind, OUTPUT, 1.0)
        if kind != "sent":
            came.setdefault(place, set()).add(kind)
    assert desk.published == len(sent)
    settled = {place for place in sent if came.get(place, set()) >= BOTH or "dead" in came.get(place, set())}
    assert desk.answered + desk.dead_lettered == len(settled)
    assert desk.open == len(sent) - len(settled)


def test_the_rate_counts_the_last_seconds_only():
    desk = Desk(frozenset({"analysis"}))
    for number in range(20):
        desk.add_message((0, number), "x", now=float(number))
        desk.add_result((0, number), "analysis", OUTPUT, now=float(number))
    assert desk.per_second(19.0) == 6 / 5
    assert desk.per_second(100.0) == 0.0
    assert desk.median_latency_s() == 0.0
