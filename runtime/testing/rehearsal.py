"""Runs agents on requests without a broker: with the same decoding, routing, deciding and dead-lettering as in service.

    answers = await rehearse([my_agent], {"text": "where is my card?"}, model=FakeModel([INTENT], {...}))
    assert answers.results[0]["outputs"]["intent"]["label"] == "card_arrival"

    answers = await rehearse([Dialogue("policy.yaml")], ("c-1", {"text": "where is my card?"}), model=...)
    assert answers.values("murmura.dialogue.replies")[0]["kind"] == "asked"

The model is a `testing.FakeModel` with scripted outputs, or a real one.
"""

import asyncio
import itertools
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from aiokafka.structs import ConsumerRecord, TopicPartition

from ..agent.agent import Agent
from ..agent.handler import Context, Handler
from ..agent.routes import check_handlers, configure_agents, make_routes, prepare_handlers
from ..batching.callers.request_checks import EngineModel
from ..errors import DeliveryError
from ..flow.dispatcher import Dispatcher
from ..kafka.offset_tracker import Tracker
from ..observe.metrics import Metrics
from ..observe.tracing import Tracing
from ..settings.settings import Settings
from ..wire.message import Message
from .fakes import FakeEngine

DEAD_LETTERS = "murmura.deadletters"
_ROUNDS = 100
_PARTITIONS = 2**31
"""Number of partitions of every topic."""

Request = dict[str, Any] | bytes | None
"""A request's fields, or its value as in Kafka."""


@dataclass
class Answers:
    """The messages published for the requests, in order."""

    published: list[Message] = field(default_factory=list)
    outputs: frozenset[str] = frozenset()

    @property
    def results(self) -> list[dict[str, Any]]:
        """The values of the results."""
        return [json.loads(message.value or b"") for message in self.published if message.topic in self.outputs]

    def values(self, topic: str) -> list[Any]:
        """Return the values published to a topic; None for a message without a value."""
        return [json.loads(message.value or b"null") for message in self.published if message.topic == topic]

    @property
    def dead_letters(self) -> list[Message]:
        return [message for message in self.published if message.topic == DEAD_LETTERS]

    @property
    def handed_on(self) -> list[Message]:
        """The messages to topics other than the agents' outputs and the dead-letter topic."""
        return [m for m in self.published if m.topic not in self.outputs and m.topic != DEAD_LETTERS]


class _RehearsalPublisher:
    """A publisher that keeps all messages, and queues those of the agents' input topics for delivery."""

    def __init__(self, answers: Answers, inputs: Sequence[str]) -> None:
        self.taking = asyncio.Event()
        self.taking.set()
        self.answers = answers
        self.inputs = inputs
        self.waiting: list[Message] = []

    async def publish(self, messages: Sequence[Message]) -> list[DeliveryError | None]:
        self.answers.published += messages
        self.waiting += [message for message in messages if message.topic in self.inputs]
        return [None] * len(messages)

    async def partitions(self, topic: str) -> int:
        return _PARTITIONS


async def rehearse(
    agents: Sequence[Agent | Handler],
    *requests: Request | tuple[str, Request],
    model: EngineModel,
    settings: Settings | None = None,
    tracing: Tracing | None = None,
) -> Answers:
    """Deliver each request to the first agent's first topic, follow routed records, and return all published messages.

    A request may have a key: (key, request). Raises SetupError for agents that the model cannot serve.
    """
    settings, metrics, engine = settings or Settings(app="rehearsal"), Metrics(), FakeEngine(model)
    everyone = configure_agents(settings, agents)
    handlers = [agent for agent in everyone if isinstance(agent, Handler)]
    plain = [agent for agent in everyone if isinstance(agent, Agent)]
    routes = make_routes(plain, model.manifest, settings.app)
    check_handlers(handlers, model.manifest)
    prepare_handlers(handlers, model)
    answers = Answers(outputs=frozenset(agent.output for agent in plain if agent.output))
    inputs = [*routes, *(topic for handler in handlers for topic in handler.topics)]
    publisher = _RehearsalPublisher(answers, inputs)
    dispatcher = Dispatcher(
        engine,
        publisher,
        Tracker(),
        metrics,
        routes=routes,
        dead_letters=DEAD_LETTERS,
        max_value_bytes=settings.limits.max_value_bytes,
        max_hops=settings.limits.max_hops,
        fields=settings.fields,
        handlers=handlers,
        tracing=tracing,
    )
    for handler in handlers:
        names = tuple(agent.name for agent in everyone)
        handler.started(Context(settings, metrics, engine, names, predicting=tuple(plain)))
    await dispatcher.assign([TopicPartition(topic, 0) for topic in inputs])
    feeding = asyncio.create_task(dispatcher.run())
    numbers = itertools.count()
    publisher.waiting = [_make_message(everyone[0].topics[0], request) for request in requests]
    try:
        for _ in range(_ROUNDS):
            if not publisher.waiting and not dispatcher.has_work:
                break
            arriving, publisher.waiting = publisher.waiting, []
            for message in arriving:
                record = _make_record(message, next(numbers))
                dispatcher.receive({TopicPartition(record.topic, 0): [record]})
            async with asyncio.timeout(10):
                while dispatcher.has_work:  # noqa: ASYNC110
                    await asyncio.sleep(0)
    finally:
        feeding.cancel()
    return answers


def _make_message(topic: str, request: Request | tuple[str, Request]) -> Message:
    key, value = request if isinstance(request, tuple) else (None, request)
    raw = json.dumps(value).encode() if isinstance(value, dict) else value
    return Message(topic, raw, None if key is None else key.encode(), [])


def _make_record(message: Message, offset: int) -> ConsumerRecord:
    now_ms = int(time.time() * 1000)
    return ConsumerRecord(
        message.topic, 0, offset, now_ms, 0, message.key, message.value, None, -1, -1, tuple(message.headers)
    )
