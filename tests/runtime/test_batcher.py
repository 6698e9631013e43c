"""The batcher under cancellation, failing batches and stop: everybody who waits is answered."""

import asyncio
import threading
from collections import Counter

import pytest

from murmura.runtime.batch_policy import BatchLimits, Entry
from murmura.runtime.batcher import Batcher
from murmura.runtime.errors import Closed, ModelFailed
from murmura.runtime.testing import FakeModel, ManualClock, classified
from murmura.schemas.manifest import TaskSpec

INTENT = TaskSpec(name="intent", kind="classification", labels=["pay", "other"])
SENTIMENT = TaskSpec(name="sentiment", kind="classification", labels=["good", "bad"])


class GatedModel(FakeModel):
    """Runs only while the gate is open, and says when a run has begun."""

    def __init__(self, **options):
        super().__init__([INTENT, SENTIMENT], lambda text: {"intent": classified(text)}, **options)
        self.gate = threading.Event()
        self.gate.set()
        self.begun = threading.Semaphore(0)
        self.calls = Counter()

    def run(self, batch):
        self.begun.release()
        assert self.gate.wait(10)
        return super().run(batch)

    def decode(self, logits, batch, texts, wanted, thresholds=None):
        self.calls["decode"] += 1
        answers = super().decode(logits, batch, texts, wanted, thresholds)
        for answer in answers:
            answer.update({task: {**output, "by": thresholds} for task, output in answer.items()})
        return answers

    async def has_begun(self):
        await asyncio.to_thread(self.begun.acquire, timeout=10)


class Inbox:
    """A sink that keeps every delivery."""

    def __init__(self):
        self.deliveries = []

    def deliver(self, entries):
        self.deliveries.append(entries)

    @property
    def entries(self):
        return [entry for entries in self.deliveries for entry in entries]

    async def holds(self, count):
        async with asyncio.timeout(10):
            while len(self.entries) < count:
                await asyncio.sleep(0.001)


def entries_of(model, sink, *texts, thresholds=None):
    encoded = model.encode(texts)
    return [
        Entry(text, ("intent",), each, sink, thresholds=thresholds) for text, each in zip(texts, encoded, strict=True)
    ]


@pytest.fixture
def model():
    return GatedModel()


@pytest.fixture
def inbox():
    return Inbox()


@pytest.fixture
async def start():
    """Start batchers that are stopped, with their gates open, when the test ends."""
    started = []

    def begin(model, *, observer=None, **limits):
        batcher = Batcher(model, BatchLimits(**{"token_budget": 1000, "max_in_flight": 1, **limits}), observer=observer)
        batcher.start()
        started.append((model, batcher))
        return batcher

    yield begin
    for model, batcher in started:
        model.gate.set()
        await batcher.stop(5)


async def test_neighbours_of_a_caller_cancelled_during_the_run_get_their_answers(model, inbox, start):
    batcher = start(model)
    model.gate.clear()
    first, second, third = entries_of(model, inbox, "one", "two", "three")
    batcher.submit([first, second, third])
    await model.has_begun()
    first.cancelled = True
    model.gate.set()
    await inbox.holds(2)
    assert model.batches == [["one", "two", "three"]]
    assert inbox.deliveries == [[second, third]]
    assert [entry.outputs["intent"]["label"] for entry in inbox.entries] == ["two", "three"]


async def test_an_entry_cancelled_while_it_waits_is_never_run(model, inbox, start):
    batcher = start(model)
    model.gate.clear()
    batcher.submit(entries_of(model, inbox, "running"))
    await model.has_begun()
    waiting = entries_of(model, inbox, "a", "b", "c")
    batcher.submit(waiting)
    waiting[1].cancelled = True
    model.gate.set()
    await inbox.holds(3)
    assert model.batches == [["running"], ["a", "c"]]
    assert batcher.queued_tokens == 0


async def test_only_the_guilty_record_of_a_failing_batch_suffers(inbox, start):
    model = GatedModel(broken={"bad"})
    start(model).submit(entries_of(model, inbox, "one", "bad", "three"))
    await inbox.holds(3)
    one, bad, three = inbox.entries
    assert (one.outputs["intent"]["label"], three.outputs["intent"]["label"]) == ("one", "three")
    assert bad.outputs is None
    assert isinstance(bad.error, ModelFailed)
    assert model.batches == [["one", "bad", "three"], ["one"], ["bad"], ["three"]]


async def test_a_batch_that_fails_once_is_answered_by_the_second_run(model, inbox, start):
    runs = []

    def fail_first(batch):
        runs.append(len(batch))
        if len(runs) == 1:
            raise MemoryError("no room on the device")
        return [encoded.text for encoded in batch]

    model.run = fail_first
    start(model).submit(entries_of(model, inbox, "one", "two"))
    await inbox.holds(2)
    assert [entry.error for entry in inbox.entries] == [None, None]
    assert runs == [2, 1, 1]


@pytest.mark.parametrize("fault", [ValueError("what"), SystemExit(3), KeyboardInterrupt()])
async def test_whatever_the_model_raises_the_callers_are_answered(model, inbox, start, fault):
    def run(batch):
        raise fault

    model.run = run
    batcher = start(model)
    batcher.submit(entries_of(model, inbox, "one", "two"))
    await inbox.holds(2)
    assert all(isinstance(entry.error, ModelFailed) for entry in inbox.entries)
    assert type(fault).__name__ in str(inbox.entries[0].error)
    batcher.submit(entries_of(model, inbox, "three"))
    await inbox.holds(3)


