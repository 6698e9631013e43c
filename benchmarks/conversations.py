"""Conversations while processes are killed and frozen: python benchmarks/conversations.py [--short] [--freezes N] [--generate].

1,000 conversations of 50 turns, interleaved over 4 partitions; `murmura serve` is killed (kill -9) ten times and
started again. Counts turns without a reply, inversions, replies that differ when they come twice, and compares every
final state with a replay of the log. The model is the tests' tiny one: what is measured here is order and durability.

With --generate a decoder words replies, some too late. Then a state is the replay of turns and recorded wordings, and no turn has two.

With freezes two processes serve, and one of them is stopped (SIGSTOP) for twice its session and wakes again. What it
had sent before may then lie late in its topic, so inversions are told and do not count; the last states do.
"""

import argparse
import asyncio
import json
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.structs import ConsumerRecord
from conversation_replay import read_wordings, replay
from real_kafka import real_kafka

from murmura.agents.dialogue.policy.policy_file import load_policy
from murmura.runtime.kafka.topics import create_topics
from murmura.runtime.model.model import Model
from murmura.runtime.settings.settings import KafkaSettings
from murmura.schemas.dialogue import ConversationState, Reply, Wording
from murmura.schemas.topics import Topic, named_topics

ROOT = Path(__file__).resolve().parents[1]
# Whatever the tiny model takes these for: asked, answered, misunderstood and handed over all come about.
TEXTS = (
    "my card was lost", "i want a refund please", "transfer money to london on monday", "help me", "thanks",
    "the new card is in london", "to the account", "on monday", "no", "i lost my card in london on monday",
)  # fmt: skip
POLICY = {
    "greeting": "Hello.",
    "remember_turns": 5,
    "handover": {"after": 3, "below": 0.0},
    "min_score": 0.5,
    "intents": {
        "card_lost": {"needs": {"place": "Where?", "time": "When in {place}?"}, "reply": "{time}, {place}."},
        "transfer": {"needs": {"place": "Where to?"}, "reply": "To {place}.", "forget": ["place"]},
        "refund": {"reply": "Yes."},
    },
}
PARTITIONS = 4
WITHIN_S = 0.1
"""For a generated reply: some are late, above all after a kill."""
FROZEN_S = 3.0
SETTLED_S = 4.0
"""Until a process that wakes has joined again and written what it found out of order."""
SEED = 10
"""Of the tiny model: one that says different things of different texts."""


@dataclass
class Outcome:
    """What was promised and what was found."""

    turns: int
    freezes: int = 0
    unanswered: int = 0
    inversions: int = 0
    differing_replies: int = 0
    differing_states: int = 0
    stale_states: int = 0
    """Conversations whose last record in the changelog is not their newest."""
    replies: int = 0
    kinds: dict[str, int] = field(default_factory=dict)
    """Replies by kind, and with --generate by wording and reason."""
    back_s: list[float] = field(default_factory=list)
    """From each kill to the next reply."""
    restored_s: list[float] = field(default_factory=list)
    """Reading the changelog, as the processes logged it."""
    seconds: float = 0.0

    @property
    def sound(self) -> bool:
        wrong = self.unanswered + self.differing_replies + self.differing_states + self.stale_states
        return not (wrong or (self.inversions and not self.freezes))

    def __str__(self) -> str:
        twice = self.replies - self.turns
        return (
            f"{self.turns} turns in {self.seconds:.0f} s: {self.unanswered} without a reply, {self.inversions} inversions, "
            f"{self.stale_states} stale last states, {self.differing_states} states other than the replay's, {twice} replies twice "
            f"({100 * twice / self.turns:.2f} %), {self.differing_replies} of them different; from a kill to the next "
            f"reply {statistics.median(self.back_s or [0]):.1f} s (median), changelog read in "
            f"{max(self.restored_s or [0]):.2f} s (longest); {dict(sorted(self.kinds.items()))}"
        )


def make_policy(*, generate: bool) -> dict[str, Any]:
    """Return the policy; with `generate` the model words what stands in `intents`."""
    policy: dict[str, Any] = json.loads(json.dumps(POLICY))
    if generate:
        for rule in policy["intents"].values():
            for texts in (rule.setdefault("needs", {}), rule):
                texts |= {
                    key: {"generate": True, "template": text} for key, text in texts.items() if isinstance(text, str)
                }
    return policy


