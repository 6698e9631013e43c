"""A process that serves dialogues, without a broker: its changelog is a list, and a crash is the next process."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiokafka.structs import ConsumerRecord, TopicPartition

from murmura.agents.dialogue import Dialogue
from murmura.runtime.agent.handler import Context
from murmura.runtime.agent.routes import configure_agents
from murmura.runtime.experiments.unit_assignment import RunningExperiment
from murmura.runtime.kafka.changelog import Restored
from murmura.runtime.observe.metrics import Metrics
from murmura.runtime.settings.settings import Settings
from murmura.runtime.testing.fakes import FakeEngine, FakeModel, abstained, classified, tagged
from murmura.runtime.wire.message import Publish
from murmura.schemas.manifest import TaskSpec
from murmura.schemas.release import GeneratedReplies

TURNS, REPLIES, STATE, HANDOFFS = (
    "murmura.dialogue.turns",
    "murmura.dialogue.replies",
    "murmura.dialogue.state",
    "murmura.handoffs",
)
POLICY = """
greeting: Hello.
intents:
  transfer:
    needs:
      amount: How much?
    reply: "{amount} is on its way."
    forget: [amount]
    action:
      topic: bank.transfers
      fields: {amount: "{amount}", conversation: "{conversation}", request: "{request_id}"}
  complaint:
    to_person: true
"""
TASKS = [
    TaskSpec(name="intent", kind="classification", labels=["transfer", "complaint"]),
    TaskSpec(name="entities", kind="tagging", labels=["O", "B-amount", "I-amount"]),
]


def answers(text: str) -> dict[str, Any]:
    if text.startswith("£"):
        return {"intent": abstained("complaint", 0.05), "entities": tagged(text, amount=text)}
    label = {"send": "transfer", "angry": "complaint"}.get(text.partition(" ")[0])
    return {"intent": classified(label, 0.9) if label else abstained("transfer", 0.3)}


def model() -> FakeModel:
    return FakeModel(TASKS, answers, broken=["break"])


Log = list[tuple[int, bytes | None, bytes | None]]


class Process:
    """A serving process that has taken over from a changelog."""

    def __init__(
        self,
        policy: Path,
        log: Log,
        *,
        served: FakeModel | None = None,
        released: Callable[[], GeneratedReplies] = GeneratedReplies,
        experiment: Callable[[], RunningExperiment | None] = lambda: None,
        engine: FakeEngine | None = None,
        reviews: dict[str, float] | None = None,
        **options: Any,
    ) -> None:
        self.agent = Dialogue(policy)
        self.log = log
        self.metrics = Metrics()
        self.engine = engine or FakeEngine(served or model())
        self.written_again: list[Publish] = []
        settings = Settings(agents={"dialogue": {"options": options}}, reviews=reviews or {})
        configure_agents(settings, [self.agent])
        self.agent.check(self.engine.model.manifest)
        self.agent.prepare(self.engine.model)
        self.agent.started(
            Context(
                settings,
                self.metrics,
                self.engine,
                ("dialogue",),
                {TURNS: 4, STATE: 4},
                self.restore,
                generated_replies=released,
                experiment=experiment,
            )
        )

    async def restore(self, topic, partitions, take, *, timeout_s):
        assert topic == STATE
        for partition, key, value in self.log:
            if partition in partitions:
                take(partition, key, value)
        return Restored(len(self.log), 0, 0.1)

    async def begin(self, *partitions: int) -> "Process":
        mine = frozenset(TopicPartition(TURNS, number) for number in partitions or (2,))
        self.written_again = await self.agent.assigned(mine)
        keep(self.log, self.written_again)
        return self

    async def hear(self, record: ConsumerRecord, *, acknowledged: bool = True) -> list[Publish]:
        published = [*await self.agent.handle(record, self.engine)]
        if acknowledged:
            keep(self.log, published)
            self.agent.finished(record)
        return published

    def counted(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0


def keep(log: Log, published: list[Publish]) -> None:
    log.extend((m.partition, m.key.encode() if isinstance(m.key, str) else m.key, m.value) for m in published
               if m.topic == STATE)  # fmt: skip


def turn(
    offset: int, text: str, *, key: bytes | None = b"c-1", partition: int = 2, at: int = 0, **more
) -> ConsumerRecord:
    value = json.dumps({"text": text, **more}).encode()
    return ConsumerRecord(TURNS, partition, offset, at or 1000 * offset, 0, key, value, None, 3, 9, ())


def content(published: list[Publish]) -> list[tuple[str, Any, Any, int | None]]:
    """Everything but the time in the headers."""
    return [(m.topic, m.key, m.value, m.partition) for m in published]
