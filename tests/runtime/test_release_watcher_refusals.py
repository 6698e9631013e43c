# ruff: noqa: F811 - fixtures are imported, and then named by the tests that take them
"""Refusals that are not the version's own."""

import asyncio

from release_world import after, until, world  # noqa: F401

from murmura.runtime.errors import VersionRefused


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
