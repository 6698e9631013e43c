# ruff: noqa: F811 - fixtures are imported, and then named by the tests that take them
"""What a process does with the candidate of a release state: load it beside the current version, follow its share, drop it."""

import asyncio

import pytest
from release_world import NOON, after, until, world  # noqa: F401

from murmura.runtime.errors import VersionRefused
from murmura.runtime.experiments.unit_assignment import Assignment
from murmura.runtime.release.first_model import StartState
from murmura.schemas.experiment import Experiment
from murmura.schemas.release import (
    Candidate,
    Release,
    completed,
    promoted,
    raised,
    released,
    shadowed,
    started,
    stopped,
)

SPRING = Experiment(id="spring", share=0.05, started=NOON)
BY = {"by": "ann", "why": "", "at": NOON}
CURRENT = after(None, 1)


def begin(state=CURRENT, version=2, experiment=SPRING):
    return started(state, version, f"{version:064x}", experiment, **BY)


@pytest.fixture
def serving(world):
    """A world in which version 1 serves and is the state's."""

    def make(*outcomes):
        made = world(*outcomes, start=StartState(CURRENT, CURRENT.current))
        made.log.apply(b"tiny", CURRENT.model_dump_json().encode())
        return made

    return make


def loaded(world):
    return None if world.slot.candidate is None else world.slot.candidate.manifest.version


def count_outcomes(world):
    """Return the counts of `murmura_candidates_total` above 0 by outcome."""
    (family,) = [each for each in world.metrics.registry.collect() if each.name == "murmura_candidates"]
    return {sample.labels["outcome"]: sample.value for sample in family.samples if sample.value}


async def test_a_candidate_is_loaded_beside_the_current_version_and_a_raised_share_loads_nothing(serving):
    w = serving()
    async with w.running():
        w.hear(state := begin())
        await until(lambda: loaded(w) == 2)
        assert w.slot.assignment == Assignment("spring", "key", 0.05)
        w.hear(raised(state, 0.5, **BY))
        assert w.slot.assignment == Assignment("spring", "key", 0.5)
        await asyncio.sleep(0.05)
    assert (w.loader.staged, w.slot.model.manifest.version, w.reporter.events) == ([2], 1, [])


async def test_a_share_that_is_raised_while_the_candidate_is_loaded_is_the_one_it_gets(serving):
    w = serving()
    w.loader.go_on.clear()
    async with w.running():
        w.hear(state := begin())
        await until(lambda: w.loader.staged == [2])
        w.hear(raised(state, 0.5, **BY))
        w.loader.go_on.set()
        await until(lambda: loaded(w) == 2)
    assert (w.loader.staged, w.slot.assignment.share) == ([2], 0.5)


async def test_a_promoted_candidate_becomes_current_without_being_loaded_again(serving):
    w = serving()
    async with w.running():
        w.hear(state := begin())
        await until(lambda: loaded(w) == 2)
        w.hear(state := promoted(state, **BY))
        assert w.slot.assignment.share == 0.95
        w.hear(completed(state, **BY))
        await until(lambda: w.slot.model.manifest.version == 2)
    assert (w.loader.staged, loaded(w)) == ([2], None)
    assert w.reporter.kinds == [("model.swapped", 2, None)]
    assert count_outcomes(w) == {"loaded": 1, "completed": 1}


async def test_a_process_that_could_not_serve_the_candidate_loads_it_when_it_becomes_current(serving):
    w = serving(VersionRefused("damaged", "cut off"), None)
    async with w.running():
        w.before_publish = [lambda: w.hear(completed(state, **BY))]
        w.hear(state := begin())
        await until(lambda: w.slot.model.manifest.version == 2)
    assert w.loader.staged == [2, 2]


@pytest.mark.parametrize("end", [stopped, lambda state, **by: released(state, "tiny", 3, "c" * 64, **by)])
async def test_a_candidate_that_is_no_longer_in_the_state_is_dropped_at_once(serving, end):
    w = serving()
    async with w.running():
        w.hear(state := begin())
        await until(lambda: loaded(w) == 2)
        w.hear(after_it := end(state, **BY))
        assert loaded(w) is None
        await until(lambda: w.slot.model.manifest.version == after_it.current.version)


async def test_a_candidate_is_dropped_beside_a_version_that_the_process_fell_back_to(serving):
    w = serving()
    async with w.running():
        w.hear(begin())
        await until(lambda: loaded(w) == 2)
        w.watcher.serves = Release(version=9, digest="9" * 64)
        assert loaded(w) is None
        w.watcher.serves = CURRENT.current
        await until(lambda: loaded(w) == 2)


async def test_what_is_being_loaded_for_a_stopped_experiment_is_given_up_for_the_next_one(serving):
    w = serving()
    w.loader.go_on.clear()
    async with w.running():
        w.hear(state := begin())
        await until(lambda: w.loader.staged == [2])
        w.hear(state := stopped(state, **BY))
        w.hear(begin(state, 3, Experiment(id="summer", share=0.1, started=NOON)))
        await until(lambda: w.loader.staged == [2, 3])
        w.loader.go_on.set()
        await until(lambda: loaded(w) == 3)
    assert w.slot.assignment.experiment == "summer"


