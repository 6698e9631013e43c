"""When a record is tried again: pauses that grow, an end to them, and steps in which due times never go back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from murmura.runtime.settings.retry_policy import IN_MEMORY_S, STEPS_S, DelayQueue, RetryPolicy, choose_step, wake_time

POLICY = RetryPolicy(attempts=4, first_pause_s=1.0, factor=4.0, longest_pause_s=10.0, deadline_s=100.0)


def test_pauses_grow_up_to_the_longest():
    assert [POLICY.next_pause_s(made, 0.0, lambda: 1.0) for made in (1, 2, 3)] == [1.0, 4.0, 10.0]


def test_a_pause_is_drawn_from_zero_on():
    assert POLICY.next_pause_s(2, 0.0, lambda: 0.0) == 0.0
    assert POLICY.next_pause_s(2, 0.0, lambda: 0.5) == 2.0


def test_after_the_last_attempt_there_is_none():
    assert POLICY.next_pause_s(4, 0.0, lambda: 0.0) is None
    assert POLICY.next_pause_s(9, 0.0, lambda: 0.0, asked_s=1.0) is None


def test_no_attempt_begins_after_the_deadline():
    assert POLICY.next_pause_s(1, 99.5, lambda: 1.0) is None
    assert POLICY.next_pause_s(1, 98.5, lambda: 1.0) == 1.0


def test_the_pause_that_an_agent_asks_for_is_taken_as_it_is():
    assert POLICY.next_pause_s(1, 0.0, lambda: 0.0, asked_s=42.0) == 42.0
    assert POLICY.next_pause_s(1, 0.0, lambda: 0.0, asked_s=101.0) is None


@given(st.integers(1, 2_000), st.floats(0, 0.999), st.floats(1.0, 50.0))
def test_a_pause_is_never_negative_nor_above_the_longest(made, chance, factor):
    policy = RetryPolicy(attempts=10_000, factor=factor, longest_pause_s=10.0)
    pause = policy.next_pause_s(made, 0.0, lambda: chance)
    assert pause is not None
    assert 0.0 <= pause <= 10.0


@pytest.mark.parametrize(
    ("pause_s", "step"), [(0, 0), (31, 0), (60, 0), (599, 0), (600, 1), (3599, 1), (3600, 2), (86_400, 2)]
)
def test_a_record_waits_in_the_longest_step_that_is_not_too_long(pause_s, step):
    assert choose_step(pause_s) == step


@given(st.lists(st.tuples(st.floats(0, 1e5), st.floats(STEPS_S[0], 1e6)), min_size=1, max_size=30))
def test_within_a_step_due_times_never_go_back(writes):
    """Records are written as time goes by, each into the step of its own pause."""
    now, wakes = 0.0, {0: [], 1: [], 2: []}
    for passed, pause in writes:
        now += passed
        step = choose_step(pause)
        wakes[step].append(wake_time(step, now, now + pause))
    assert all(times == sorted(times) for times in wakes.values())


@given(st.floats(IN_MEMORY_S, 1e6))
def test_any_pause_is_over_after_some_rounds_and_never_too_early(pause):
    now, rounds = 0.0, 0
    while pause - now > IN_MEMORY_S:
        step = choose_step(pause - now)
        now = wake_time(step, now, pause)
        rounds += 1
    assert now <= pause
    assert rounds <= pause / STEPS_S[-1] + 20


def test_what_a_person_sends_again_is_looked_at_at_once():
    assert wake_time(2, written=100.0, not_before=100.0) == 100.0


@given(st.lists(st.tuples(st.integers(0, 5), st.integers()), max_size=30), st.integers(0, 5))
def test_a_queue_gives_what_is_due_in_order_and_keeps_the_rest(pushed, now):
    queue = DelayQueue[tuple[int, int]]()
    for number, (due, _) in enumerate(pushed):
        queue.push((due, number), due)
    expected = sorted((due, number) for number, (due, _) in enumerate(pushed))
    due = [pair for pair in expected if pair[0] <= now]
    assert queue.pop_due(now) == due
    assert len(queue) == len(expected) - len(due)
    assert queue.pop_due(10) == expected[len(due) :]


def test_some_of_what_waits_can_be_taken_out():
    queue = DelayQueue[str]()
    for item, due in (("b", 2), ("a", 1), ("c", 3)):
        queue.push(item, due)
    assert queue.take(lambda item: item != "a") == ["b", "c"]
    assert queue.pop_due(9) == ["a"]
