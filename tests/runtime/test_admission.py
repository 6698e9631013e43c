"""Who goes next is fair between topics and partitions, in order within one, and bounded in tokens and bytes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from murmura.runtime.flow.admission import Admission

MANY = 10**9


def items(name: str, count: int, tokens: int = 10, size: int = 100) -> list[tuple[str, int, int]]:
    return [(f"{name}{i}", tokens, size) for i in range(count)]


def test_a_light_topic_is_served_beside_a_backlog():
    queue: Admission[str, str] = Admission(quantum=50)
    queue.add("heavy", "h0", items("h", 1000))
    queue.add("light", "l0", items("l", 1))
    assert "l0" in queue.take(100, 100, MANY)


def test_partitions_of_a_topic_take_turns():
    queue: Admission[str, str] = Admission(quantum=10)
    for lane in "abc":
        queue.add("t", lane, items(lane, 5))
    assert queue.take(60, 100, MANY) == ["a0", "b0", "c0", "a1", "b1", "c1"]


def test_a_renamed_lane_keeps_its_turn_and_shares_with_one_that_takes_its_name():
    queue: Admission[str, str] = Admission(quantum=10)
    for lane in "ab":
        queue.add("t", lane, items(lane, 3))
    assert queue.rename("a", "old")
    queue.add("t", "a", items("new", 2))
    assert not queue.rename("a", "old")
    assert queue.take(1000, 100, MANY) == ["a0", "b0", "new0", "a1", "b1", "new1", "a2", "b2"]
    assert (len(queue), queue.tokens, queue.bytes) == (0, 0, 0)
    assert queue.rename("a", "old")


def test_a_lane_of_several_topics_has_a_queue_for_each_and_its_limits_for_all_of_them():
    queue: Admission[str, str] = Admission(quantum=10, lane_limit=40, lane_bytes=1000, groups={"other": "spam"})
    queue.add("t", "retries", items("a", 2))
    queue.add("other", "retries", items("b", 2))
    assert (queue.is_full("retries"), queue.bytes_in("retries"), len(queue)) == (True, 400, 4)
    assert queue.rename("retries", "old")
    assert (queue.bytes_in("retries"), queue.bytes_in("old")) == (0, 400)
    queue.add("other", "retries", items("c", 1))
    assert queue.take(1000, 100, MANY, "spam") == ["b0", "c0", "b1"], "not behind the texts of another model"
    assert (queue.bytes_in("old"), queue.has_room("old"), queue.bytes_in("retries")) == (200, True, 0)
    assert queue.take(1000, 100, MANY) == ["a0", "a1"]
    assert (queue.tokens, queue.bytes, queue.has_room("old", 1000)) == (0, 0, True)


def test_weights_divide_the_tokens_of_topics():
    queue: Admission[str, str] = Admission(quantum=10, weights={"big": 3})
    queue.add("big", "b", items("b", 100))
    queue.add("small", "s", items("s", 100))
    taken = queue.take(400, 1000, MANY)
    assert sum(name.startswith("b") for name in taken) == 3 * sum(name.startswith("s") for name in taken)


@pytest.mark.parametrize("long", [700, 64_000])
def test_a_topic_of_texts_that_cost_many_quanta_gets_no_more_tokens_than_one_of_short_texts(long):
    queue: Admission[str, str] = Admission(quantum=50)
    queue.add("long", "l", items("l", 20, tokens=long))
    queue.add("short", "s", items("s", 200_000))
    taken = queue.take(10 * long, MANY, MANY)
    spent = sum(long for name in taken if name.startswith("l"))
    assert spent <= 5 * long + long
    assert sum(name.startswith("s") for name in taken) * 10 >= 4 * long


def test_a_topic_whose_long_texts_come_one_at_a_time_pays_for_each():
    queue: Admission[str, str] = Admission(quantum=50)
    queue.add("short", "s", items("s", 10_000))
    spent = 0
    while spent < 20_000:
        if queue.has_room("l") and queue.bytes_left("l") == queue.lane_bytes:
            queue.add("long", "l", items("l", 1, tokens=1000))
        spent += sum(1000 if name.startswith("l") else 10 for name in queue.take(100, MANY, MANY))
    assert len(queue) >= 10_000 - 1200, "half of the tokens went to the short ones"
    assert len(queue) <= 10_000 - 800


def test_a_topic_that_waits_alone_is_never_kept_waiting():
    queue: Admission[str, str] = Admission(quantum=5)
    queue.add("t", "a", items("a", 3, tokens=500))
    assert queue.take(1500, 100, MANY) == ["a0", "a1", "a2"]


def test_a_lane_is_full_at_its_tokens_and_has_room_again_at_half():
    queue: Admission[str, str] = Admission(quantum=10, lane_limit=100)
    queue.add("t", "a", items("a", 9))
    assert not queue.is_full("a")
    queue.add("t", "a", items("b", 1))
    assert queue.is_full("a")
    queue.take(40, 100, MANY)
    assert not queue.has_room("a")
    queue.take(10, 100, MANY)
    assert queue.has_room("a")


def test_a_lane_is_full_at_its_bytes_and_has_room_again_at_half():
    queue: Admission[str, str] = Admission(quantum=1, lane_bytes=1000)
    queue.add("t", "a", items("a", 9, tokens=1))
    assert (queue.bytes_left("a"), queue.is_full("a")) == (100, False)
    queue.add("t", "a", items("b", 1, tokens=1))
    assert (queue.bytes_left("a"), queue.is_full("a")) == (0, True)
    queue.take(4, 100, MANY)
    assert not queue.has_room("a")
    queue.take(1, 100, MANY)
    assert queue.has_room("a")


def test_no_more_bytes_are_taken_than_wanted_but_for_the_last_record():
    queue: Admission[str, str] = Admission(quantum=10)
    queue.add("t", "a", items("a", 5))
    queue.add("u", "b", items("b", 5))
    assert queue.take(MANY, 100, 250) == ["a0", "b0", "a1"]
    assert queue.take(MANY, 100, 0) == []
    assert queue.bytes == 700


def test_a_record_larger_than_the_quantum_still_goes():
    queue: Admission[str, str] = Admission(quantum=5)
    queue.add("t", "a", [("huge", 500, MANY)])
    assert queue.take(1, 1, 1) == ["huge"]
    assert queue.tokens == queue.bytes == 0


def test_clear_forgets_what_waits_and_says_how_much():
    queue: Admission[str, str] = Admission()
    queue.add("t", "a", items("a", 3))
    assert queue.clear() == 3
    assert queue.take(100, 100, MANY) == []
    assert queue.tokens == queue.bytes == len(queue) == 0


arrivals = st.lists(
    st.tuples(
        st.integers(0, 2), st.integers(0, 3), st.lists(st.tuples(st.integers(1, 40), st.integers(1, 900)), max_size=8)
    ),
    max_size=12,
)
takes = st.lists(st.tuples(st.integers(1, 200), st.integers(1, 20), st.integers(1, 3000)), max_size=30)


@settings(max_examples=150)
@given(arrivals, takes, st.integers(1, 60))
def test_each_record_leaves_once_in_the_order_of_its_lane_and_the_sums_are_exact(arrivals, takes, quantum):
    queue: Admission[tuple[int, int], tuple[tuple[int, int], int, int, int]] = Admission(quantum=quantum)
    waiting: dict[tuple[int, int], int] = {}
    tokens = size = 0
    for topic, partition, costs in arrivals:
        lane = (topic, partition)
        start = waiting.get(lane, 0)
        queue.add(str(topic), lane, [((lane, start + i, *cost), *cost) for i, cost in enumerate(costs)])
        waiting[lane] = start + len(costs)
        tokens += sum(cost[0] for cost in costs)
        size += sum(cost[1] for cost in costs)
    assert (queue.tokens, queue.bytes) == (tokens, size)
    left = []
    for budget, most, most_bytes in takes:
        taken = queue.take(budget, most, most_bytes)
        assert len(taken) <= most
        assert sum(item[3] for item in taken[:-1]) < most_bytes
        assert sum(item[2] for item in taken[:-1]) < budget
        tokens -= sum(item[2] for item in taken)
        size -= sum(item[3] for item in taken)
        assert (queue.tokens, queue.bytes) == (tokens, size)
        left += taken
    left += queue.take(MANY, MANY, MANY)
    for lane, count in waiting.items():
        assert [item[1] for item in left if item[0] == lane] == list(range(count))
    assert queue.tokens == queue.bytes == 0


@settings(max_examples=100)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.integers(1, 60), st.integers(1, 500))
def test_between_two_visits_of_a_topic_every_other_one_that_waits_is_visited(counts, quantum, tokens):
    queue: Admission[int, int] = Admission(quantum=quantum)
    for topic, count in enumerate(counts):
        queue.add(str(topic), topic, [(topic, 7, 1)] * count)
    remaining = dict(enumerate(counts))
    last_visit = dict.fromkeys(remaining, -1)
    visit, taken = 0, queue.take(tokens, MANY, MANY)
    previous = None
    for topic in taken:
        if topic != previous and len([t for t, count in remaining.items() if count]) > 1:
            others = [t for t, count in remaining.items() if count and t != topic]
            assert last_visit[topic] < 0 or all(last_visit[other] > last_visit[topic] for other in others)
        if topic != previous:
            visit += 1
        last_visit[topic] = visit
        remaining[topic] -= 1
        previous = topic
