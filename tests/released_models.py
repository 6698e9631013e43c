"""A store of tiny models, and releases of them on a real Kafka."""

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
from serving import Desk
from tiny_model import TASKS, write_tiny_model

from murmura.runtime.release.states import publish_state, read_states
from murmura.runtime.release.store import ModelStore
from murmura.runtime.settings.settings import KafkaSettings
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

    def serving(self, agents=(), **model):
        settings = {"cores": 1, "token_budget": 256, "store": self.url, "name": "tiny", **model}
        return self.desk.serving(agents, model=settings)


@pytest.fixture
async def releases(desk: Desk, make_topics, tmp_path, monkeypatch) -> Releases:
    monkeypatch.setenv("MURMURA_CACHE", str(tmp_path / "cache"))
    await make_topics("models", prefix=desk.prefix, partitions=1, config={"cleanup.policy": "compact"})
    await make_topics("events", prefix=desk.prefix, partitions=1)
    return Releases(desk, tmp_path)
