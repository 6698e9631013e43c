# ruff: noqa: F811 - fixtures are imported, and then named by the tests that take them
"""The batcher under cancellation and failing batches: everybody who waits is answered."""

import asyncio

import pytest
from gated_model import GatedModel, Inbox, entries_of, inbox, model, start  # noqa: F401

from murmura.runtime.errors import ModelFailed


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
    assert batcher.backlog.tokens == 0


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
    for each in inboxes:
        await each.holds(3)
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
