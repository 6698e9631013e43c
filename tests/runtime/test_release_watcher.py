# ruff: noqa: F811 - fixtures are imported, and then named by the tests that take them
"""What a process does with each release that it hears of: swap, refuse, try again, or nothing."""

import asyncio
import dataclasses
from contextlib import suppress
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.structs import TopicPartition
from bad_versions import MADE, TAMPERED, endless, push_made, push_tampered
from release_world import NOON, Scripted, World, after, model, until, world  # noqa: F401
from tiny_model import write_tiny_model

from murmura.agents.classification import agent as classification
from murmura.runtime.errors import VersionRefused
from murmura.runtime.kafka.embedded_broker import EmbeddedBroker
from murmura.runtime.release.first_model import StartState
from murmura.runtime.release.staging import Loader, Refusal
from murmura.runtime.release.states import ReleaseLog
from murmura.runtime.release.store import ModelStore
from murmura.runtime.settings.settings import Settings
from murmura.schemas.release import GeneratedReplies, switched
from murmura.schemas.serving_event import RejectReason


async def test_a_release_is_staged_and_swapped_in(world):
    w = world()
    async with w.running():
        w.hear(after(None, 2))
        await until(lambda: w.slot.model.manifest.version == 2)
    assert w.reporter.kinds == [("model.swapped", 2, None)]
    assert (w.reporter.events[0].previous, w.reporter.events[0].generation, w.count("swapped")) == (1, 1, 1)


async def test_of_several_releases_that_arrive_during_a_swap_the_newest_wins(world):
    w = world()
    w.loader.go_on.clear()
    states = [after(None, 2)]
    for version in (3, 4, 5):
        states.append(after(states[-1], version))
    async with w.running():
        w.hear(states[0])
        await until(lambda: w.loader.staged == [2])
        for state in states[1:]:
            w.hear(state)
        w.loader.go_on.set()
        await until(lambda: w.slot.model.manifest.version == 5)
    assert w.loader.staged == [2, 5]


async def test_the_same_state_again_and_an_older_one_swap_nothing_and_are_counted(world):
    w = world()
    one = after(None, 2)
    two = after(one, 3)
    async with w.running():
        w.hear(two)
        await until(lambda: w.slot.model.manifest.version == 3)
        before = w.count("stale")
        w.hear(two)
        w.hear(one)
        await until(lambda: w.count("stale") - before == 2)
    assert w.loader.staged == [3]
    assert len(w.reporter.events) == 1


async def test_a_switch_of_generated_replies_holds_at_once_is_announced_and_loads_nothing(world):
    first = after(None, 1)
    w = world(start=StartState(first, first.current))
    off = switched(first, GeneratedReplies(off=["fees"]), by="ann", why="odd", at=NOON)
    async with w.running():
        w.hear(off)
        assert w.watcher.generated_replies.off == ["fees"]
        w.hear(after(off, 2))
        await until(lambda: w.slot.model.manifest.version == 2)
    assert (w.loader.staged, [kind for kind, *_ in w.reporter.kinds]) == ([2], ["replies.switched", "model.swapped"])
    assert w.reporter.events[0].message == "generated replies are off for fees, by ann: odd"


async def test_what_the_start_has_read_already_is_neither_considered_nor_counted(world):
    state = after(after(None, 1), 2)
    w = world(start=StartState(state, state.current))
    known = ReleaseLog()
    known.apply(b"tiny", state.model_dump_json().encode())
    async with w.running():
        w.watcher.apply_initial(known)
        await asyncio.sleep(0.1)
    assert (w.loader.staged, w.count("stale"), w.reporter.events) == ([], 0, [])


async def test_what_came_while_nobody_listened_is_considered(world):
    w = world(start=StartState(after(None, 1), after(None, 1).current))
    known = ReleaseLog()
    known.apply(b"tiny", after(after(None, 1), 2).model_dump_json().encode())
    async with w.running():
        w.watcher.apply_initial(known)
        await until(lambda: w.slot.model.manifest.version == 2)


async def test_after_the_end_of_releases_generations_start_anew_for_old_processes_too(world):
    state = after(after(after(None, 1), 1), 1)
    w = world(start=StartState(state, state.current))
    async with w.running():
        w.hear(None)
        w.hear(after(None, 2))
        await until(lambda: w.slot.model.manifest.version == 2)


async def test_another_model_under_the_number_that_serves_is_another_release(world):
    first = after(None, 1)
    w = world(start=StartState(first, first.current))
    async with w.running():
        w.hear(again := after(first, 1))
        await asyncio.sleep(0.05)
        assert w.loader.staged == []
        w.hear(after(again, 1, "f" * 64))
        await until(lambda: w.loader.staged == [1])


async def test_a_refused_version_leaves_the_old_one_serving_and_one_event(world):
    w = world(VersionRefused("damaged", "cut off"))
    async with w.running():
        w.hear(after(None, 2))
        await until(lambda: bool(w.reporter.events))
        await asyncio.sleep(0.1)
    assert w.reporter.kinds == [("model.rejected", 2, "damaged")]
    assert (w.slot.model.manifest.version, w.loader.staged, w.count("rejected")) == (1, [2], 1)


@pytest.mark.parametrize("reason", ["store_unreachable", "no_room"])
async def test_a_store_that_is_away_is_tried_until_it_is_back_with_one_event(world, reason):
    away = VersionRefused(reason, "away")
    w = world(away, away, away, None)
    async with w.running():
        w.hear(after(None, 2))
        await until(lambda: w.slot.model.manifest.version == 2)
    assert w.reporter.kinds == [("model.rejected", 2, reason), ("model.swapped", 2, None)]
    assert (w.loader.staged, w.count("rejected")) == ([2] * 4, 1)


