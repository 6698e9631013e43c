# ruff: noqa: F811 - fixtures are imported, and then named by the tests that take them
"""Versions as events: a released model takes over under load, a bad one changes nothing, going back is a release."""

import asyncio
import json
import urllib.request
import weakref
from collections import Counter
from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from aiokafka.structs import TopicPartition
from kafka_topics import create_topics, delete_topic
from prometheus_client import generate_latest
from released_models import Releases, releases  # noqa: F401
from serving import Desk, ids
from tiny_model import TASKS

from murmura.runtime.model.device_faults import model_error
from murmura.runtime.release.states import read_states


@asynccontextmanager
async def stream(desk: Desk):
    """Requests without a pause while the block runs; yields the list of their ids."""
    names: list[str] = []
    stop = asyncio.Event()

    async def send() -> None:
        while not stop.is_set():
            batch = [f"s{len(names) + n}" for n in range(10)]
            names.extend(batch)
            await desk.send(*({"id": name, "text": f"my card was lost {name}"} for name in batch))
            await asyncio.sleep(0.02)

    task = asyncio.create_task(send())
    try:
        yield names
    finally:
        stop.set()
        await task


async def versions(desk: Desk, names: list[str]) -> Counter[int]:
    """Wait until every request is answered; count the versions that did. Each was answered exactly once."""
    records = await desk.read(desk.classified, len(names))
    assert sorted(ids(records)) == sorted(names)
    return Counter(json.loads(record.value)["model"]["version"] for record in records)


async def test_a_release_takes_over_under_load_and_nothing_is_lost_or_repeated(desk: Desk, releases: Releases):
    first, second = releases.push(1), releases.push(2)
    await releases.release(first)
    async with releases.serving() as serving:
        async with stream(desk) as names:
            await desk.read(desk.classified, 20)
            await releases.release(second)
            (event,) = await releases.events(1)
            await asyncio.sleep(0.3)
        counted = await versions(desk, names)
        assert serving.engine.model.manifest.version == second
    assert set(counted) == {first, second}
    assert (event.event, event.version, event.previous) == ("model.swapped", second, first)


async def test_a_new_process_serves_the_released_version_and_not_the_folder_in_its_settings(
    desk: Desk, releases: Releases
):
    releases.push(1)
    await releases.release(releases.push(2))
    async with releases.serving(folder=desk.model) as serving:
        assert serving.engine.model.manifest.version == 2


async def test_without_a_release_the_folder_serves(desk: Desk, releases: Releases):
    async with releases.serving(folder=desk.model) as serving:
        assert serving.engine.model.manifest.version == 0


async def test_rolling_back_is_one_more_release(desk: Desk, releases: Releases):
    await releases.release(releases.push(1))
    await releases.release(releases.push(2))
    async with releases.serving() as serving:
        await releases.roll_back()
        (event,) = await releases.events(1)
        assert serving.engine.model.manifest.version == 1
    assert (event.version, event.previous, event.generation) == (1, 2, 3)


def cut_off(releases: Releases, version: int) -> None:
    graph = Path(releases.url) / "tiny" / str(version) / "model.ragged.onnx"
    graph.write_bytes(graph.read_bytes()[:-100])


async def test_bad_versions_are_refused_with_their_reason_and_the_old_one_goes_on(desk: Desk, releases: Releases):
    await releases.release(releases.push(1))
    damaged, without_task, good = releases.push(2), releases.push(3, TASKS[1:]), releases.push(4)
    cut_off(releases, damaged)
    both = [replace(desk.agents[0], tasks=("intent",)), desk.agents[1]]
    async with releases.serving(agents=both) as serving:
        async with stream(desk) as names:
            for number, (version, digest) in enumerate(
                [(damaged, None), (good, "0" * 64), (without_task, None), (99, "0" * 64)], start=1
            ):
                await releases.release(version, digest)
                await releases.events(number)
            assert serving.engine.model.manifest.version == 1
            await releases.release(good)
            events = await releases.events(5)
        counted = await versions(desk, names)
    assert [event.event for event in events] == ["model.rejected"] * 4 + ["model.swapped"]
    assert [event.reason for event in events[:4]] == ["damaged", "wrong_digest", "lacks_task", "missing"]
    assert len({event.instance for event in events}) == 1
    assert set(counted) <= {1, good}


async def test_the_same_state_again_changes_nothing_and_is_counted(desk: Desk, releases: Releases):
    await releases.release(releases.push(1))
    async with releases.serving() as serving:
        await releases.release(second := releases.push(2))
        await until(lambda: serving.engine.model.manifest.version == second)
        before = stale(serving)
        state = (await read_states(releases.kafka, releases.topic))["tiny"]
        await desk.send(state.model_dump_json().encode(), topic=releases.topic, key=b"tiny")
        await until(lambda: stale(serving) == before + 1)
        assert (before, len(await releases.events(1))) == (0, 1)


