"""Handlers on a real Kafka: what cannot work is refused at start, and one that hangs costs its own record."""

import asyncio

import pytest
from serving import Desk, reason

from murmura.runtime.agent.handler import Handler
from murmura.runtime.errors import SetupError
from murmura.runtime.wire.message import Publish


class Echo(Handler):
    name, ordering, timeout_s = "echo", "key", 0.5

    def __init__(self, desk: Desk, *tasks: str) -> None:
        self.topics, self.outputs, self.tasks = (desk.requests,), (desk.classified,), tasks

    async def handle(self, record, engine):
        if record.value == b"hang":
            await asyncio.sleep(60)
        return [Publish(self.outputs[0], record.value, key=record.key)]


async def test_a_handler_whose_tasks_the_model_in_its_folder_lacks_is_refused_at_start(desk: Desk):
    with pytest.raises(SetupError, match="handler echo: tiny 0 has no task colour; its tasks are"):
        async with desk.serving([Echo(desk, "intent", "colour")]):
            pass


async def test_a_handler_beside_an_agent_on_one_topic_is_refused_at_start(desk: Desk):
    with pytest.raises(SetupError, match=f"both read {desk.requests}"):
        async with desk.serving([*desk.agents, Echo(desk)]):
            pass


async def test_a_record_that_hangs_is_a_dead_letter_and_the_next_of_its_key_is_answered(desk: Desk):
    await desk.send(b"hang", b"next", key=b"k")
    async with desk.serving([Echo(desk)]):
        (letter,) = await desk.read(desk.dead_letters, 1)
        (echo,) = await desk.read(desk.classified, 1)
    assert (letter.value, reason(letter), echo.value) == (b"hang", "agent_failed", b"next")
    assert sum((await desk.committed()).values()) == 2