class Desk:
    """The topics, the model and the process."""

    def __init__(
        self, bootstrap: str, folder: Path, model: Path, policy: Path, options: dict[str, Any], **batches: int
    ) -> None:
        """`options`: of the agent. `batches`: settings of the model beside its folder."""
        self.policy = load_policy(policy).value
        self.bootstrap, self.folder, self.model_folder = bootstrap, folder, model
        self.prefix = f"talk-{uuid.uuid4().hex[:6]}"
        self.turns, self.replies, self.state = (f"{self.prefix}.dialogue.{n}" for n in ("turns", "replies", "state"))
        settings = {
            "app": self.prefix,
            "prefix": self.prefix,
            # A member that was killed is missed for a session.
            "kafka": {"bootstrap_servers": bootstrap, "session_timeout_ms": 1500, "heartbeat_interval_ms": 200},
            "model": {"folder": str(model), **batches},
            "agents": {"dialogue": {"options": {"policy": str(policy), **options}}},
            "http": "127.0.0.1:0",
            "log": {"format": "json"},
        }
        (folder / "serve.yaml").write_text(yaml.safe_dump(settings))
        self.log = folder / "serve.log"

    async def make_topics(self) -> None:
        wanted = {name: topic for name, topic in named_topics(self.prefix) if "dialogue" in name or "handoffs" in name}
        for rule in self.policy.intents.values():
            wanted |= {action.topic: Topic(action.topic, "action", "", "few") for action in rule.action}
        wanted[f"{self.prefix}.deadletters"] = Topic("deadletters", "dead letter", "", "few")
        kafka = KafkaSettings(bootstrap_servers=self.bootstrap)
        await create_topics(kafka, wanted, many=PARTITIONS)

    def serve(self) -> subprocess.Popen[bytes]:
        command = [Path(sys.executable).with_name("murmura"), "serve", "dialogue"]
        with self.log.open("ab") as log:
            return subprocess.Popen([*command, "--config", self.folder / "serve.yaml"], stdout=log, stderr=log)

    def restored_s(self) -> list[float]:
        return [float(found) for found in re.findall(r'"seconds": ([\d.]+)', self.log.read_text())]

    async def read(self, topic: str) -> list[ConsumerRecord]:
        """Everything in a topic, each partition in its order."""
        consumer = AIOKafkaConsumer(topic, bootstrap_servers=self.bootstrap, auto_offset_reset="earliest")
        await consumer.start()
        try:
            ends = await consumer.end_offsets(consumer.assignment())
            records: list[ConsumerRecord] = []
            for partition, end in ends.items():
                while await consumer.position(partition) < end:
                    records += (await consumer.getmany(partition, timeout_ms=200)).get(partition, [])
            return records
        finally:
            await consumer.stop()


class Members:
    """The processes that serve, and what is done to them."""

    def __init__(self, desk: Desk, count: int) -> None:
        self._desk = desk
        self._all = [desk.serve() for _ in range(count)]
        self._frozen: subprocess.Popen[bytes] | None = None
        self._until = 0.0

    @property
    def troubled(self) -> bool:
        """One is frozen, or woke a moment ago."""
        return self._frozen is not None or time.monotonic() < self._until

    def tend(self) -> None:
        """Wake who has slept for long enough; raises when one has ended by itself."""
        if any(process.poll() is not None for process in self._all):
            raise RuntimeError(self._desk.log.read_text()[-3000:])
        if self._frozen is not None and time.monotonic() >= self._until:
            self._frozen.send_signal(signal.SIGCONT)
            self._frozen, self._until = None, time.monotonic() + SETTLED_S

    def freeze(self, number: int) -> None:
        self._frozen, self._until = self._all[number % len(self._all)], time.monotonic() + FROZEN_S
        self._frozen.send_signal(signal.SIGSTOP)

    def kill(self) -> None:
        killed = self._all.pop(0)
        killed.kill()
        killed.wait()
        self._all.append(self._desk.serve())

    def stop(self) -> None:
        for process in self._all:
            process.send_signal(signal.SIGTERM)
        codes = {process.wait(30) for process in self._all}
        if codes - {0, -signal.SIGTERM}:  # the latter: one that was only just started
            raise RuntimeError(self._desk.log.read_text()[-3000:])

    def end(self) -> None:
        for process in self._all:
            process.kill()
            process.wait()


async def talk(desk: Desk, conversations: int, turns: int, per_s: float) -> None:
    """Send every conversation's turns in their order, all of them interleaved at random."""
    chance = random.Random(7)
    order = [number for number in range(conversations) for _ in range(turns)]
    chance.shuffle(order)
    said: dict[int, int] = defaultdict(int)
    producer = AIOKafkaProducer(bootstrap_servers=desk.bootstrap, acks="all", enable_idempotence=True)
    await producer.start()
    try:
        began = time.monotonic()
        for sent, number in enumerate(order):
            said[number] += 1
            value = {"id": f"c{number}-{said[number]}", "text": f"{chance.choice(TEXTS)} {chance.choice('abcdef')}"}
            if chance.random() < 0.1:
                value["metadata"] = {"handover": "ended"}
            await producer.send(desk.turns, json.dumps(value).encode(), key=f"c{number}".encode())
            if (ahead := sent / per_s - (time.monotonic() - began)) > 0.01:
                await asyncio.sleep(ahead)
    finally:
        await producer.stop()