async def test_a_decoder_that_loses_rows_fails_the_records_instead_of_mixing_them_up(model, inbox, start):
    model.decode = lambda *_: []
    start(model).submit(entries_of(model, inbox, "one", "two"))
    await inbox.holds(2)
    assert all("0 answers for 1 texts" in str(entry.error) for entry in inbox.entries)


async def test_sinks_of_one_batch_get_their_own_entries_in_order(model, start):
    inboxes = [Inbox(), Inbox(), Inbox()]
    mixed = [entries_of(model, inboxes[n % 3], f"text {n}")[0] for n in range(9)]
    start(model).submit(mixed)
    for inbox in inboxes:
        await inbox.holds(3)
    assert [[entry.text for entry in inbox.deliveries[0]] for inbox in inboxes] == [
        [f"text {n}" for n in range(start_at, 9, 3)] for start_at in range(3)
    ]


async def test_a_sink_that_raises_takes_no_answer_from_another(model, inbox, start):
    reported = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["exception"]))

    class Rude:
        def deliver(self, entries):
            raise RuntimeError("not today")

    start(model).submit(entries_of(model, Rude(), "one") + entries_of(model, inbox, "two"))
    await inbox.holds(1)
    assert [str(error) for error in reported] == ["not today"]


async def test_a_second_run_starts_beside_the_first_only_with_a_full_batch(model, inbox, start):
    batcher = start(model, max_in_flight=2, max_rows=3)
    model.gate.clear()
    batcher.submit(entries_of(model, inbox, "a"))
    await model.has_begun()
    batcher.submit(entries_of(model, inbox, "b", "c"))
    assert batcher.in_flight == 1
    batcher.submit(entries_of(model, inbox, "d", "e"))
    assert batcher.in_flight == 2
    model.gate.set()
    await inbox.holds(5)
    assert sorted(model.batches) == [["a"], ["b", "c", "d"], ["e"]]


async def test_cores_run_side_by_side_with_whatever_is_queued(model, inbox, start):
    batcher = start(model, eager_in_flight=2, max_in_flight=2)
    model.gate.clear()
    batcher.submit(entries_of(model, inbox, "a"))
    batcher.submit(entries_of(model, inbox, "b"))
    assert batcher.in_flight == 2
    model.gate.set()
    await inbox.holds(2)


async def test_a_batch_is_closed_when_a_slot_is_free_and_not_before(model, inbox, start):
    batcher = start(model)
    model.gate.clear()
    batcher.submit(entries_of(model, inbox, "running"))
    for text in ("a", "b", "c"):
        batcher.submit(entries_of(model, inbox, text))
    model.gate.set()
    await inbox.holds(4)
    assert model.batches == [["running"], ["a", "b", "c"]]


async def test_a_waiting_window_gathers_entries_and_then_ends_by_itself(model, inbox, start):
    batcher = start(model, max_wait_s=0.2)
    batcher.submit(entries_of(model, inbox, "a"))
    await asyncio.sleep(0.005)
    batcher.submit(entries_of(model, inbox, "b"))
    assert batcher.in_flight == 0
    await inbox.holds(2)
    assert model.batches == [["a", "b"]]


async def test_rows_that_share_thresholds_are_decoded_together(model, inbox, start):
    strict, lax = {"intent": 0.9}, {"intent": 0.1}
    batcher = start(model)
    batcher.submit(entries_of(model, inbox, "a", "b"))
    await inbox.holds(2)
    assert model.calls["decode"] == 1
    mixed = [
        entries_of(model, inbox, text, thresholds=thresholds)[0]
        for text, thresholds in zip("cdefg", (None, strict, lax, strict, None), strict=True)
    ]
    batcher.submit(mixed)
    await inbox.holds(7)
    assert model.calls["decode"] == 1 + 3
    assert [(e.outputs["intent"]["label"], e.outputs["intent"]["by"]) for e in mixed] == [
        ("c", None),
        ("d", strict),
        ("e", lax),
        ("f", strict),
        ("g", None),
    ]


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
    batcher.on_room(lambda: seen.append(batcher.queued_tokens))
    model.gate.clear()
    batcher.submit(entries_of(model, inbox, "running"))
    assert seen == [0]
    batcher.submit(entries_of(model, inbox, "a b c"))
    assert seen == [0]
    assert batcher.queued_tokens == 5
    model.gate.set()
    await inbox.holds(2)
    assert seen == [0, 0]


async def test_room_may_be_filled_from_within_the_callback(model, inbox, start):
    batcher = start(model, max_rows=4)
    backlog = entries_of(model, inbox, *map(str, range(1000)))
    backlog.reverse()

    def refill():
        while backlog and batcher.queued_tokens < 30:
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
    for inbox in inboxes:
        for entry in inbox.entries:
            assert entry.error is not None if entry.text in model.broken else entry.outputs is not None


async def test_a_batch_that_nobody_can_hear_any_more_does_not_trouble_the_thread(model, inbox):
    closed_loop = asyncio.new_event_loop()
    batcher = Batcher(model, BatchLimits(token_budget=10), clock=ManualClock())
    batcher.start()
    batcher._loop = closed_loop
    closed_loop.close()
    batcher.submit(entries_of(model, inbox, "a"))
    await model.has_begun()
    batcher._loop = asyncio.get_running_loop()
    await batcher.stop(0.01)
    assert isinstance(inbox.entries[0].error, Closed)
