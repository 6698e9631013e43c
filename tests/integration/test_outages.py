"""Outages of a broker: a process waits in few words and little memory, says that a restart would not help, and goes on."""

import asyncio
import json
import shutil
import signal
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from kafka_topics import create_topics
from served_process import Process, ended
from serving import Desk, ids

OUTAGE_S = 3.0
MOST_LINES = 40
"""Of an outage. The client has about a dozen ways to say that it reaches nobody, and says each of them ten times a second."""


PATHS = {"live": "livez", "ready": "readyz"}
TOPICS = ("requests", "classified", "analysed", "deadletters")


async def desk_on(bootstrap: str, prefix: str, model: Path) -> Desk:
    await create_topics(bootstrap, [f"{prefix}.{topic}" for topic in TOPICS], 3, {})
    return Desk(bootstrap, prefix, model)


async def send(desk: Desk, stem: str) -> None:
    """Send ten requests to each partition."""
    for partition in range(3):
        requests = ({"id": f"{stem}{partition}-{number}", "text": "my card was lost"} for number in range(10))
        await desk.send(*requests, partition=partition)


async def answered(desk: Desk, stem: str) -> None:
    """Wait until both agents have answered what was sent."""
    names = {f"{stem}{partition}-{number}" for partition in range(3) for number in range(10)}
    async with asyncio.timeout(60):
        for topic in (desk.classified, desk.analysed):
            count = len(names)
            while not names <= set(ids(records := await desk.read(topic, count))):
                count = len(records) + 1


async def reasons(process: Process, word: str) -> list[str]:
    """Return why a process says that it is not `live` or `ready`; empty when it is."""
    address = json.loads(await process.until('"http": '))["http"]

    def ask() -> list[str]:
        try:
            answer = urllib.request.urlopen(f"{address}/{PATHS[word]}", timeout=5)
        except urllib.error.HTTPError as refused:
            answer = refused
        with answer:
            return json.load(answer)["reasons"]

    return await asyncio.to_thread(ask)


async def ready_again(process: Process) -> None:
    """Wait until a process says that it is ready: its last answers may precede its next look at fetches and the group."""
    for _ in range(600):
        if not (why := await reasons(process, "ready")):
            return
        await asyncio.sleep(0.1)
    pytest.fail(f"not ready a minute after it answered: {why}")


async def watch_outage(process: Process, seconds: float) -> list[str]:
    """Return the log lines of so many seconds, in which the process says that it lives."""
    before = process.written
    for _ in range(int(seconds)):
        await asyncio.sleep(1)
        assert not await reasons(process, "live")
    return process.written[len(before) :].splitlines()


async def test_an_outage_is_told_of_in_few_lines(own_kafka, unique, tiny_model, tmp_path):
    desk = await desk_on(own_kafka.bootstrap, unique("outage"), tiny_model)
    process = Process(desk, tmp_path, settings={"health": {"progress_overdue_s": 1}})
    with ended([process]):
        await process.until("partitions assigned")
        await send(desk, "before")
        await answered(desk, "before")
        own_kafka.kill()
        lines = await watch_outage(process, OUTAGE_S)
        assert await reasons(process, "ready")
        await asyncio.to_thread(own_kafka.start)
        await send(desk, "after")
        await answered(desk, "after")
        await ready_again(process)
        assert process.end(signal.SIGTERM) == 0
    assert 0 < len(lines) <= MOST_LINES


async def test_a_broker_that_comes_back_with_nothing_is_served_on_when_the_topics_are_there_again(
    own_kafka, unique, tiny_model, tmp_path
):
    prefix = unique("wiped")
    desk = await desk_on(own_kafka.bootstrap, prefix, tiny_model)
    process = Process(desk, tmp_path, settings={"health": {"progress_overdue_s": 1}})
    with ended([process]):
        await process.until("partitions assigned")
        await send(desk, "before")
        await answered(desk, "before")
        await asyncio.to_thread(own_kafka.stop)
        shutil.rmtree(own_kafka.data / "records")
        await asyncio.to_thread(own_kafka.start)
        lines = await watch_outage(process, OUTAGE_S)
        await desk_on(own_kafka.bootstrap, prefix, tiny_model)
        await send(desk, "after")
        await answered(desk, "after")
        async with asyncio.timeout(60):
            while await desk.committed() != await desk.ends():
                await asyncio.sleep(0.1)
        assert process.end(signal.SIGTERM) == 0
    assert len(lines) <= MOST_LINES