async def run(
    bootstrap: str,
    folder: Path,
    model: Path,
    *,
    conversations: int,
    turns: int,
    kills: int,
    per_s: float,
    freezes: int = 0,
    generate: bool = False,
) -> Outcome:
    """Talk while processes are killed and frozen, wait until every turn has its reply, and look at what is there."""
    policy = folder / "policy.yaml"
    policy.write_text(yaml.safe_dump(make_policy(generate=generate)))
    desk = Desk(bootstrap, folder, model, policy, {"generate_within_s": WITHIN_S}, cores=1, token_budget=256)
    await desk.make_topics()
    total, began = conversations * turns, time.monotonic()
    outcome = Outcome(total, freezes)
    watcher = AIOKafkaConsumer(desk.replies, bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await watcher.start()
    talking = asyncio.create_task(talk(desk, conversations, turns, per_s))
    answered: set[str] = set()
    killed_at: float | None = None
    left = ["kill"] * kills + ["freeze"] * freezes
    random.Random(1).shuffle(left)
    apart = total / (len(left) + 1)
    due = [(apart * (number + 1), what) for number, what in enumerate(left)]
    members = Members(desk, 2 if freezes else 1)
    try:
        async with asyncio.timeout(60 + 30 * len(due) + 4 * total / per_s):
            while len(answered) < total or members.troubled:
                members.tend()
                for records in (await watcher.getmany(timeout_ms=100)).values():
                    if killed_at is not None and records[-1].timestamp > killed_at * 1000:
                        outcome.back_s.append(time.time() - killed_at)
                        killed_at = None
                    answered.update(json.loads(record.value)["request_id"] for record in records)
                if due and killed_at is None and not members.troubled and len(answered) > due[0][0]:
                    _, what = due.pop(0)
                    if what == "kill":
                        members.kill()
                        killed_at = time.time()
                    else:
                        members.freeze(len(due))
        await talking
        members.stop()
    finally:
        talking.cancel()
        await watcher.stop()
        members.end()
    outcome.seconds, outcome.restored_s = time.monotonic() - began, desk.restored_s()
    await judge(desk, outcome)
    return outcome


async def judge(desk: Desk, outcome: Outcome) -> None:
    """Hold everything that was published against the replay."""
    written = [ConversationState.model_validate_json(record.value) for record in await desk.read(desk.state)]
    recorded, outcome.differing_states = read_wordings(written)
    expected = await replay(await desk.read(desk.turns), Model.load(desk.model_folder), desk.policy, recorded)
    by_id = {s.reply.prediction_id: s.reply for steps in expected.values() for s in steps}
    seen: set[str] = set()
    number: dict[str, int] = defaultdict(int)
    for record in await desk.read(desk.replies):
        reply = Reply.model_validate_json(record.value)
        outcome.replies += 1
        kind = reply.kind.value if reply.wording_reason is None else reply.wording_reason.value
        kind = "generated" if reply.wording is Wording.GENERATED else kind
        outcome.kinds[kind] = outcome.kinds.get(kind, 0) + (reply.prediction_id not in seen)
        outcome.differing_replies += reply != by_id.get(reply.prediction_id)
        outcome.inversions += reply.number < number[reply.conversation]
        number[reply.conversation] = reply.number
        seen.add(reply.prediction_id)
    outcome.unanswered = len(by_id.keys() - seen)
    states: dict[str, ConversationState] = {}
    newest: dict[str, int] = defaultdict(int)
    for state in written:
        before = states.get(state.conversation)
        outcome.inversions += before is not None and state.number not in {before.number, before.number + 1}
        states[state.conversation] = state
        newest[state.conversation] = max(newest[state.conversation], state.number)
    outcome.stale_states = sum(state.number < newest[name] for name, state in states.items())
    outcome.differing_states += sum(states.get(name) != steps[-1].state for name, steps in expected.items())


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bootstrap", help="a running Kafka; default: one is started")
    parser.add_argument("--data", help="not used: there are no texts to read")
    parser.add_argument("--rate", type=float, default=400.0, help="turns a second")
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--freezes", type=int, default=0, help="how often one of two processes is frozen; default 0")
    parser.add_argument("--generate", action="store_true", help="let the model word questions and replies")
    args = parser.parse_args()
    sys.path.insert(0, str(ROOT / "tests"))
    from tiny_talker import write_talker

    size = {"conversations": 40, "turns": 10, "kills": 2} if args.short else {}
    size = {"conversations": 1000, "turns": 50, "kills": 10, "freezes": args.freezes} | size
    with tempfile.TemporaryDirectory() as scratch, real_kafka(args.bootstrap) as bootstrap:
        model = write_talker(Path(scratch) / "tiny", SEED)
        per_s = 100.0 if args.short else args.rate
        outcome = await run(bootstrap, Path(scratch), model, per_s=per_s, generate=args.generate, **size)
    print(f"{size['conversations']} conversations, {size['kills']} kills, {size['freezes']} freezes: {outcome}")
    sys.exit(not outcome.sound)


if __name__ == "__main__":
    asyncio.run(main())
