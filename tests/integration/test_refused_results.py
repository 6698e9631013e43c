"""A message that the broker refuses for its content is one dead letter, and disturbs nothing else of the process."""

from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
from serving import Desk, ids, reason

from murmura.agents.classification import agent as classification
from murmura.runtime.agent.agent import agent
from murmura.runtime.wire.message import Publish

MakeDesk = Callable[[dict[str, str]], Awaitable[Desk]]


@pytest.fixture
def make_desk(kafka, make_topics, unique, tiny_model) -> MakeDesk:
    """`classification` and `copy` share the requests; the topic `copied` has the given configuration."""

    async def make(config: dict[str, str]) -> Desk:
        prefix = unique("desk")
        await make_topics("requests", "classified", "deadletters", partitions=1, prefix=prefix)
        await make_topics("copied", partitions=1, prefix=prefix, config=config)
        desk = Desk(kafka, prefix, tiny_model)

        @agent(topics=[desk.requests], tasks=["intent"])
        def copy(request, prediction):
            return Publish(f"{prefix}.copied", request.value, key=request.key)

        desk.agents = [replace(classification, topics=(desk.requests,), output=desk.classified), copy]
        return desk

    return make


def texts(*names: str, filler: str = "") -> list[dict]:
    return [{"id": name, "text": f"my card was lost {name} {filler}"} for name in names]


def sent_again(serving) -> float:
    """0: neither did intake pause nor was another producer made."""
    return serving.metrics.registry.get_sample_value("murmura_send_retries_total")


@pytest.mark.parametrize(
    ("config", "filler", "key", "expected"),
    [
        ({"cleanup.policy": "compact"}, "", None, "agent_failed"),
        ({"max.message.bytes": "2000", "compression.type": "uncompressed"}, "lost " * 1000, b"k", "too_large"),
    ],
    ids=["no key in a compacted topic", "too large"],
)
async def test_a_refused_message_is_one_dead_letter_and_neither_agent_waits(
    make_desk: MakeDesk, config, filler, key, expected
):
    desk = await make_desk(config)
    copied = f"{desk.prefix}.copied"
    async with desk.serving(producer={"compression": None}) as serving:
        await desk.send(*texts("a", "b"), key=b"k")
        assert len(await desk.read(copied, 2)) == 2
        await desk.send(*texts("refused", filler=filler), key=key)
        await desk.send(*texts("c", "d"), key=b"k")
        assert [record.key for record in await desk.read(copied, 4)] == [b"k"] * 4
        assert sorted(ids(await desk.read(desk.classified, 5))) == ["a", "b", "c", "d", "refused"]
        (letter,) = await desk.read(desk.dead_letters, 1)
        assert sent_again(serving) == 0
    assert (reason(letter), dict(letter.headers)["murmura_dl_agent"]) == (expected, b"copy")
    assert await desk.committed() == await desk.ends()


async def test_messages_whose_timestamp_a_topic_refuses_are_dead_letters_and_the_other_agent_answers(
    make_desk: MakeDesk,
):
    # Every record is older than 0 ms when it arrives, but for the first of those that are sent alone.
    desk = await make_desk({"message.timestamp.before.max.ms": "0"})
    names = [f"r{number}" for number in range(30)]
    async with desk.serving() as serving:
        await desk.send(*texts(*names))
        assert sorted(ids(await desk.read(desk.classified, 30))) == sorted(names)
        letters = await desk.read(desk.dead_letters, 10)
        copied = sum((await desk.ends(f"{desk.prefix}.copied")).values())
        while len(letters) + copied < 30:
            letters = await desk.read(desk.dead_letters, len(letters) + 1)
            copied = sum((await desk.ends(f"{desk.prefix}.copied")).values())
        assert sent_again(serving) == 0
    assert len(letters) + copied == 30
    assert {(reason(each), dict(each.headers)["murmura_dl_agent"]) for each in letters} == {("agent_failed", b"copy")}
    assert await desk.committed() == await desk.ends()
