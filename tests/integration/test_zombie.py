"""A process that stood still for longer than its session, and goes on: others have its partitions by then."""

import asyncio
import json
import os
import re
import signal
import time
from collections import defaultdict
from pathlib import Path

from kafka_topics import create_topics
from served_process import Process, ended
from serving import Desk

from murmura.schemas.ids import prediction_id

HANDLER = """
import asyncio
import os

from murmura import Handler, Publish


class Copier(Handler):
    name, topics, outputs = "copier", ("{turns}",), ("{copies}",)
    freeze_s = 1.4

    async def handle(self, record, engine):
        await asyncio.sleep(0.2)
        return [Publish(self.outputs[0], {{"by": os.getpid(), "turn": record.value.decode()}}, key=record.key)]
"""
ASSIGNED = re.compile(r"partitions assigned.*\"partitions\": (\d+)")


def assignments(process: Process) -> list[int]:
    """Return how many partitions a process had after each rebalance."""
    return [int(number) for number in ASSIGNED.findall(process.written)]


async def until(condition) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.05)


async def send_for_ever(desk: Desk, turns: str, sent: list[str]) -> None:
    while True:
        names = [f"r{number}" for number in range(len(sent), len(sent) + 5)]
        await desk.send(*({"id": name, "text": "my card was lost"} for name in names))
        await desk.send(*(name.encode() for name in names), topic=turns)
        sent += names


async def copies(desk: Desk, turns: set[str]) -> dict[str, dict[int, float]]:
    """Return for each turn which processes copied it, and when (ms since 1970), once each turn has been."""
    async with asyncio.timeout(60):
        count = len(turns)
        while True:
            records = await desk.read(desk.analysed, count)
            copied: dict[str, dict[int, float]] = defaultdict(dict)
            for record in records:
                value = json.loads(record.value)
                copied[value["turn"]][value["by"]] = record.timestamp
            if turns <= copied.keys():
                return copied
            count = len(records) + 1


async def answers(desk: Desk, names: set[str]) -> dict[str, set[str]]:
    """Return the prediction ids of each request, once each has one."""
    async with asyncio.timeout(60):
        count = len(names)
        while True:
            records = await desk.read(desk.classified, count)
            found: dict[str, set[str]] = defaultdict(set)
            for result in map(json.loads, (record.value for record in records)):
                found[result["request_id"]].add(result["prediction_id"])
            if names <= found.keys():
                return found
            count = len(records) + 1


async def test_what_stood_still_gives_no_answer_that_is_not_its_own_any_more_and_joins_again(
    desk: Desk, tmp_path: Path
):
    turns, sent = f"{desk.prefix}.turns", list[str]()
    await create_topics(desk.bootstrap, [turns], 3, {})
    (tmp_path / "copying.py").write_text(HANDLER.format(turns=turns, copies=desk.analysed))
    serve = {
        "agents": ["classification", "copying:Copier"],
        "settings": {"agents": {"classification": {"topics": [desk.requests], "output": desk.classified}}},
    }
    frozen, other = Process(desk, tmp_path, 0, **serve), Process(desk, tmp_path, 1, **serve)
    with ended([frozen, other]):
        await until(lambda: all(0 < (assignments(each) or [0])[-1] < 6 for each in (frozen, other)))
        sending = asyncio.create_task(send_for_ever(desk, turns, sent))
        await asyncio.sleep(1)
        os.kill(frozen.process.pid, signal.SIGSTOP)
        await until(lambda: assignments(other)[-1] == 6)
        await asyncio.sleep(0.5)
        before, continued = len(assignments(frozen)), time.time() * 1000
        os.kill(frozen.process.pid, signal.SIGCONT)
        await until(lambda: len(assignments(frozen)) > before)
        await asyncio.sleep(1)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        copied = await copies(desk, set(sent))
        results = await answers(desk, set(sent))
        for process in (frozen, other):
            assert process.end(signal.SIGTERM) == 0
    late = {turn: by for turn, by in copied.items() if by.get(frozen.process.pid, 0) > continued}
    assert late, "it answers again"
    assert [turn for turn, by in late.items() if other.process.pid in by] == []
    assert results == {name: {prediction_id("classification", desk.requests, name)} for name in results}
