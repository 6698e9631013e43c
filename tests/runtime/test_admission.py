"""Who goes next is fair between topics and partitions, and in order within one."""

from hypothesis import given, settings
from hypothesis import strategies as st

from murmura.runtime.admission import Admission


def items(name: str, count: int, tokens: int = 10) -> list[tuple[str, int]]:
    return [(f"{name}{i}", tokens) for i in range(count)]


def test_a_light_topic_is_served_beside_a_backlog():
    queue: Admission[str, str] = Admission(quantum=50)
    queue.add("heavy", "h0", items("h", 1000))
    queue.add("light", "l0", items("l", 1))
    assert "l0" in queue.take(100, 100)


def test_partitions_of_a_topic_take_turns():
    queue: Admission[str, str] = Admission(quantum=10)
    for lane in "abc":
        queue.add("t", lane, items(lane, 5))
    assert queue.take(60, 100) == ["a0", "b0", "c0", "a1", "b1", "c1"]


def test_weights_divide_the_tokens_of_topics():
    queue: Admission[str, str] = Admission(quantum=10, weights={"big": 3})
    queue.add("big", "b", items("b", 100))
    queue.add("small", "s", items("s", 100))
    taken = queue.take(400, 1000)
    assert sum(name.startswith("b") for name in taken) == 3 * sum(name.startswith("s") for name in taken)


def test_a_full_lane_is_told_and_reopens_once_at_half():
    queue: Admission[str, str] = Admission(quantum=10, lane_limit=100)
    assert not queue.add("t", "a", items("a", 9))
    assert queue.add("t", "a", items("b", 1))
    queue.take(40, 100)
    assert queue.reopened() == []
    queue.take(10, 100)
    assert queue.reopened() == ["a"]
    assert queue.reopened() == []


def test_a_record_larger_than_the_quantum_still_goes():
    queue: Admission[str, str] = Admission(quantum=5)
    queue.add("t", "a", [("huge", 500)])
    assert queue.take(1, 1) == ["huge"]
    assert queue.tokens == 0


def test_clear_forgets_what_waits_and_says_how_much():
    queue: Admission[str, str] = Admission()
    queue.add("t", "a", items("a", 3))
    assert queue.clear() == 3
    assert queue.take(100, 100) == []
    assert queue.tokens == len(queue) == 0


@settings(max_examples=150)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.lists(st.integers(1, 40), max_size=8)), max_size=12),
    st.lists(st.tuples(st.integers(1, 200), st.integers(1, 20)), max_size=30),
    st.integers(1, 60),
)
def test_each_record_leaves_once_in_the_order_of_its_lane(arrivals, takes, quantum):
    queue: Admission[tuple[int, int], tuple[tuple[int, int], int]] = Admission(quantum=quantum)
    waiting: dict[tuple[int, int], int] = {}
    tokens = 0
    for topic, partition, sizes in arrivals:
        lane = (topic, partition)
        start = waiting.get(lane, 0)
        queue.add(str(topic), lane, [((lane, start + i), size) for i, size in enumerate(sizes)])
        waiting[lane] = start + len(sizes)
        tokens += sum(sizes)
    assert queue.tokens == tokens
    left = []
    for budget, most in takes:
        taken = queue.take(budget, most)
        assert len(taken) <= most
        left += taken
    left += queue.take(10**9, 10**9)
    for lane, count in waiting.items():
        assert [number for where, number in left if where == lane] == list(range(count))
    assert queue.tokens == 0
