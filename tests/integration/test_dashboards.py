"""Every panel's and every variable's query says something about a real run of ours, asked of a real Prometheus."""

import asyncio
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from kafka_broker import ROOT
from prometheus_server import Prometheus, program, prometheus  # finds the scripts that make the dashboards
from serving import Desk
from tiny_model import INTENT, TASKS, write_tiny_model

from murmura.runtime.agent.discovery import find_agents
from murmura.runtime.release.states import publish_state, read_states
from murmura.runtime.release.store import ModelStore
from murmura.runtime.settings.settings import KafkaSettings
from murmura.schemas.release import released

POLICY = "intents: {refund: {reply: Yes.}}"
PATIENCE_S = 60.0


class Loop:
    """A desk with everything that is counted: requests good and bad, a release, feedback, doubts, a conversation."""

    def __init__(self, desk: Desk, folder) -> None:
        self.desk = desk
        self.policy = folder / "policy.yaml"
        self.policy.write_text(POLICY)
        self.url = str(folder / "store")
        self.store = ModelStore(self.url)
        for seed in (1, 2):
            # Open, so that a verdict may name a label that it does not have.
            tasks = [INTENT.model_copy(update={"open": True}), *TASKS[1:]]
            self.store.push(write_tiny_model(folder / f"made{seed}", tasks, seed=seed))

    async def release(self, version: int) -> None:
        kafka, topic = KafkaSettings(bootstrap_servers=self.desk.bootstrap), f"{self.desk.prefix}.models"
        state = (await read_states(kafka, topic)).get("tiny")
        digest = self.store.digest("tiny", version)
        new = released(state, "tiny", version, digest, by="test", why="test", at=datetime.now(UTC))
        await publish_state(kafka, topic, new)

    def serving(self):
        others = find_agents(["feedback", "dialogue"], self.desk.prefix)
        return self.desk.serving(
            [*self.desk.agents, *others],
            agents={"dialogue": {"options": {"policy": self.policy}}},
            model={"cores": 1, "token_budget": 256, "store": self.url, "name": "tiny"},
            reviews={"per_minute": 1000, "margin": 1.0},
        )

    async def some_traffic(self, round_: int) -> None:
        words = ("my card was lost", "i want a refund", "transfer money to london", "thanks")
        await self.desk.send(*({"text": f"{words[n % 4]} {round_}"} for n in range(20)), b"not json")
        verdict = {"id": f"f{round_}", "prediction_id": "0" * 32, "agent": "classification", "task": "intent",
                   "model": {"name": "tiny", "version": 2}, "verdict": "correction", "value": "moon_card",
                   "by": "ann", "at": "2025-01-31T12:00:00Z"}  # fmt: skip
        await self.desk.send(verdict, topic=f"{self.desk.prefix}.feedback")
        await self.desk.send({"text": "i want a refund"}, topic=f"{self.desk.prefix}.dialogue.turns", key=b"ann")


@pytest.fixture
async def loop(desk: Desk, make_topics, tmp_path, monkeypatch) -> Loop:
    program("prometheus")
    monkeypatch.setenv("MURMURA_CACHE", str(tmp_path / "cache"))
    await make_topics("models", prefix=desk.prefix, partitions=1, config={"cleanup.policy": "compact"})
    await make_topics("dialogue.turns", "dialogue.replies", "handoffs", prefix=desk.prefix)
    await make_topics("dialogue.state", prefix=desk.prefix, config={"cleanup.policy": "compact"})
    await make_topics("retries", prefix=desk.prefix)
    await make_topics("events", "feedback", "reviews", prefix=desk.prefix, partitions=1)
    return Loop(desk, tmp_path)


RARE = (
    "murmura_truncated_total",
    "murmura_failed_fetches_total",
    "murmura_failed_parts_total",
    "murmura_dropped_messages_total",
    "murmura_new_logs_total",
    "murmura_expired_records_total",
    "murmura_expired_answers_total",
    "murmura_suspended_agents",
    "murmura_retries_total",
    "murmura_decoder_step",
    "murmura_reply_first_step",
    "murmura_reply_pieces",
    "murmura_experiment_",
    "murmura_shadow_records_total",
    'why="random"',
)
"""Counted where something goes wrong, which nothing does here, where a decoder words replies, which the model here has not,
or beside another version: they have no series before.
"""


def concrete(query: str) -> str:
    """What Grafana makes of a query: a window of a few scrapes, every process."""
    return query.replace("$__rate_interval", "10s").replace("$instance", ".*")


async def answers(on: Prometheus, queries: list[str]) -> dict[str, list]:
    """Rows of each query; NaN (a mean over nothing yet) is no answer."""
    rows = {query: await asyncio.to_thread(on.ask, concrete(query)) for query in queries}
    return {query: [row for row in of if row["value"][1] != "NaN"] for query, of in rows.items()}


def variables() -> Iterator[tuple[str, str]]:
    """Metric and label of each variable that Grafana asks Prometheus for; its API for a label's values is what Grafana uses."""
    from dashboards import DASHBOARDS

    for name in DASHBOARDS:
        board = json.loads((ROOT / f"deploy/grafana/dashboards/{name}.json").read_text())
        for variable in board["templating"]["list"]:
            if variable["type"] == "query":
                metric, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]).groups()
                yield metric, label


async def test_every_panel_and_every_variable_shows_a_real_run(loop: Loop, tmp_path):
    from dashboards import queries

    asked = [query for _, query in queries()]
    await loop.release(1)
    async with loop.serving() as serving:
        with prometheus(tmp_path, serving.url.removeprefix("http://"), ROOT / "deploy/prometheus/alerts.yaml") as on:
            await loop.release(2)
            found: dict[str, list] = {}
            for round_ in range(int(PATIENCE_S)):
                await loop.some_traffic(round_)
                await asyncio.sleep(1.0)
                found = await answers(on, asked)
                empty = {query for query, rows in found.items() if not rows and not any(name in query for name in RARE)}
                if not empty:
                    break
            assert empty == set()
            target = serving.url.removeprefix("http://")
            choices = {pair: on.get(f"/api/v1/label/{pair[1]}/values", **{"match[]": pair[0]}) for pair in variables()}
            groups = (await asyncio.to_thread(on.get, "/api/v1/rules"))["groups"]
    assert [rule["lastError"] for group in groups for rule in group["rules"] if rule.get("lastError")] == []
    assert choices == {("murmura_in_flight_records", "instance"): [target]}
    (accuracy,) = next(rows for query, rows in found.items() if "live_accuracy" in query)
    assert (accuracy["metric"], float(accuracy["value"][1])) == ({"task": "intent", "version": "2"}, 0.0)
