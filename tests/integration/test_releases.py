"""Versions as events: a released model takes over under load, a bad one changes nothing, going back is a release."""

import asyncio
import json
import shutil
from collections import Counter
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from serving import Desk, ids
from tiny_model import TASKS, write_tiny_model

from murmura.runtime.model_store import ModelStore
from murmura.runtime.releases import publish_state, read_states
from murmura.runtime.settings import KafkaSettings
from murmura.schemas.manifest import TaskSpec
from murmura.schemas.release import released, rolled_back
from murmura.schemas.serving_event import ServingEvent


class Releases:
    """A store of tiny models, and releases of them on the desk's Kafka."""

    def __init__(self, desk: Desk, folder: Path) -> None:
        self.desk, self.folder = desk, folder
        self.url = str(folder / "store")
        self.store = ModelStore(self.url)
        self.kafka = KafkaSettings(bootstrap_servers=desk.bootstrap)
        self.topic = f"{desk.prefix}.models"

    def push(self, seed: int, tasks: list[TaskSpec] | None = None) -> int:
        folder = self.folder / f"made{seed}"
        shutil.rmtree(folder, ignore_errors=True)
        write_tiny_model(folder, tasks or TASKS, seed=seed)
        return self.store.push(folder)

    async def release(self, version: int, digest: str | None = None) -> None:
        state = (await read_states(self.kafka, self.topic)).get("tiny")
        digest = digest or self.store.digest("tiny", version)
        new = released(state, "tiny", version, digest, by="test", why="test", at=datetime.now(UTC))
        await publish_state(self.kafka, self.topic, new)

    async def roll_back(self) -> None:
        state = (await read_states(self.kafka, self.topic))["tiny"]
        await publish_state(self.kafka, self.topic, rolled_back(state, by="test", why="test", at=datetime.now(UTC)))

    async def events(self, count: int) -> list[ServingEvent]:
        records = await self.desk.read(f"{self.desk.prefix}.events", count)
        return [ServingEvent.model_validate_json(record.value) for record in records]

    def serving(self, **model):
        settings = {"cores": 1, "token_budget": 256, "store": self.url, "name": "tiny", **model}
        return self.desk.serving(model=settings)


@pytest.fixture
async def releases(desk: Desk, make_topics, tmp_path, monkeypatch) -> Releases:
    monkeypatch.setenv("MURMURA_CACHE", str(tmp_path / "cache"))
    await make_topics("models", prefix=desk.prefix, partitions=1, config={"cleanup.policy": "compact"})
    await make_topics("events", prefix=desk.prefix, partitions=1)
    return Releases(desk, tmp_path)


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


async def test_bad_versions_are_refused_with_their_reason_and_the_old_one_goes_on(desk: Desk, releases: Releases):
    await releases.release(releases.push(1))
    damaged, without_task, good = releases.push(2), releases.push(3, TASKS[:2]), releases.push(4)
    graph = Path(releases.url) / "tiny" / str(damaged) / "model.ragged.onnx"
    graph.chmod(0o644)
    graph.write_bytes(graph.read_bytes()[:-100])
    async with releases.serving() as serving:
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
    reasons = [event.reason for event in events]
    assert reasons[0] in {"damaged", "too_large"}
    assert reasons[1:4] == ["wrong_digest", "lacks_task", "missing"]
    assert set(counted) <= {1, good}


async def test_the_same_state_again_changes_nothing_and_is_counted(desk: Desk, releases: Releases):
    await releases.release(releases.push(1))
    async with releases.serving() as serving:
        state = (await read_states(releases.kafka, releases.topic))["tiny"]
        await desk.send(state.model_dump_json().encode(), topic=releases.topic, key=b"tiny")
        async with asyncio.timeout(20):
            while b'swaps_total{outcome="stale"}' not in _scrape(serving):
                await asyncio.sleep(0.05)


def _scrape(serving) -> bytes:
    from prometheus_client import generate_latest

    return generate_latest(serving.metrics.registry)