@pytest.mark.parametrize("reason", ["damaged", "lacks_task"])
async def test_the_experiment_of_a_refused_candidate_is_stopped_with_one_event_each_and_the_current_version_serves(
    serving, reason
):
    w = serving(VersionRefused(reason, "not this one"))
    async with w.running():
        w.before_publish = [lambda: w.hear(raised(state, 0.5, **BY))]
        w.hear(state := begin())
        await until(lambda: w.watcher.state.candidate is None and len(w.reporter.events) == 2)
        await asyncio.sleep(0.05)
    assert w.reporter.kinds == [("candidate.rejected", 2, reason), ("experiment.stopped", 2, None)]
    assert w.watcher.state.history[-1].why == f"the candidate was refused ({reason}): not this one"
    assert (w.loader.staged, loaded(w), w.slot.model.manifest.version, w.count("rejected")) == ([2], None, 1, 1)


async def test_a_candidate_of_a_store_that_is_away_is_tried_until_it_is_back(serving):
    away = VersionRefused("store_unreachable", "away")
    w = serving(away, away, None)
    async with w.running():
        w.hear(begin())
        await until(lambda: loaded(w) == 2)
    assert (w.loader.staged, w.reporter.kinds) == ([2] * 3, [("candidate.rejected", 2, "store_unreachable")])


async def test_a_candidate_without_an_experiment_is_refused(serving):
    w = serving()
    lone = Candidate(version=2, digest="c" * 64, share=0.1)
    state = released(CURRENT, "tiny", 1, CURRENT.current.digest, **BY).model_copy(update={"candidate": lone})
    async with w.running():
        w.hear(state)
        await until(lambda: bool(w.reporter.events))
    assert w.reporter.kinds[0] == ("candidate.rejected", 2, "unsupported")


async def test_a_shadow_is_compared_on_its_share_and_answers_nothing_until_it_is_dropped(serving):
    w = serving()
    async with w.running():
        w.hear(state := shadowed(CURRENT, 2, "c" * 64, 0.1, **BY))
        await until(lambda: w.slot.shadow is not None)
        assert (loaded(w), w.slot.assignment) == (None, 0.1)
        w.hear(stopped(state, **BY))
        assert w.slot.shadow is None


async def test_a_shadow_that_fails_is_stopped_with_one_event(serving):
    w = serving()
    async with w.running():
        w.hear(shadowed(CURRENT, 2, "c" * 64, 0.1, **BY))
        await until(lambda: w.slot.shadow is not None)
        w.slot.fail("not finite")
        await until(lambda: bool(w.reporter.events))
        assert w.reporter.kinds[0] == ("candidate.failed", 2, None)


async def test_a_candidate_that_was_there_at_the_start_is_loaded_once_the_process_serves(world):
    state = begin()
    w = world(start=StartState(state, state.current))
    assert w.candidates.experiment is not None, "turns of conversations may come before the loops have begun"
    async with w.running():
        await until(lambda: loaded(w) == 2)


async def test_a_candidate_is_not_loaded_beside_another_version_than_that_of_its_state(world):
    state = begin(after(CURRENT, 3))
    w = world(VersionRefused("damaged", "cut off"), start=StartState(CURRENT, CURRENT.current))
    async with w.running():
        w.hear(state)
        await until(lambda: bool(w.reporter.events))
        await asyncio.sleep(0.05)
    assert (w.reporter.kinds, w.loader.staged) == ([("model.rejected", 3, "damaged")], [3])


async def test_the_experiment_of_a_candidate_that_fails_is_stopped_with_one_event_each(serving):
    w = serving()
    async with w.running():
        w.hear(begin())
        await until(lambda: loaded(w) == 2)
        w.slot.fail("it does not run any more")
        await until(lambda: w.watcher.state.candidate is None)
        await until(lambda: len(w.reporter.events) == 2)
        await asyncio.sleep(0.05)
    assert w.reporter.kinds == [("candidate.failed", 2, None), ("experiment.stopped", 2, None)]
    last = w.watcher.state.history[-1]
    assert (last.experiment, last.by, last.why) == (
        "stopped",
        "here",
        "the candidate failed: it does not run any more",
    )
    assert (w.published, w.loader.staged, w.slot.model.manifest.version) == (1, [2], 1)
    assert count_outcomes(w) == {"loaded": 1, "failed": 1, "stopped": 1}


async def test_a_share_that_is_raised_at_the_same_time_does_not_save_a_candidate_that_fails(serving):
    w = serving()
    async with w.running():
        w.hear(state := begin())
        await until(lambda: loaded(w) == 2)
        w.before_publish = [lambda: w.hear(raised(state, 0.5, **BY))]
        w.slot.fail("broken")
        await until(lambda: w.watcher.state.candidate is None)
    assert (w.published, w.loader.staged) == (2, [2])


async def test_a_broker_that_is_away_for_long_does_not_save_a_candidate_that_fails(serving):
    def be_away():
        raise ConnectionError("away")

    w = serving()
    async with w.running():
        w.hear(begin())
        await until(lambda: loaded(w) == 2)
        w.before_publish = [be_away] * 6
        w.slot.fail("broken")
        await until(lambda: w.watcher.state.candidate is None)
    assert (w.published, w.loader.staged) == (1, [2])


async def test_an_experiment_that_another_process_has_stopped_is_not_stopped_again(serving):
    w = serving()
    async with w.running():
        w.hear(state := begin())
        await until(lambda: loaded(w) == 2)
        w.before_publish = [lambda: w.hear(stopped(state, **BY))]
        w.slot.fail("broken")
        await until(lambda: w.published == 1 and w.failed._waiting.empty())
        await asyncio.sleep(0.1)
    assert (w.published, w.reporter.kinds) == (1, [("candidate.failed", 2, None)])
