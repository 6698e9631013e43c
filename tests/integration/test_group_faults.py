"""The client's membership in the group is lost while it fetches on: the process notices, and does not live on in vain."""

import asyncio
from contextlib import suppress
from urllib.request import urlopen

import pytest
from served_process import Process, ended
from serving import Desk

from murmura.runtime.agent.handler import Handler
from murmura.runtime.errors import MurmuraError
from murmura.runtime.wire.message import Publish

QUICK = {"session_timeout_ms": 1500, "heartbeat_interval_ms": 100}


def coordinator():
    """Return the coordinator of the one consumer with a group that runs here."""
    (task,) = [task for task in asyncio.all_tasks() if task.get_coro().__name__ == "_coordination_routine"]
    return task.get_coro().cr_frame.f_locals["self"]


async def serve_until_it_ends(desk: Desk, fault) -> None:
    """Serve, cause a fault, and raise what ended the process: it answers nobody any more."""
    async with desk.serving(kafka={"bootstrap_servers": desk.bootstrap, **QUICK}) as serving:
        await desk.send({"id": "r0", "text": "my card was lost"})
        await desk.read(desk.classified, 1)
        fault()
        with suppress(OSError):
            async with asyncio.timeout(60):
                while await asyncio.to_thread(urlopen, f"{serving.url}/metrics"):
                    await asyncio.sleep(0.2)


async def test_a_coordination_task_that_ends_with_an_error_ends_the_process(desk: Desk):
    def fail():
        raise AssertionError("no assignment")

    def break_client():
        client = coordinator()
        client.need_rejoin = lambda subscription: fail()
        client.request_rejoin()

    with pytest.raises(MurmuraError, match=r"coordination has ended .*no assignment"):
        await serve_until_it_ends(desk, break_client)


async def test_a_group_that_may_not_be_read_any_more_ends_the_process(guarded_kafka, guarded_desk: Desk):
    desk = guarded_desk
    group = f"murmura.{desk.prefix}"
    try:
        with pytest.raises(MurmuraError, match="GroupAuthorizationFailedError"):
            await serve_until_it_ends(desk, lambda: guarded_kafka.deny(group, "read", kind="group"))
    finally:
        guarded_kafka.allow_again(group, kind="group")


@pytest.mark.parametrize("operation", ["read", "all"])
def test_a_group_that_may_not_be_read_is_named_at_start_in_one_line(
    guarded_kafka, guarded_desk: Desk, tmp_path, operation
):
    group = f"murmura.{guarded_desk.prefix}"
    with guarded_kafka.denied(group, operation, kind="group"):
        process = Process(guarded_desk, tmp_path)
        with ended([process]):
            assert process.process.wait(30) == 2, process.written
    *_, last = process.written.splitlines()
    assert last == f"murmura: this client may not use group {group}: allow READ on it, or set another kafka.group"
    assert "Traceback" not in process.written


async def test_the_rack_of_the_settings_is_that_of_the_fetching_consumer(desk: Desk):
    async with desk.serving(kafka={"bootstrap_servers": desk.bootstrap, "client_rack": "rack-7"}):
        fetches = [task for task in asyncio.all_tasks() if task.get_coro().__name__ == "_fetch_requests_routine"]
        assert [task.get_coro().cr_frame.f_locals["self"]._client_rack for task in fetches] == ["rack-7"]


class Forgetful(Handler):
    """Raises whenever partitions are taken away."""

    name, revocations = "forgetful", 0

    def __init__(self, desk: Desk) -> None:
        self.topics, self.outputs = (desk.requests,), (desk.analysed,)

    async def handle(self, record, engine):
        return [Publish(self.outputs[0], record.value, key=record.key)]

    def revoked(self):
        self.revocations += 1
        raise KeyError("state")


async def test_a_handler_whose_hook_raises_at_a_rebalance_swallows_no_record(desk: Desk):
    handler, other = Forgetful(desk), Forgetful(desk)
    settings = {
        "agents": {"forgetful": {"probe_pause_s": 0.2}},
        "kafka": {"bootstrap_servers": desk.bootstrap, **QUICK},
    }
    names = [b'{"id": "r%d"}' % number for number in range(60)]
    async with desk.serving([handler], **settings):
        await desk.send(*names[:20])
        async with desk.serving([other], **settings):
            await desk.send(*names[20:40])
            await desk.read(desk.analysed, 40)
        await desk.send(*names[40:])
        async with asyncio.timeout(60):
            while not set(names) <= {each.value for each in await desk.read(desk.analysed, 60)}:
                pass
    assert handler.revocations >= 2
    assert other.revocations >= 1
    assert await desk.committed() == await desk.ends()


async def test_an_error_of_our_own_at_a_rebalance_ends_the_process(desk: Desk):
    def break_rebalance():
        client = coordinator()
        dispatcher = client._subscription.listener._dispatcher
        drain = dispatcher.drain

        async def fail(budget_s):
            dispatcher.drain = drain
            raise LookupError("a bug")

        dispatcher.drain = fail
        client.request_rejoin()

    with pytest.raises(LookupError, match="a bug"):
        await serve_until_it_ends(desk, break_rebalance)
