"""A message that the broker refuses for its content is one dead letter, and disturbs nothing else of the process."""

from dataclasses import replace

import pytest
from serving import Desk, ids, reason

from murmura.agents.classification import agent as classification
from murmura.runtime.agent.agent import agent
from murmura.runtime.wire.message import Publish


@pytest.fixture
async def copying_desk(kafka, make_topics, unique, tiny_model) -> Desk:
    """`classification` and `copy` share the requests; `copied` is compacted: it takes no record without a key."""
    prefix = unique("desk")
    await make_topics("requests", "classified", "deadletters", partitions=1, prefix=prefix)
    await make_topics("copied", partitions=1, prefix=prefix, config={"cleanup.policy": "compact"})
    desk = Desk(kafka, prefix, tiny_model)

    @agent(topics=[desk.requests], tasks=["intent"])
    def copy(request, prediction):
        return Publish(f"{prefix}.copied", request.value, key=request.key)

    desk.agents = [replace(classification, topics=(desk.requests,), output=desk.classified), copy]
    return desk


def texts(*names: str) -> list[dict]:
    return [{"id": name, "text": f"my card was lost {name}"} for name in names]


async def test_a_refused_message_is_one_dead_letter_and_neither_agent_waits(copying_desk: Desk):
    desk = copying_desk
    copied = f"{desk.prefix}.copied"
    async with desk.serving() as serving:
        await desk.send(*texts("a", "b"), key=b"k")
        assert len(await desk.read(copied, 2)) == 2
        await desk.send(*texts("keyless"))
        await desk.send(*texts("c", "d"), key=b"k")
        assert [record.key for record in await desk.read(copied, 4)] == [b"k"] * 4
        assert sorted(ids(await desk.read(desk.classified, 5))) == ["a", "b", "c", "d", "keyless"]
        (letter,) = await desk.read(desk.dead_letters, 1)
        sent_again = serving.metrics.registry.get_sample_value("murmura_send_retries_total")
    assert (reason(letter), dict(letter.headers)["murmura_dl_agent"]) == ("agent_failed", b"copy")
    assert sent_again == 0  # intake did not pause, and no other producer was made
    assert await desk.committed() == await desk.ends()
