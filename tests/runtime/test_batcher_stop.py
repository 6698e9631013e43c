# ruff: noqa: F811 - fixtures are imported, and then named by the tests that take them
"""The batcher at its end and under load: stop, room, observation."""

import asyncio
from collections import Counter

import pytest
from gated_model import GatedModel, Inbox, entries_of, inbox, model, start  # noqa: F401

from murmura.runtime.batching.batcher import Batcher
from murmura.runtime.batching.queues.policy import BatchLimits
from murmura.runtime.errors import Closed
from murmura.runtime.testing.fakes import ManualClock


async def test_stop_answers_what_is_queued_and_takes_no_more(model, inbox, start):
    batcher = start(model, max_rows=2)
    batcher.submit(entries_of(model, inbox, *"abcdefg"))
    await batcher.stop(10)
    assert [entry.text for entry in inbox.entries] == [*"abcdefg"]
    assert all(entry.outputs for entry in inbox.entries)
    with pytest.raises(Closed):
        batcher.submit(entries_of(model, inbox, "late"))


async def test_stop_does_not_wait_for_a_window(model, inbox, start):
    batcher = start(model, max_wait_s=60)
    batcher.submit(entries_of(model, inbox, "a"))
    await batcher.stop(5)
    assert inbox.entries[0].outputs


async def test_stop_answers_with_closed_when_its_budget_is_spent_and_ignores_what_comes_later(model, inbox, start):
    batcher = start(model, max_rows=2)
    model.gate.clear()
    batcher.submit(entries_of(model, inbox, *"abcd"))
    await model.has_begun()
    await batcher.stop(0.02)
    assert [entry.text for entry in inbox.entries] == [*"abcd"]
    assert all(isinstance(entry.error, Closed) for entry in inbox.entries)
    model.gate.set()
    await asyncio.sleep(0.05)
    assert len(inbox.entries) == 4
    assert all(entry.outputs is None for entry in inbox.entries)


async def test_a_cancelled_stop_still_answers_everybody(model, inbox, start):
    batcher = start(model)
    model.gate.clear()
    batcher.submit(entries_of(model, inbox, "a", "b"))
    stopping = asyncio.create_task(batcher.stop(60))
    await model.has_begun()
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    assert [type(entry.error) for entry in inbox.entries] == [Closed, Closed]


async def test_room_is_announced_when_entries_have_left_the_queue(model, inbox, start):
    batcher = start(model)
    seen = []
    batcher.on_room(lambda: seen.append(batcher.backlog.tokens))
    model.gate.clear()
    batcher.submit(entries_of(model, inbox, "running"))
    assert seen == [0]
    batcher.submit(entries_of(model, inbox, "a b c"))
    assert seen == [0]
    assert batcher.backlog.tokens == 5
    model.gate.set()
    await inbox.holds(2)
    assert seen == [0, 0]


async def test_room_may_be_filled_from_within_the_callback(model, inbox, start):
    batcher = start(model, max_rows=4)
    backlog = entries_of(model, inbox, *map(str, range(1000)))
    backlog.reverse()

    def refill():
        while backlog and batcher.backlog.tokens < 30:
            batcher.submit([backlog.pop()])

    batcher.on_room(refill)
    refill()
    await inbox.holds(1000)
    assert [entry.text for entry in inbox.entries] == [str(n) for n in range(1000)]


async def test_the_observer_hears_of_rows_tokens_waits_and_seconds(inbox, start):
    seen = []

    class Observer:
        def batch(self, rows, tokens, queue_seconds, run_seconds):
            seen.append((rows, tokens, len(queue_seconds), min(queue_seconds) >= 0, run_seconds >= 0.01))

    model = GatedModel(run_s=0.01)
    start(model, observer=Observer()).submit(entries_of(model, inbox, "one", "two words"))
    await inbox.holds(2)
    await asyncio.sleep(0)
    assert seen == [(2, 7, 2, True, True)]


async def test_thousands_of_entries_from_many_sinks_some_cancelled_some_broken_are_each_answered_once(start):
    model = GatedModel(broken={"text 1000", "text 3999"})
    inboxes = [Inbox() for _ in range(5)]
    batcher = start(model, token_budget=100, eager_in_flight=2, max_in_flight=3)
    everything = [entries_of(model, inboxes[n % 5], f"text {n}")[0] for n in range(5000)]
    for begin in range(0, 5000, 50):
        batcher.submit(everything[begin : begin + 50])
        for entry in everything[begin : begin + 50 : 7]:
            entry.cancelled = True
        await asyncio.sleep(0)
    await batcher.stop(30)
    answered = Counter(entry.text for inbox in inboxes for entry in inbox.entries)
    assert answered == Counter(entry.text for entry in everything if not entry.cancelled)
    for each in inboxes:
        for entry in each.entries:
            assert entry.error is not None if entry.text in model.broken else entry.outputs is not None


async def test_a_batch_that_nobody_can_hear_any_more_does_not_trouble_the_thread(model, inbox):
    closed_loop = asyncio.new_event_loop()
    batcher = Batcher(model, BatchLimits(token_budget=10), clock=ManualClock())
    batcher.start()
    batcher._runs._threads._loop = closed_loop
    closed_loop.close()
    batcher.submit(entries_of(model, inbox, "a"))
    await model.has_begun()
    batcher._runs._threads._loop = asyncio.get_running_loop()
    await batcher.stop(0.01)
    assert isinstance(inbox.entries[0].error, Closed)
