# ruff: noqa: F811 - fixtures are imported, and then named by the tests that take them
"""A candidate beside the current version: whatever becomes of it, its texts are answered and the device is not blamed."""

import asyncio

import pytest
from gated_model import GatedModel, Inbox, entries_of, model, start  # noqa: F401

from murmura.runtime.batching.breaker import BreakerLimits
from murmura.runtime.batching.version_queue import VersionTerms

TERMS = VersionTerms(1000, 256, 4000)


class Taking(Inbox):
    """A sink that submits what it takes back for the current version, like the dispatcher."""

    def __init__(self, batcher, current):
        super().__init__()
        self.batcher, self.current, self.taken = batcher, current, []

    def take_back(self, entries):
        self.taken += entries
        for entry in entries:
            entry.model = self.current
        self.batcher.submit(entries)


@pytest.fixture
async def world(model, start):
    batcher, candidate, faults = start(model), GatedModel(version=2), []
    batcher.load(candidate, TERMS, 5.0, faults.append)
    sink = Taking(batcher, model)

    def ask(*texts, of=candidate):
        entries = entries_of(of, sink, *texts)
        for entry in entries:
            entry.model = of
        batcher.submit(entries)

    return batcher, model, candidate, sink, faults, ask


async def test_a_candidate_whose_device_check_fails_is_unloaded_and_the_current_version_answers_its_texts(world):
    batcher, model, candidate, sink, faults, ask = world
    candidate.gate.clear()
    ask("one", "two")
    await candidate.has_begun()
    ask("three")
    ask("four", of=model)
    candidate.device_works = False
    candidate.gate.set()
    await sink.holds(4)
    assert [str(fault) for fault in faults] == ["the device does not work"]
    assert sorted(entry.text for entry in sink.taken) == ["one", "three", "two"]
    assert all(entry.error is None and entry.model is model for entry in sink.entries)
    assert batcher.guard.trouble is None
    assert not batcher.backlog.policy.is_loaded(candidate)


async def test_a_text_that_only_a_candidate_fails_on_is_answered_by_the_current_version(world):
    batcher, model, candidate, sink, faults, ask = world
    candidate.broken = frozenset({"bad"})
    ask("good", "bad")
    await sink.holds(2)
    assert [entry.text for entry in sink.taken] == ["bad"]
    assert {entry.text: entry.model for entry in sink.entries} == {"good": candidate, "bad": model}
    assert (faults, batcher.guard.trouble) == ([], None)
    assert batcher.backlog.policy.is_loaded(candidate)


async def test_a_candidate_that_became_current_fails_like_any_current_version(world):
    batcher, model, candidate, sink, faults, ask = world
    batcher.swap(model, candidate, TERMS, 5.0)
    candidate.device_works = False
    ask("one")
    async with asyncio.timeout(60):
        while batcher.guard.trouble is None:
            await asyncio.sleep(0.001)
    assert (faults, sink.taken) == ([], [])
    candidate.device_works = True
    await sink.holds(1)


async def test_while_a_trial_runs_two_versions_with_texts_set_no_timer(model, start):
    batcher, other, sink = (
        start(model, breaker=BreakerLimits(first_pause_s=0.01), max_in_flight=2),
        GatedModel(),
        Inbox(),
    )
    batcher.load(other, TERMS, 5.0)
    model.device_works = False
    held, late, beside = (entries_of(of, sink, text) for of, text in ((model, "a"), (model, "b"), (other, "c")))
    for entry, of in ((held[0], model), (late[0], model), (beside[0], other)):
        entry.model = of
    batcher.submit(held)
    async with asyncio.timeout(60):
        while batcher.guard.trouble is None:
            await asyncio.sleep(0.001)
        batcher.submit([*late, *beside])
        model.gate.clear()
        model.device_works = True
        while not batcher.in_flight:
            await asyncio.sleep(0.001)
    asked, wake_at = [], batcher.backlog.policy.wake_at
    batcher.backlog.policy.wake_at = lambda in_flight: asked.append(in_flight) or wake_at(in_flight)
    await asyncio.sleep(0.05)
    assert (batcher.guard.on_trial, len(asked)) == (True, 0)
    model.gate.set()
    await sink.holds(3)
