# ruff: noqa: F811 - fixtures are imported, and then named by the tests that take them
"""Batches that fail: the record at fault is found, and a device at fault is waited for."""

import asyncio
import math
import threading

import pytest
from gated_model import GatedModel, entries_of, inbox, model, start  # noqa: F401
from hypothesis import given, settings
from hypothesis import strategies as st

from murmura.runtime.batching.device.breaker import BreakerLimits
from murmura.runtime.batching.device.device_guard import DeviceGuard, Job
from murmura.runtime.batching.device.runs import BatchRuns
from murmura.runtime.batching.queues.entry import Entry
from murmura.runtime.batching.queues.version_queue import VersionTerms
from murmura.runtime.errors import Closed, DeviceFailed, ModelFailed

QUICK = BreakerLimits(first_pause_s=0.01, longest_pause_s=0.02, give_up_s=20)


def answer(model, *texts, suspect=False):
    entries = entries_of(model, None, *texts)
    return BatchRuns().answer(model, entries, VersionTerms(1000, 256, 4000), suspect=suspect)


def labels(answers):
    return [outputs and outputs["intent"]["label"] for outputs in answers.outputs]


def test_only_the_record_at_fault_fails_and_it_is_found_in_about_twice_log2_runs():
    texts = [str(number) for number in range(256)]
    model = GatedModel(broken={"77"})
    answers = answer(model, *texts)
    assert list(answers.errors) == [77]
    assert isinstance(answers.errors[77], ModelFailed)
    assert labels(answers) == [text if text != "77" else None for text in texts]
    assert len(model.batches) <= 2 * math.log2(256) + 3