async def test_results_metrics_and_readiness_name_the_new_version_and_the_old_model_is_gone(
    desk: Desk, releases: Releases
):
    await releases.release(releases.push(1))
    async with releases.serving() as serving:
        await desk.send({"id": "a", "text": "my card"})
        await desk.read(desk.classified, 1)
        old = weakref.ref(serving.engine.model)
        await releases.release(second := releases.push(2))
        await until(lambda: serving.engine.model.manifest.version == second)
        await desk.send({"id": "b", "text": "my card"})
        records = await desk.read(desk.classified, 2)
        results = [json.loads(record.value) for record in records]
        assert {result["request_id"]: result["model"]["version"] for result in results} == {"a": 1, "b": second}
        ready = await asyncio.to_thread(lambda: urllib.request.urlopen(f"{serving.url}/readyz").read())
        assert json.loads(ready)["model"] == {"name": "tiny", "version": second, "device": "cpu"}
        infos = [line for line in scrape(serving).splitlines() if line.startswith("murmura_model_info{")]
        assert len(infos) == 1
        assert f'version="{second}"' in infos[0]
        await until(lambda: old() is None)


async def test_a_record_that_cannot_be_unpacked_ends_no_process(desk: Desk, releases: Releases, spoiled_batch):
    await releases.release(releases.push(1))
    async with releases.serving() as serving:
        await spoiled_batch(desk.bootstrap, TopicPartition(releases.topic, 0))
        await releases.release(second := releases.push(2))
        await until(lambda: serving.engine.model.manifest.version == second)


async def test_while_a_bad_version_is_current_new_processes_serve_the_one_before_and_say_so(
    desk: Desk, releases: Releases
):
    await releases.release(releases.push(1))
    cut_off(releases, bad := releases.push(2))
    await releases.release(bad)
    async with releases.serving() as serving:
        assert serving.engine.model.manifest.version == 1
        (event,) = await releases.events(1)
        assert (event.event, event.version, event.previous, event.reason) == ("model.rejected", bad, 1, "damaged")
        assert 'swaps_total{outcome="rejected"} 1.0' in scrape(serving)


async def test_a_release_during_an_outage_of_the_store_serves_once_the_store_is_back(desk: Desk, releases: Releases):
    await releases.release(releases.push(1))
    second = releases.push(2)
    digest = releases.store.digest("tiny", second)
    async with releases.serving() as serving:
        Path(releases.url).rename(f"{releases.url}.away")
        await releases.release(second, digest)
        await releases.events(1)
        Path(f"{releases.url}.away").rename(releases.url)
        events = await releases.events(2)
        assert serving.engine.model.manifest.version == second
    assert [event.reason for event in events] == ["store_unreachable", None]


async def test_after_the_end_of_a_models_releases_running_and_new_processes_serve_the_same(
    desk: Desk, releases: Releases
):
    first = releases.push(1)
    for _ in range(3):
        await releases.release(first)
    async with releases.serving() as serving:
        await desk.send(None, topic=releases.topic, key=b"tiny")
        await releases.release(second := releases.push(2))
        await until(lambda: serving.engine.model.manifest.version == second)


async def test_a_topic_of_events_that_is_gone_does_not_stop_answers_and_gets_the_events_when_it_is_back(
    desk: Desk, releases: Releases
):
    events = f"{desk.prefix}.events"
    await releases.release(releases.push(1))
    async with releases.serving() as serving:
        await delete_topic(desk.bootstrap, events)
        await releases.release(99, "0" * 64)
        await until(lambda: 'outcome="rejected"} 1.0' in scrape(serving))
        await releases.release(second := releases.push(2))
        await until(lambda: serving.engine.model.manifest.version == second)
        await desk.send({"id": "a", "text": "my card"})
        assert ids(await desk.read(desk.classified, 1, patience_s=10)) == ["a"]
        await create_topics(desk.bootstrap, [events], 1, {})
        assert [event.event for event in await releases.events(2)] == ["model.rejected", "model.swapped"]


async def until(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.05)


def scrape(serving) -> str:
    return generate_latest(serving.metrics.registry).decode()


def stale(serving) -> float:
    name, labels = "murmura_model_swaps_total", {"outcome": "stale"}
    return serving.metrics.registry.get_sample_value(name, labels) or 0.0


class OutOfMemory:
    """A runner of a version that does not fit on the device any more."""

    device = "cpu"

    def run(self, feeds):
        raise model_error(RuntimeError("CUDA failure 2: out of memory ; GPU=0"), "onnxruntime")

    def terminate(self, thread=None) -> None:
        pass


async def test_while_the_device_fails_with_a_version_the_one_before_answers_what_waited(desk: Desk, releases: Releases):
    first, second = releases.push(1), releases.push(2)
    await releases.release(first)
    await releases.release(second)
    async with releases.serving(probe_pause_s=0.05, give_up_s=60) as serving:
        assert serving.engine.model.manifest.version == second
        serving.engine.model.runner = OutOfMemory()
        names = [f"r{number}" for number in range(60)]
        await desk.send(*({"id": name, "text": f"my card was lost {name}"} for name in names))
        assert await versions(desk, names) == {first: 60}
        (event,) = [each for each in await releases.events(1) if each.event == "model.fell_back"]
        assert (event.version, event.previous) == (first, second)
        assert "out of memory" in event.message
        state = (await read_states(releases.kafka, releases.topic))["tiny"]
        assert state.current.version == second, "the release state is not written: other processes may serve it"
        third = releases.push(3)
        await releases.release(third)
        await until(lambda: serving.engine.model.manifest.version == third)
        await desk.send({"id": "after", "text": "my card was lost"})
        assert (await versions(desk, [*names, "after"]))[third] == 1
    assert await desk.read(desk.dead_letters, 0) == []
    assert await desk.committed() == await desk.ends()