async def test_a_newer_release_ends_the_tries_for_the_one_before(world):
    w = world(VersionRefused("store_unreachable", "away"))
    first = after(None, 2)
    async with w.running():
        w.hear(first)
        await until(lambda: len(w.loader.staged) > 2)
        w.loader.outcomes = [None]
        w.hear(after(first, 3))
        await until(lambda: w.slot.model.manifest.version == 3)
        tries = len(w.loader.staged)
        await asyncio.sleep(0.2)
        assert len(w.loader.staged) == tries


async def test_a_try_that_ends_in_a_refusal_for_good_is_told_and_not_repeated(world):
    w = world(VersionRefused("store_unreachable", "away"), VersionRefused("damaged", "cut off"))
    async with w.running():
        w.hear(after(None, 2))
        await until(lambda: len(w.reporter.events) == 2)
        await asyncio.sleep(0.2)
    assert [event.reason for event in w.reporter.events] == ["store_unreachable", "damaged"]
    assert w.loader.staged == [2, 2]


async def test_a_refused_version_that_is_released_once_more_is_tried_once_more(world):
    w = world(VersionRefused("endless", "slow"), None)
    first = after(None, 2)
    async with w.running():
        w.hear(first)
        await until(lambda: bool(w.reporter.events))
        w.hear(after(first, 2))
        await until(lambda: w.slot.model.manifest.version == 2)


async def test_a_refusal_at_the_start_is_told_once_serving(world):
    state = after(after(None, 1), 2)
    w = world(start=StartState(state, after(None, 1).current, Refusal(RejectReason.DAMAGED, "cut off")))
    async with w.running():
        await until(lambda: bool(w.reporter.events))
    assert (w.reporter.kinds, w.count("rejected")) == ([("model.rejected", 2, "damaged")], 1)


async def test_a_store_that_was_away_at_the_start_is_tried_again(world):
    state = after(after(None, 1), 2)
    w = world(start=StartState(state, after(None, 1).current, Refusal(RejectReason.STORE_UNREACHABLE, "away")))
    async with w.running():
        await until(lambda: w.slot.model.manifest.version == 2)


@pytest.mark.parametrize("error", [MemoryError(), OSError(5, "Input/output error"), ZeroDivisionError()])
async def test_whatever_is_raised_does_not_end_the_loop(world, error):
    w = world(error, None)
    first = after(None, 2)
    async with w.running():
        w.hear(first)
        await until(lambda: bool(w.reporter.events))
        w.hear(after(first, 3))
        await until(lambda: w.slot.model.manifest.version == 3)


# Through the real store, child process and model.


@pytest.mark.parametrize("bad", [*MADE, *TAMPERED], ids=lambda bad: bad.__name__)
async def test_each_reason_leaves_the_old_version_serving_and_exactly_one_event(bad, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("MURMURA_CACHE", str(tmp_path / "cache"))
    (tmp_path / "store").mkdir()
    store = ModelStore(tmp_path / "store")
    settings, brief = (
        Settings(app="a", model={"store": store.address, "name": "tiny", "device": "cpu", "trial_timeout_s": seconds})
        for seconds in (60, 3)
    )
    agent = dataclasses.replace(classification, tasks=("intent",))
    w = World(Loader(brief if bad is endless else settings, store, [agent]), settings)
    push = push_made if bad in MADE else push_tampered
    first = after(None, *push(store, tmp_path / "bad", bad))
    good = store.push(write_tiny_model(tmp_path / "good"))
    async with w.running():
        w.hear(first)
        await until(lambda: bool(w.reporter.events), 120)
        assert w.slot.model.manifest.version == 1
        w.slot.model = model(7)
        w.watcher._loader = Loader(settings, store, [agent])
        w.hear(after(first, good, store.digest("tiny", good)))
        await until(lambda: len(w.reporter.events) == 2, 120)
    assert [event.reason for event in w.reporter.events] == [(MADE | TAMPERED)[bad], None]
    assert (w.reporter.events[1].previous, w.slot.model.manifest.version) == (7, good)


# On a broker.


async def test_a_record_that_cannot_be_unpacked_ends_nothing(world, spoiled_batch):
    with EmbeddedBroker({"m.models": 1}) as broker:
        kafka = {"bootstrap_servers": broker.bootstrap, "fetch_max_wait_ms": 5}
        settings = Settings(app="a", prefix="m", kafka=kafka, model={"store": "/nowhere", "name": "tiny"})
        w = World(Scripted(), settings)
        producer = AIOKafkaProducer(bootstrap_servers=broker.bootstrap)
        await producer.start()
        try:
            one = after(None, 2)
            await producer.send_and_wait("m.models", one.model_dump_json().encode(), b"tiny")
            async with w.running(w.watcher.follow()):
                await until(lambda: w.slot.model.manifest.version == 2)
                await spoiled_batch(broker.bootstrap, TopicPartition("m.models", 0))
                await producer.send_and_wait("m.models", b"{}", b"tiny")
                await producer.send_and_wait("m.models", after(one, 3).model_dump_json().encode(), b"tiny")
                await until(lambda: w.slot.model.manifest.version == 3)
        finally:
            with suppress(Exception):
                await producer.stop()
