"""What is not finished is not gone past: after refusals, a closed publisher, or a freeze that cost the partitions."""

import asyncio

import pytest
from test_dispatcher import DEAD
from test_handlers import PARTITION, Line

from murmura.runtime.errors import Closed, MurmuraError
from murmura.runtime.wire.message import Publish


async def until(line: Line, true) -> None:
    async with asyncio.timeout(60):
        while not true():
            await asyncio.sleep(0.01)


async def test_a_refused_record_that_is_essential_ends_the_process_and_its_key_waits():
    line = Line()
    line.broker.refuses.add("state")
    await line.dispatcher.assign([PARTITION])
    line.receive((b"a", {"essential": True}), (b"a", {}), (b"b", {}))
    with pytest.raises(MurmuraError, match=r"larger than state allows, and without it nothing can go on"):
        await line.dispatcher.outbox.failure
    await until(line, lambda: line.handler.ended == [2])
    assert (line.handler.seen, line.handler.given) == ({b"b": [2]}, [0])
    assert line.committable in {None, 0}
    assert not [message for message in line.broker.taken if message.topic == DEAD]


@pytest.mark.parametrize("where", ["handler", "publisher"])
async def test_after_a_record_that_was_not_finished_its_key_waits_for_the_next_assignment(where, monkeypatch):
    line = Line()
    await line.dispatcher.assign([PARTITION])
    with monkeypatch.context() as patch:
        if where == "publisher":
            patch.setattr(line.broker, "publish", closed)
        line.receive((b"a", {"closed": where == "handler"}), (b"a", {}))
        await until(line, lambda: line.handler.given)
        await asyncio.sleep(0.02)
    line.receive((b"a", {}), (b"b", {}))
    await until(line, lambda: line.handler.ended)
    assert (line.handler.ended, line.handler.given) == ([3], [0])
    assert await line.dispatcher.drain(1)
    line.tracker.revoke()
    await line.dispatcher.assign([PARTITION])
    line.offset = 0
    line.receive((b"a", {}), (b"a", {}))
    await until(line, lambda: line.handler.ended == [3, 0, 1])


async def closed(messages):
    raise Closed("stopped")


async def test_records_wait_until_the_broker_has_what_getting_ready_gave():
    line = Line()
    line.handler.first = [Publish("state", b"again", b"a", partition=1, essential=True)]
    line.broker.gate.clear()
    line.receive((b"a", {}))
    await line.dispatcher.assign([PARTITION])
    await asyncio.sleep(0.02)
    assert not line.handler.seen
    line.broker.gate.set()
    await line.settle()
    assert [(m.topic, m.value, m.partition) for m in line.broker.taken[:1]] == [("state", b"again", 1)]
    assert line.handler.seen[b"a"] == [0]


async def test_getting_ready_whose_record_is_refused_ends_the_process():
    line = Line()
    line.handler.first = [Publish("state", b"again", b"a", partition=1, essential=True)]
    line.broker.refuses.add("state")
    line.receive((b"a", {}))
    await line.dispatcher.assign([PARTITION])
    with pytest.raises(MurmuraError, match="topic state takes no record of 5 bytes"):
        await line.dispatcher.outbox.failure
    assert not line.handler.seen


async def test_what_was_begun_before_a_freeze_is_not_sent_when_the_partitions_are_gone():
    line = Line()
    line.handler.freeze_s = 0.3
    await line.dispatcher.assign([PARTITION])
    line.receive((b"a", {"frozen_s": 0.5}), (b"b", {}))
    await asyncio.sleep(0.05)  # frozen, and thawed before the group has said anything
    assert line.broker.taken == []
    assert await line.dispatcher.drain(1)
    assert (line.broker.taken, sorted(line.handler.given)) == ([], [0, 1])
    line.tracker.revoke()
    await line.dispatcher.assign([PARTITION])
    line.offset = 0
    line.receive((b"a", {}))
    await until(line, lambda: line.handler.ended == [0])


async def test_a_freeze_that_cost_no_partition_only_delays():
    line = Line()
    line.handler.freeze_s = 0.3
    await line.dispatcher.assign([PARTITION])
    line.receive((b"a", {"frozen_s": 0.5}), (b"a", {}))
    await until(line, lambda: line.handler.ended == [0, 1])
    assert line.handler.given == []


async def test_a_drain_sends_what_is_under_way():
    line = Line()
    line.handler.freeze_s = 10.0
    await line.dispatcher.assign([PARTITION])
    line.receive((b"a", {"steps": 5}))
    await asyncio.sleep(0)
    assert await line.dispatcher.drain(1)
    await until(line, lambda: line.handler.ended == [0])
