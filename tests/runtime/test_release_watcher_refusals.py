# ruff: noqa: F811 - fixtures are imported, and then named by the tests that take them
"""Refusals that are not the version's own, and candidates, which nothing here serves."""

import asyncio

from test_release_watcher import after, until, world  # noqa: F401

from murmura.runtime.errors import VersionRefused
from murmura.runtime.release.first_model import StartState
from murmura.schemas.release import Candidate


async def test_a_refusal_that_may_be_this_machines_fault_is_tried_five_times_and_told_at_the_first_and_the_last(world):
    w = world(VersionRefused("too_large", "ended by signal 9", certain=False))
    async with w.running():
        w.hear(after(None, 2))
        await until(lambda: len(w.reporter.events) == 2)
        await asyncio.sleep(0.2)
    assert w.reporter.kinds == [("model.rejected", 2, "too_large")] * 2
    assert w.loader.staged == [2] * 5


async def test_a_machine_that_was_busy_serves_the_version_once_it_is_not(world):
    w = world(VersionRefused("endless", "busy", certain=False), None)
    async with w.running():
        w.hear(after(None, 2))
        await until(lambda: w.slot.model.manifest.version == 2)
    assert w.reporter.kinds == [("model.rejected", 2, "endless"), ("model.swapped", 2, None)]


async def test_a_candidate_is_refused_with_an_event_and_the_current_version_of_its_state_served(world):
    w = world()
    state = after(None, 2).model_copy(update={"candidate": Candidate(version=3, digest="c" * 64, share=0.1)})
    async with w.running():
        w.hear(state)
        await until(lambda: len(w.reporter.events) == 2)
    assert w.reporter.kinds == [("model.rejected", 3, "unsupported"), ("model.swapped", 2, None)]
    assert (w.loader.staged, w.count("rejected")) == ([2], 1)


async def test_a_candidate_that_was_there_at_the_start_is_refused_with_an_event_too(world):
    state = after(None, 1).model_copy(update={"candidate": Candidate(version=2, digest="c" * 64, shadow=1.0)})
    w = world(start=StartState(state, state.current))
    async with w.running():
        await until(lambda: bool(w.reporter.events))
    assert w.reporter.kinds == [("model.rejected", 2, "unsupported")]
