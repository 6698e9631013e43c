"""A bank's desk that converses, on topics of one test."""

import json
from collections import defaultdict
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from aiokafka import AIOKafkaProducer
from serving import Desk

from murmura.runtime.agent.discovery import find_agents
from murmura.schemas.dialogue import ConversationState, Reply

POLICY = """
intents:
  transfer: {needs: {place: "Where to?"}, reply: "To {place}.", forget: [place]}
  refund: {reply: "Yes."}
"""
TEXTS = ("transfer money to london on monday", "i want a refund please", "in london", "thanks")


@dataclass
class Bank:
    """A desk that converses: topics of one test, and a model that says different things of different texts."""

    desk: Desk
    policy: Path

    @property
    def turns(self) -> str:
        return f"{self.desk.prefix}.dialogue.turns"

    @asynccontextmanager
    async def serving(self, options=None, overrides=None, **more):
        agents = find_agents(["dialogue"], self.desk.prefix)
        overrides = {"dialogue": {**(overrides or {}), "options": {"policy": self.policy, **(options or {})}}}
        async with self.desk.serving(agents, agents=overrides, **more) as serving:
            yield serving

    async def say(self, *said: tuple[str, str], **more) -> None:
        """Send (conversation, text) pairs; each gets an id from its conversation and its place in it."""
        numbers: dict[str, int] = defaultdict(int)
        producer = AIOKafkaProducer(bootstrap_servers=self.desk.bootstrap)
        await producer.start()
        try:
            for conversation, text in said:
                numbers[conversation] += 1
                value = {"text": text, "metadata": {"n": str(numbers[conversation])}, **more}
                await producer.send(self.turns, json.dumps(value).encode(), key=conversation.encode())
        finally:
            await producer.stop()

    async def replies(self, count: int) -> list[Reply]:
        records = await self.desk.read(f"{self.desk.prefix}.dialogue.replies", count)
        return [Reply.model_validate_json(record.value) for record in records]

    async def states(self, count: int) -> dict[str, ConversationState | None]:
        """What the changelog says now: the last record of each conversation."""
        records = await self.desk.read(f"{self.desk.prefix}.dialogue.state", count)
        return {
            record.key.decode(): record.value and ConversationState.model_validate_json(record.value)
            for record in records
        }
