"""The rule that closes batches: plain arithmetic, and what must hold whatever happens."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from murmura.runtime.batching.queues.entry import Entry
from murmura.runtime.batching.queues.policy import BatchLimits, BatchPolicy


class Text:
    def __init__(self, tokens):
        self.tokens = tokens


def entries(*sizes):
    return [Entry(str(n), (), Text(size), None) for n, size in enumerate(sizes)]


def policy(budget=100, **limits):
    return BatchPolicy(BatchLimits(token_budget=budget, **limits))


def sizes(batch):
    return [entry.encoded.tokens for entry in batch.entries]


def take_all(policy, now=0.0):
    batches = []
    while (batch := policy.take(now, 0)) is not None:
        batches.append(batch)
    return batches


def test_the_head_of_the_queue_leaves_up_to_the_token_budget():
    queue = policy(100)
    queue.push(entries(40, 40, 30, 10), 0)
    assert [(sizes(batch), batch.tokens, batch.full) for batch in take_all(queue)] == [
        ([40, 40], 80, True),
        ([30, 10], 40, False),
    ]


def test_a_small_entry_never_overtakes_a_large_one_that_does_not_fit():
    queue = policy(100)
    queue.push(entries(90, 50, 5), 0)
    assert [sizes(batch) for batch in take_all(queue)] == [[90], [50, 5]]


def test_an_entry_over_the_budget_goes_alone():
    queue = policy(100)
    queue.push(entries(10, 500, 10), 0)
    assert [sizes(batch) for batch in take_all(queue)] == [[10], [500], [10]]


def test_rows_close_a_batch():
    queue = policy(100, max_rows=3)
    queue.push(entries(1, 1, 1, 1), 0)
    assert [sizes(batch) for batch in take_all(queue)] == [[1, 1, 1], [1]]


def test_one_long_text_among_short_ones_is_bounded_by_the_cells_of_padded_attention():
    queue = policy(100, max_cells=200)
    queue.push(entries(50, 2, 2, 2, 2, 2), 0)
    assert [sizes(batch) for batch in take_all(queue)] == [[50, 2, 2, 2], [2, 2]]


def test_an_empty_queue_gives_nothing():
    assert policy().take(0.0, 0) is None


def test_more_runs_than_the_eager_ones_start_only_with_a_full_batch():
    queue = policy(100, eager_in_flight=1, max_in_flight=2)
    queue.push(entries(60), 0)
    assert queue.take(0, 1) is None
    queue.push(entries(60), 0)
    assert sizes(queue.take(0, 1)) == [60]
    assert queue.take(0, 1) is None
    assert queue.take(0, 2) is None
    assert sizes(queue.take(0, 0)) == [60]


def test_no_run_starts_beyond_the_most_in_flight_however_much_waits():
    queue = policy(10)
    queue.push(entries(*[10] * 50), 0)
    assert queue.take(0, 2) is None


def test_without_a_window_nothing_waits():
    queue = policy()
    queue.push(entries(1), 5.0)
    assert queue.wake_at() is None
    assert sizes(queue.take(5.0, 0)) == [1]


def test_a_window_holds_a_batch_until_its_oldest_entry_has_waited_or_it_is_full():
    queue = policy(100, max_wait_s=0.5)
    queue.push(entries(40), 10.0)
    assert queue.take(10.0, 0) is None
    assert queue.wake_at() == 10.5
    queue.push(entries(40), 10.4)
    assert queue.take(10.4, 0) is None
    assert sizes(queue.take(10.5, 0)) == [40, 40]
    queue.push(entries(60, 60), 11.0)
    assert sizes(queue.take(11.0, 0)) == [60]


def test_a_cancelled_entry_makes_room_for_the_next_one_even_if_the_batch_was_full():
    queue = policy(100, eager_in_flight=1, max_in_flight=2)
    first, second, third = entries(60, 40, 40)
    queue.push([first, second, third], 0)
    assert queue.take(0, 2) is None
    first.cancelled = True
    assert queue.take(0, 1) is None, "80 tokens are not a full batch"
    assert queue.take(0, 0).entries == [second, third]
    assert queue.queued_tokens == 0


def test_a_queue_of_cancelled_entries_gives_nothing_and_empties_itself():
    queue = policy()
    waiting = entries(5, 5)
    queue.push(waiting, 0)
    for entry in waiting:
        entry.cancelled = True
    assert queue.take(0, 0) is None
    assert (len(queue), queue.queued_tokens) == (0, 0)


def test_drain_returns_in_order_what_has_not_left():
    queue = policy(10)
    waiting = entries(6, 6, 6, 6)
    queue.push(waiting, 0)
    queue.take(0, 0)
    waiting[2].cancelled = True
    assert queue.drain() == [waiting[1], waiting[3]]
    assert (len(queue), queue.queued_tokens, queue.take(0, 0)) == (0, 0, None)


@pytest.mark.parametrize(
    "limits",
    [
        {"token_budget": 0},
        {"token_budget": 10, "max_rows": 0},
        {"token_budget": 10, "max_wait_s": -1},
        {"token_budget": 10, "eager_in_flight": 3, "max_in_flight": 2},
        {"token_budget": 10, "eager_in_flight": 0},
    ],
)
def test_limits_that_make_no_sense_are_refused(limits):
    with pytest.raises(ValueError, match="found BatchLimits"):
        BatchLimits(**limits)


class Queueing(RuleBasedStateMachine):
    """Any order of arrivals, cancellations, starts and ends."""

    def __init__(self):
        super().__init__()
        self.limits = BatchLimits(token_budget=50, max_rows=6, max_cells=90, eager_in_flight=2, max_in_flight=4)
        self.policy = BatchPolicy(self.limits)
        self.waiting = []
        self.in_flight = 0
        self.number = 0

    @rule(arriving=st.lists(st.integers(1, 70), max_size=12))
    def arrive(self, arriving):
        new = [Entry(str(self.number + n), (), Text(size), None) for n, size in enumerate(arriving)]
        self.number += len(new)
        self.policy.push(new, 0.0)
        self.waiting += new

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def cancel(self, data):
        data.draw(st.sampled_from(self.waiting)).cancelled = True

    @precondition(lambda self: self.in_flight)
    @rule()
    def end_a_run(self):
        self.in_flight -= 1

    @rule()
    def start_what_may_start(self):
        while (batch := self.policy.take(0.0, self.in_flight)) is not None:
            self.check(batch)
            self.in_flight += 1
        alive = [entry for entry in self.waiting if not entry.cancelled]
        assert self.in_flight >= self.limits.eager_in_flight or not alive, "something waits beside a free slot"

    def check(self, batch):
        assert self.in_flight < self.limits.max_in_flight
        assert batch.full or self.in_flight < self.limits.eager_in_flight
        assert batch.entries
        assert not any(entry.cancelled for entry in batch.entries)
        alive = [entry for entry in self.waiting if not entry.cancelled]
        assert batch.entries == alive[: len(batch.entries)], "arrival order"
        lengths = sizes(batch)
        assert batch.tokens == sum(lengths)
        if len(lengths) > 1:
            assert batch.tokens <= self.limits.token_budget
            assert len(lengths) * max(lengths) <= self.limits.max_cells
        assert len(lengths) <= self.limits.max_rows
        following = alive[len(lengths) :]
        if following:
            more = [*lengths, following[0].encoded.tokens]
            assert (
                batch.tokens >= self.limits.token_budget
                or len(lengths) == self.limits.max_rows
                or sum(more) > self.limits.token_budget
                or len(more) * max(more) > self.limits.max_cells
            ), "the batch had room for the next"
        last = batch.entries[-1]
        self.waiting = self.waiting[self.waiting.index(last) + 1 :]

    @invariant()
    def tokens_are_those_of_what_waits(self):
        alive = sum(entry.encoded.tokens for entry in self.waiting if not entry.cancelled)
        everything = sum(entry.encoded.tokens for entry in self.waiting)
        assert alive <= self.policy.queued_tokens <= everything


TestQueueing = Queueing.TestCase
TestQueueing.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)


@given(arriving=st.lists(st.integers(1, 200), max_size=80), budget=st.integers(1, 150), rows=st.integers(1, 20))
def test_every_entry_leaves_once_in_arrival_order_within_the_limits(arriving, budget, rows):
    queue = policy(budget, max_rows=rows)
    waiting = entries(*arriving)
    queue.push(waiting, 0)
    batches = take_all(queue)
    assert [entry for batch in batches for entry in batch.entries] == waiting
    assert all(batch.tokens <= budget or len(batch.entries) == 1 for batch in batches)
    assert all(len(batch.entries) <= rows for batch in batches)
    assert queue.queued_tokens == 0


@given(arriving=st.lists(st.integers(1, 60), min_size=1, max_size=40), chunk=st.integers(1, 10))
def test_batches_do_not_depend_on_how_the_entries_were_pushed(arriving, chunk):
    at_once, by_chunk = policy(), policy()
    at_once.push(entries(*arriving), 0)
    pieces = entries(*arriving)
    for begin in range(0, len(pieces), chunk):
        by_chunk.push(pieces[begin : begin + chunk], 0)
        by_chunk.take(0, 2)
    assert [sizes(batch) for batch in take_all(at_once)] == [sizes(batch) for batch in take_all(by_chunk)]
