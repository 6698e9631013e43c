"""Requests, results, reviews and feedback that refer to each other, in memory, to be fed to a join or written to a real Kafka."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from aiokafka import AIOKafkaProducer

from murmura.runtime.testing.fakes import classified
from murmura.schemas.ids import prediction_id
from murmura.training.ingest.manifest import ROLES, FrozenRange, Options, Plan

NOON = datetime(2025, 1, 31, 12, tzinfo=UTC)
STAMP = time.time_ns() // 1_000_000
"""Of the first records. Not long ago, or a real broker deletes them as too old."""


class WorldRecord(NamedTuple):
    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass
class World:
    """A topic for each role. Whatever is added gets the next offset of its partition."""

    prefix: str = "world"
    partitions: int = 2
    logs: dict[str, list[list[WorldRecord]]] = field(default_factory=dict)
    judged: int = 0

    def __post_init__(self) -> None:
        for role in ROLES:
            self.logs[self.topic(role)] = [[] for _ in range(self.partitions)]

    def topic(self, role: str) -> str:
        return f"{self.prefix}.{role}"

    def add(
        self, role: str, value: dict | bytes | None, *, key: bytes | None = None, partition: int = 0
    ) -> WorldRecord:
        log = self.logs[self.topic(role)][partition]
        raw = json.dumps(value).encode() if isinstance(value, dict) else value
        log.append(WorldRecord(self.topic(role), partition, len(log), STAMP + len(log), key, raw))
        return log[-1]

    def ask(
        self,
        text: str,
        outputs: Mapping[str, Any] | None = None,
        *,
        key: bytes | None = None,
        partition: int = 0,
        agent: str = "classification",
        second: str | None = None,
        **change: Any,
    ) -> str:
        """Add a request and its result; returns the prediction id. `change` overrides fields of the result."""
        value = {"text": text} if second is None else {"text": text, "text_pair": second}
        request = self.add("requests", value, key=key, partition=partition)
        return self.answer(request, outputs, agent=agent, **change)

    def answer(
        self,
        request: WorldRecord,
        outputs: Mapping[str, Any] | None = None,
        *,
        agent: str = "classification",
        **change: Any,
    ) -> str:
        request_id = f"{request.topic}/{request.partition}/{request.offset}/{request.timestamp}"
        this = prediction_id(agent, request.topic, request_id)
        value = {
            "request_id": request_id,
            "prediction_id": this,
            "agent": agent,
            "status": "ok",
            "model": {"name": "desk", "version": 3},
            "source": {
                "topic": request.topic,
                "partition": request.partition,
                "offset": request.offset,
                "timestamp": request.timestamp,
            },
            "outputs": outputs if outputs is not None else {"intent": classified("other", 0.6, ("refund", 0.4))},
            "truncated": False,
            "metadata": {},
            "time": "2025-01-31T11:00:00Z",
        }
        self.add("results", value | change, key=request.key, partition=request.partition)
        return this

    def reply(
        self,
        conversation: str,
        number: int,
        said: str,
        text: str,
        *,
        acts: Sequence[Mapping[str, str]] = (),
        slots: Mapping[str, str] | None = None,
        partition: int = 0,
        **change: Any,
    ) -> str:
        """Add a turn and the dialogue agent's reply to it; returns the prediction id."""
        turn = self.add("requests", {"text": said}, key=conversation.encode(), partition=partition)
        request_id = f"{turn.topic}/{turn.partition}/{turn.offset}/{turn.timestamp}"
        this = prediction_id("dialogue", turn.topic, request_id)
        source = {
            "topic": turn.topic,
            "partition": turn.partition,
            "offset": turn.offset,
            "timestamp": turn.timestamp,
        }
        value = {
            "request_id": request_id,
            "prediction_id": this,
            "agent": "dialogue",
            "conversation": conversation,
            "number": number,
            "kind": "answered",
            "text": text,
            "slots": dict(slots or {}),
            "acts": [dict(act) for act in acts],
            "wording": "template",
            "source": source,
        }
        self.add("replies", value | change, key=turn.key, partition=partition)
        return this

    def edit(self, prediction: str, value: Any = None, **options: Any) -> str:
        """Add feedback on the words of a reply."""
        return self.judge(prediction, value, **{"task": "reply", "agent": "dialogue", **options})

    def judge(
        self,
        prediction: str,
        value: Any = None,
        *,
        verdict: str | None = None,
        task: str = "intent",
        by: str = "ann",
        minute: float = 0,
        consent: bool = True,
        agent: str = "classification",
        name: str | None = None,
        partition: int = 0,
    ) -> str:
        """Add feedback; returns its id. Without a verdict it is a correction, or without a value too a confirmation."""
        self.judged += 1
        name = name or f"f-{self.judged}"
        feedback = {
            "id": name,
            "prediction_id": prediction,
            "agent": agent,
            "task": task,
            "verdict": verdict or ("confirmed" if value is None else "correction"),
            "value": value,
            "by": by,
            "at": (NOON + timedelta(minutes=minute)).isoformat(),
            "consent": consent,
        }
        self.add("feedback", feedback, key=name.encode(), partition=partition)
        return name

    def draw(self, prediction: str, *, task: str = "intent", rate: float = 0.01, why: str = "random") -> None:
        """Add a review of a prediction."""
        value = {"prediction_id": prediction, "agent": "classification", "task": task, "why": why}
        self.add("reviews", value | {"sampling_rate": rate if why == "random" else None}, key=prediction.encode())

    def plan(self, **options: Any) -> Plan:
        ranges = [
            FrozenRange(role=role, topic=self.topic(role), partition=number, start=0, end=len(log))
            for role in ROLES
            for number, log in enumerate(self.logs[self.topic(role)])
        ]
        return Plan(options=Options(**({"heldout": 0.0} | options)), ranges=ranges)

    async def write(self, bootstrap: str) -> None:
        """Write everything to topics of these names, which are new."""
        producer = AIOKafkaProducer(bootstrap_servers=bootstrap, linger_ms=20, enable_idempotence=True)
        await producer.start()
        try:
            for logs in self.logs.values():
                for log in logs:
                    for record in log:
                        await producer.send(
                            record.topic,
                            record.value,
                            key=record.key,
                            partition=record.partition,
                            timestamp_ms=record.timestamp,
                            headers=list(record.headers),
                        )
        finally:
            await producer.stop()
