"""A process at its most talkative, with faults everywhere: nothing that it writes anywhere shows a secret or a text."""

import asyncio
import io
import logging
from dataclasses import replace
from datetime import UTC, datetime
from urllib.request import urlopen

import pytest
from guarded_broker import PLAIN_USERS
from kafka_topics import create_topics
from serving import Desk

from murmura.agents.classification import agent as classification
from murmura.runtime.agent.agent import agent
from murmura.runtime.observe.logs import configure
from murmura.runtime.release.states import publish_state
from murmura.runtime.settings.settings import KafkaSettings
from murmura.schemas.release import released

SECRET, TEXT = "hunter2canary", "my-card-canary"
USER = "canary-user"
PATHS = ("/livez", "/readyz", "/metrics")
STORE = f"memory://me:{SECRET}@bucket/models"


@pytest.fixture
def logs():
    handlers, level = logging.getLogger().handlers[:], logging.getLogger().level
    stream = io.StringIO()
    configure("debug", "json", stream)
    yield stream
    configure("info")
    logging.getLogger().handlers[:] = handlers
    logging.getLogger().setLevel(level)


async def test_neither_a_secret_nor_a_text_is_shown_by_logs_events_health_or_metrics(
    guarded_kafka, guarded_desk: Desk, logs, tmp_path, monkeypatch
):
    desk = guarded_desk
    monkeypatch.setenv("MURMURA_CACHE", str(tmp_path / "cache"))
    guarded_kafka.add_user(USER, SECRET)
    for topic, config in (("models", {"cleanup.policy": "compact"}), ("events", {})):
        await create_topics(desk.bootstrap, [f"{desk.prefix}.{topic}"], 1, config)

    @agent(topics=[desk.requests], tasks=["intent"], output=desk.analysed, name="failing")
    def failing(request, prediction):
        raise ValueError(request.text)

    agents = [replace(classification, topics=(desk.requests,), output=desk.classified), failing]
    security = {"protocol": "SASL_PLAINTEXT", "sasl_mechanism": "SCRAM-SHA-256", "username": USER, "password": SECRET}
    settings = {
        "kafka": {"bootstrap_servers": guarded_kafka.sasl, "security": security},
        "model": {"folder": desk.model, "store": STORE, "name": "tiny", "cores": 1, "token_budget": 256},
        "tracing": {"exporter": "otlp", "sample_ratio": 1, "endpoint": f"http://me:{SECRET}@127.0.0.1:1/v1?t={SECRET}"},
    }
    async with desk.serving(agents, **settings) as serving:
        state = released(None, "tiny", 7, "0" * 64, by="test", why="test", at=datetime.now(UTC))
        await publish_state(KafkaSettings(bootstrap_servers=desk.bootstrap), f"{desk.prefix}.models", state)
        good = {"id": "r0", "text": TEXT}
        await desk.send(good, TEXT.encode(), {"text": TEXT, "tasks": [TEXT]}, {"text": [TEXT]}, key=TEXT.encode())
        await desk.read(desk.classified, 1)
        await desk.read(desk.dead_letters, 4)
        events = await desk.read(f"{desk.prefix}.events", 1)
        shown = [await asyncio.to_thread(lambda path=path: urlopen(serving.url + path).read()) for path in PATHS]
    written = logs.getvalue()
    for fault in ("release refused", "an agent failed", "while exporting span"):
        assert fault in written
    for output in (written.encode(), *(each.value for each in events), *shown):
        for canary in (SECRET, TEXT, *PLAIN_USERS.values()):
            assert canary.encode() not in output
