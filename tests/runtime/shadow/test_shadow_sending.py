"""Sends of shadows: best effort, bounded, and apart from results."""

import asyncio

import pytest

from murmura.runtime.errors import TopicRefused
from murmura.runtime.observe.metrics import Metrics
from murmura.runtime.shadow.sending import ShadowSender
from murmura.runtime.wire.message import Message

from .conftest import until


class Publisher:
    def __init__(self, answer):
        self.answer, self.taken, self.stopped = answer, [], False

    async def start(self):
        pass

    async def stop(self):
        self.stopped = True

    async def publish(self, messages):
        self.taken += messages
        return await self.answer(messages)


async def accept(messages):
    return [None] * len(messages)


async def refuse(messages):
    return [TopicRefused("no such topic")] * len(messages)


async def hang(messages):
    await asyncio.sleep(60)


def message(value=b"x"):
    return Message("murmura.shadow", value, b"k", [])


def make(answer, most_bytes=10_000):
    publisher, metrics = Publisher(answer), Metrics()
    sender = ShadowSender(lambda: publisher, metrics, most_bytes)
    return (
        sender,
        publisher,
        lambda: metrics.registry.get_sample_value("murmura_dropped_messages_total", {"topic": "murmura.shadow"}),
    )


async def test_what_is_put_is_sent_in_order():
    sender, publisher, dropped = make(accept)
    running = asyncio.create_task(sender.run())
    for value in (b"1", b"2"):
        sender.put(message(value))
    await until(lambda: len(publisher.taken) == 2)
    running.cancel()
    assert ([each.value for each in publisher.taken], dropped()) == ([b"1", b"2"], None)


async def test_the_oldest_are_dropped_and_counted_where_too_many_bytes_wait():
    sender, publisher, dropped = make(accept, most_bytes=3000)
    for number in range(10):
        sender.put(message(bytes(500) + bytes([number])))
    await sender.stop()
    assert ([each.value[-1] for each in publisher.taken], dropped()) == ([8, 9], 8)


@pytest.mark.parametrize("answer", [refuse, hang])
async def test_what_is_not_taken_is_dropped_and_counted(answer, monkeypatch):
    monkeypatch.setattr("murmura.runtime.shadow.sending._PATIENCE_S", 0.02)
    sender, publisher, dropped = make(answer)
    running = asyncio.create_task(sender.run())
    sender.put(message())
    await until(lambda: dropped() == 1)
    running.cancel()
    await sender.stop()
    assert publisher.stopped
