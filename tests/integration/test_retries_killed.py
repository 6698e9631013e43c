"""The process is killed while records wait for another attempt: none is lost, and each keeps its id and its attempts."""

import asyncio
import json
import signal
from pathlib import Path

import pytest
from kafka_topics import create_topics
from served_process import Process, ended
from serving import Desk

from murmura.schemas.ids import prediction_id

AGENT = """
from pathlib import Path

from murmura import Retry, agent

asked = Path("asked")


@agent(topics=["{topic}"], tasks=["intent"], output="{output}", name="unsure")
def unsure(request, prediction):
    \"\"\"Note who is asked for; answer `twice` at the third time, and `never` at none. First of all `far` waits in the topic.\"\"\"
    times = asked.read_text().split().count(request.request_id)
    with asked.open("a") as noted:
        noted.write(request.request_id + "\\n")
    if times < 2 or request.text.startswith("never"):
        raise Retry(after_s=1.3 if "far" in request.text and not times else 0.9)
    return prediction.outputs
"""
ATTEMPTS = 3
SETTINGS = {
    "retries": {"in_memory_s": 1.0, "steps_s": [0.5]},
    "agents": {"unsure": {"retries": {"attempts": ATTEMPTS}}},
}
WORDS = [f"{whether} {where}" for whether in ("twice", "never") for where in ("near", "far")]
REQUESTS = [{"id": f"r{number}", "text": f"{WORDS[number % 4]} {number}"} for number in range(12)]
ANSWERED = {request["id"] for request in REQUESTS if request["text"].startswith("twice")}
FAILED = {request["id"] for request in REQUESTS} - ANSWERED


class Killed:
    """A desk whose only agent asks for more attempts, in processes one after another."""

    def __init__(self, desk: Desk, folder: Path) -> None:
        self.desk, self.folder = desk, folder
        self.processes: list[Process] = []
        (folder / "unsure_agent.py").write_text(AGENT.format(topic=desk.requests, output=desk.classified))
        (folder / "asked").touch()

    async def begin(self, commit_interval_ms: int = 50, session_timeout_ms: int = 1500) -> Process:
        chosen = {
            "agents": ["unsure_agent:unsure"],
            "settings": SETTINGS | {"commit_interval_ms": commit_interval_ms},
            "session_timeout_ms": session_timeout_ms,
            "group_instance_id": "the-one",  # whoever comes next need not wait for the end of the session
        }
        self.processes.append(Process(self.desk, self.folder, len(self.processes), **chosen))
        await self.processes[-1].until("partitions assigned")
        return self.processes[-1]

    def asked(self) -> list[str]:
        return (self.folder / "asked").read_text().split()

    async def until(self, condition) -> None:
        async with asyncio.timeout(30):
            while not condition():
                await asyncio.sleep(0.01)

    async def finished(self) -> None:
        """Wait until every original is committed."""
        async with asyncio.timeout(30):
            while await self.desk.committed() != await self.desk.ends():
                await asyncio.sleep(0.1)

    async def check(self) -> None:
        """Wait until every request has ended; all its ends agree, and no attempt was made too seldom."""
        desk = self.desk
        results, letters = [], []
        async with asyncio.timeout(30):
            while {json.loads(each.value)["request_id"] for each in results} != ANSWERED:
                results = await desk.read(desk.classified, max(len(ANSWERED), len(results) + 1))
            while {json.loads(each.value)["id"] for each in letters} != FAILED:
                letters = await desk.read(desk.dead_letters, max(len(FAILED), len(letters) + 1))
        await self.finished()
        for each in map(json.loads, (result.value for result in results)):
            assert each["prediction_id"] == prediction_id("unsure", desk.requests, each["request_id"])
        counted: dict[str, int] = {}
        for each in await desk.read(f"{desk.prefix}.retries", 1):
            made, name = int(dict(each.headers)["murmura_attempts"]), json.loads(each.value)["id"]
            counted[name] = max(made, counted.get(name, 0))
        for letter in letters:
            headers, name = dict(letter.headers), json.loads(letter.value)["id"]
            assert headers["murmura_dl_reason"] == b"expired_retries"
            assert int(headers["murmura_dl_attempts"]) == ATTEMPTS >= counted.get(name, 1)
            assert self.asked().count(name) >= ATTEMPTS
        assert self.processes[-1].end(signal.SIGTERM) == 0


@pytest.fixture
async def killed(desk: Desk, tmp_path: Path):
    await create_topics(desk.bootstrap, [f"{desk.prefix}.retries"], 1, {})
    killed = Killed(desk, tmp_path)
    with ended(killed.processes):
        yield killed


async def test_a_kill_during_pauses_in_memory_loses_no_record_and_no_attempt(killed: Killed):
    """Half of the records wait in memory from their first attempt on, the others after a pause in the topic."""
    process = await killed.begin()
    await killed.desk.send(*REQUESTS)
    await killed.until(lambda: all(killed.asked().count(request["id"]) >= 2 for request in REQUESTS))
    assert process.end(signal.SIGKILL) == -signal.SIGKILL
    assert len(await killed.desk.read(f"{killed.desk.prefix}.retries", 6)) == 6
    await killed.begin()
    await killed.check()


async def test_a_kill_between_the_retry_and_the_commit_of_its_original_loses_no_record_and_no_attempt(killed: Killed):
    process = await killed.begin(commit_interval_ms=20_000, session_timeout_ms=25_000)
    await killed.desk.send(*REQUESTS)
    await killed.desk.read(f"{killed.desk.prefix}.retries", 6)
    assert process.end(signal.SIGKILL) == -signal.SIGKILL
    assert set((await killed.desk.committed()).values()) == {0}
    await killed.begin()
    await killed.check()
    assert len(await killed.desk.read(f"{killed.desk.prefix}.retries", 6)) >= 6