@given(broken=st.sets(st.integers(0, 39)), size=st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_whichever_records_are_at_fault_they_alone_fail(broken, size):
    texts = [str(number) for number in range(size)]
    answers = answer(GatedModel(broken={str(number) for number in broken}), *texts)
    assert set(answers.errors) == broken & set(range(size))
    assert labels(answers) == [None if number in broken else str(number) for number in range(size)]
    assert answers.fault is None


def test_a_record_that_fails_once_and_then_answers_is_answered():
    model, runs = GatedModel(), []
    run = model.run
    model.run = lambda batch: (runs.append(1), 1 / 0 if len(runs) < 3 else run(batch))[1]
    answers = answer(model, "one")
    assert labels(answers) == ["one"]
    assert not answers.errors


def test_a_device_that_breaks_during_the_search_is_not_blamed_on_a_record():
    model = GatedModel(broken={"bad"})
    run = model.run

    def break_after_three_runs(batch):
        model.device_works = len(model.batches) < 3
        return run(batch)

    model.run = break_after_three_runs
    answers = answer(model, "one", "two", "bad", "four")
    assert answers.fault is not None
    assert not answers.errors
    assert labels(answers)[:2] == ["one", "two"]


def test_a_reference_sample_that_fails_too_is_the_devices_fault():
    model = GatedModel(broken={"bad"})
    model.check_device = lambda: 1 / 0
    answers = answer(model, "bad", "two")
    assert "the reference sample does not come out" in str(answers.fault)
    assert answers.outputs == [None, None]
    assert not answers.errors


@pytest.mark.parametrize("error", [MemoryError("no room"), RuntimeError("CUDA failure 2: out of memory ; GPU=0")])
def test_out_of_memory_is_the_devices_fault_and_no_records(model, error):
    def run(batch):
        raise error

    model.run = run
    answers = answer(model, "one", "two")
    assert isinstance(answers.fault, DeviceFailed)
    assert not answers.fault.lost
    assert not answers.errors


def test_a_batch_that_is_out_of_memory_again_after_a_good_probe_is_run_in_smaller_parts(model):
    run = model.run

    def run_two_at_most(batch):
        if len(batch) > 2:
            raise MemoryError("no room for three")
        return run(batch)

    model.run = run_two_at_most
    answers = answer(model, *"abcde", suspect=True)
    assert labels(answers) == [*"abcde"]
    assert answers.fault is None


async def test_while_the_device_fails_records_wait_and_are_then_answered_in_their_order(model, inbox, start):
    batcher = start(model, breaker=QUICK, max_rows=2)
    changes = []
    batcher.guard.on_change = changes.append
    model.device_works = False
    batcher.submit(entries_of(model, inbox, *"abcdefg"))
    while batcher.guard.failed_probes(model) < 3:
        await asyncio.sleep(0.005)
    assert inbox.entries == []
    assert batcher.guard.trouble == "the device does not work"
    runs = len(model.batches)
    await asyncio.sleep(0.05)
    assert len(model.batches) == runs, "while the device fails, only the sample is run"
    model.device_works = True
    await inbox.holds(7)
    assert [entry.text for entry in inbox.entries] == [*"abcdefg"]
    assert all(entry.outputs for entry in inbox.entries)
    assert changes == ["the device does not work", None]
    assert batcher.guard.trouble is None


async def test_batches_of_several_threads_are_held_in_the_order_in_which_they_began(inbox, start):
    model = GatedModel()
    batcher = start(model, breaker=QUICK, max_rows=1, max_in_flight=4, eager_in_flight=4)
    model.device_works = False
    batcher.submit(entries_of(model, inbox, *"abcdefgh"))
    while batcher.in_flight:
        await asyncio.sleep(0.005)
    held = [job.entries[0].text for job in batcher.guard._held]
    assert held == [*"abcd"]
    model.device_works = True
    await inbox.holds(8)
    assert sorted(entry.text for entry in inbox.entries) == [*"abcdefgh"]


async def test_a_device_that_fails_for_too_long_is_given_up_and_everybody_is_answered_with_closed(model, inbox, start):
    batcher = start(model, breaker=BreakerLimits(0.01, 0.02, give_up_s=0.1), max_rows=1)
    lost = []
    batcher.on_lost = lost.append
    model.device_works = False
    batcher.submit(entries_of(model, inbox, "one", "two"))
    await inbox.holds(2)
    batcher.submit(entries_of(model, inbox, "late"))
    await inbox.holds(3)
    assert [type(entry.error) for entry in inbox.entries] == [Closed, Closed, Closed]
    (error,) = lost
    assert error.lost
    assert "has failed for" in str(error)


async def test_an_error_after_which_cuda_never_works_again_is_given_up_at_once(model, inbox, start):
    def run(batch):
        raise RuntimeError("CUDA failure 700: an illegal memory access was encountered ; GPU=0")

    model.run = run
    batcher = start(model, breaker=BreakerLimits(10, 10, 60))
    lost = []
    batcher.on_lost = lost.append
    batcher.submit(entries_of(model, inbox, "one"))
    await inbox.holds(1)
    assert isinstance(inbox.entries[0].error, Closed)
    assert lost[0].lost


async def test_a_run_past_its_deadline_is_ended_and_its_records_are_answered_afterwards(inbox, start):
    ended = threading.Event()

    class Hanging(GatedModel):
        hangs = True

        def run(self, batch):
            if self.hangs:
                ended.wait(10)
                self.hangs = False
                raise ModelFailed("terminated")
            return super().run(batch)

        def terminate(self, thread):
            ended.set()

    model = Hanging()
    batcher = start(model, breaker=QUICK, deadline_s=0.2)
    changes = []
    batcher.guard.on_change = changes.append
    batcher.submit(entries_of(model, inbox, "one", "two"))
    await inbox.holds(2)
    assert all(entry.outputs for entry in inbox.entries)
    assert changes == ["a forward pass was not back within 0.2 s", None]


async def test_a_run_that_does_not_end_at_twice_its_deadline_is_given_up(model, inbox, start):
    batcher = start(model, breaker=QUICK, deadline_s=0.1)
    lost = []
    batcher.on_lost = lost.append
    model.gate.clear()
    batcher.submit(entries_of(model, inbox, "one"))
    await inbox.holds(1)
    assert isinstance(inbox.entries[0].error, Closed)
    assert "did not end at twice its deadline" in str(lost[0])


async def test_a_text_above_the_token_budget_has_as_much_more_time_as_it_has_tokens(inbox, start):
    model = GatedModel(run_s=0.5)
    batcher = start(model, breaker=QUICK, deadline_s=0.2, token_budget=10)
    changes = []
    batcher.guard.on_change = changes.append
    model.terminate = lambda thread: changes.append("ended")
    batcher.submit(entries_of(model, inbox, "word " * 60))
    await inbox.holds(1)
    assert inbox.entries[0].outputs
    assert not changes


async def test_whoever_was_kept_from_submitting_hears_when_a_device_answers_that_nobody_waits_for(model, inbox, start):
    batcher = start(model, breaker=QUICK)
    model.device_works = False
    batcher.submit(entries_of(model, inbox, "one"))
    while batcher.guard.trouble is None:
        await asyncio.sleep(0.005)
    batcher.close_waiting()
    room = asyncio.Event()
    batcher.on_room(room.set)
    model.device_works = True
    async with asyncio.timeout(60):
        await room.wait()
    assert batcher.guard.trouble is None


async def test_the_next_batch_runs_when_nobody_waits_for_the_one_that_the_device_failed_on(model, inbox, start):
    batcher = start(model, breaker=QUICK, max_rows=1)
    model.gate.clear()
    first, second = entries_of(model, inbox, "one", "two")
    batcher.submit([first, second])
    await model.has_begun()
    first.cancelled, model.device_works = True, False
    model.gate.set()
    async with asyncio.timeout(60):
        while batcher.guard.trouble is None:
            await asyncio.sleep(0.005)
    model.device_works = True
    await inbox.holds(1)
    assert [(entry.text, entry.error) for entry in inbox.entries] == [("two", None)]


async def test_a_probe_that_comes_back_after_the_stop_sets_no_timer():
    ends = []
    limits = BreakerLimits(first_pause_s=0.01, longest_pause_s=0.01, give_up_s=0.05)
    guard = DeviceGuard(limits, probe=lambda: None, resume=lambda: None, give_up=ends.append)
    guard.hold(Job(0, [], 0, VersionTerms(1, 1, 1)), DeviceFailed("gone"))
    guard.stop()
    guard.record_probe(None, DeviceFailed("still gone"))
    await asyncio.sleep(0.1)
    assert not ends


async def test_a_stop_while_the_device_fails_answers_with_closed_at_once(model, inbox, start):
    batcher = start(model, breaker=BreakerLimits(5, 5, 60), max_rows=1)
    model.device_works = False
    batcher.submit(entries_of(model, inbox, "one", "two"))
    while batcher.guard.trouble is None:
        await asyncio.sleep(0.005)
    async with asyncio.timeout(60):
        await batcher.stop(600)
    assert [type(entry.error) for entry in inbox.entries] == [Closed, Closed]


async def test_a_cancelled_entry_of_a_held_batch_holds_nobody_up(model, inbox, start):
    batcher = start(model, breaker=QUICK, max_rows=1)
    model.device_works = False
    first, second = entries_of(model, inbox, "one", "two")
    batcher.submit([first, second])
    while batcher.guard.trouble is None:
        await asyncio.sleep(0.005)
    first.cancelled = True
    model.device_works = True
    await inbox.holds(1)
    assert [entry.text for entry in inbox.entries] == ["two"]
    assert batcher.guard.trouble is None


async def test_what_waits_is_handed_back_when_another_model_takes_the_place(model, start):
    class Taking:
        def __init__(self):
            self.taken = []

        def deliver(self, entries):
            raise AssertionError("nothing is answered here")

        def take_back(self, entries):
            self.taken += entries

    sink = Taking()
    batcher = start(model, breaker=BreakerLimits(5, 5, 60), max_rows=1)
    model.device_works = False
    entries: list[Entry] = entries_of(model, sink, "one", "two", "three")
    batcher.submit(entries)
    while batcher.guard.trouble is None:
        await asyncio.sleep(0.005)
    batcher.take_back()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert sink.taken == entries


async def test_a_batch_that_runs_while_its_model_is_exchanged_and_then_fails_is_handed_back(inbox, start):
    class Taking:
        def __init__(self):
            self.taken = []

        def take_back(self, entries):
            self.taken += entries

    model, sink = GatedModel(), Taking()
    batcher = start(model, breaker=BreakerLimits(5, 5, 60))
    model.gate.clear()
    (entry,) = entries_of(model, sink, "one")
    entry.model = model
    batcher.submit([entry])
    await model.has_begun()
    batcher.swap(model, GatedModel(), batcher.limits.terms)
    model.device_works = False
    model.gate.set()
    async with asyncio.timeout(60):
        while not sink.taken:
            await asyncio.sleep(0.005)
    assert sink.taken == [entry]
