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

AGENTS = """
import json
from pathlib import Path

from murmura import Handler, Publish, Retry, agent

asked = Path("asked")


def answer_in_time(name, text):
    \"\"\"Note who is asked for; `twice` may be answered at the third time, `never` at none. First `far` waits in the topic.\"\"\"
    times = asked.read_text().split().count(name)
    with asked.open("a") as noted:
        noted.write(name + "\\n")
    if times < 2 or text.startswith("never"):
        raise Retry(after_s=1.3 if "far" in text and not times else 0.9)


@agent(topics=["{requests}"], tasks=["intent"], output="{results}", name="unsure")
def unsure(request, prediction):
    answer_in_time(request.request_id, request.text)
    return prediction.outputs


class Hesitant(Handler):
    name, topics, outputs = "hesitant", ("{turns}",), ("{results}",)

    async def handle(self, record, engine):
        turn = json.loads(record.value)
        answer_in_time(turn["id"], turn["text"])
        return [Publish(self.outputs[0], {{"request_id": turn["id"]}}, key=turn["id"])]
"""
ATTEMPTS = 3
SETTINGS = {
    "retries": {"in_memory_s": 1.0, "steps_s": [0.5]},
    "agents": {name: {"retries": {"attempts": ATTEMPTS}} for name in ("unsure", "hesitant")},
}
WORDS = [f"{whether} {where}" for whether in ("twice", "never") for where in ("near", "far")]
REQUESTS = [{"id": f"r{number}", "text": f"{WORDS[number % 4]} {number}"} for number in range(12)]
"""Of the agent."""
TURNS = [{"id": f"t{number}", "text": f"{WORDS[number % 4]} {number}"} for number in range(12)]
"""Of the handler."""
ANSWERED = {each["id"] for each in (*REQUESTS, *TURNS) if each["text"].startswith("twice")}
FAILED = {each["id"] for each in (*REQUESTS, *TURNS)} - ANSWERED
FAR = 12
"""How many of them wait in the topic first."""


class Killed:
    """A desk whose agent and handler ask for more attempts, in processes one after another."""

    def __init__(self, desk: Desk, folder: Path) -> None:
        self.desk, self.folder = desk, folder
        self.processes: list[Process] = []
        self.turns, self.retries = f"{desk.prefix}.turns", f"{desk.prefix}.retries"
        module = AGENTS.format(requests=desk.requests, turns=self.turns, results=desk.classified)
        (folder / "asking.py").write_text(module)
        (folder / "asked").touch()

    async def begin(self, commit_interval_ms: int = 50, session_timeout_ms: int = 1500) -> Process:
        chosen = {
            "agents": ["asking:unsure", "asking:Hesitant"],
            "settings": SETTINGS | {"commit_interval_ms": commit_interval_ms},
            "session_timeout_ms": session_timeout_ms,
            "group_instance_id": "the-one",  # whoever comes next need not wait for the end of the session
        }
        self.processes.append(Process(self.desk, self.folder, len(self.processes), **chosen))
        await self.processes[-1].until("partitions assigned")
        return self.processes[-1]

    async def send(self) -> None:
        await self.desk.send(*REQUESTS)
        await self.desk.send(*TURNS, topic=self.turns)

    def asked(self) -> list[str]:
        return (self.folder / "asked").read_text().split()

    async def until(self, condition) -> None:
        async with asyncio.timeout(60):
            while not condition():
                await asyncio.sleep(0.01)

    async def finished(self) -> None:
        """Wait until every original is committed."""
        async with asyncio.timeout(60):
            while await self.desk.committed() != await self.desk.ends():
                await asyncio.sleep(0.1)

    async def check(self) -> None:
        """Wait until every request has ended; all its ends agree, and no attempt was made too seldom."""
        desk = self.desk
        results, letters = [], []
        async with asyncio.timeout(60):
            while {json.loads(each.value)["request_id"] for each in results} != ANSWERED:
                results = await desk.read(desk.classified, max(len(ANSWERED), len(results) + 1))
            while {json.loads(each.value)["id"] for each in letters} != FAILED:
                letters = await desk.read(desk.dead_letters, max(len(FAILED), len(letters) + 1))
        await self.finished()
        predicted = [
            result for result in map(json.loads, (each.value for each in results)) if "prediction_id" in result
        ]
        assert {result["request_id"] for result in predicted} == ANSWERED - {turn["id"] for turn in TURNS}
        for result in predicted:
            assert result["prediction_id"] == prediction_id("unsure", desk.requests, result["request_id"])
        counted: dict[str, int] = {}
        for each in await desk.read(self.retries, FAR):
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
    killed = Killed(desk, tmp_path)
    await create_topics(desk.bootstrap, [killed.turns, killed.retries], 1, {})
    with ended(killed.processes):
        yield killed


async def test_a_kill_during_pauses_in_memory_loses_no_record_and_no_attempt(killed: Killed):
    """Half of the records wait in memory from their first attempt on, the others after a pause in the topic."""
    process = await killed.begin()
    await killed.send()
    await killed.until(lambda: all(killed.asked().count(name) >= 2 for name in ANSWERED | FAILED))
    assert process.end(signal.SIGKILL) == -signal.SIGKILL
    assert len(await killed.desk.read(killed.retries, FAR)) == FAR
    await killed.begin()
    await killed.check()


async def test_a_kill_between_the_retry_and_the_commit_of_its_original_loses_no_record_and_no_attempt(killed: Killed):
    process = await killed.begin(commit_interval_ms=20_000, session_timeout_ms=25_000)
    await killed.send()
    await killed.desk.read(killed.retries, FAR)
    assert process.end(signal.SIGKILL) == -signal.SIGKILL
    assert set((await killed.desk.committed()).values()) == {0}
    await killed.begin()
    await killed.check()
