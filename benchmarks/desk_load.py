"""Customers at the demo's desk on a real Kafka: turns a second, latency, and what ten kills lose.

    python benchmarks/desk_load.py [--short] [--customers 64] [--turns 3000] [--kills 10]

One process serves the dialogue agent with the demo's model and policy; the broker and the customers are on the same cores. A customer
(of desk_customers.yaml) sends a turn, waits for the reply and goes on. Three runs: as fast as the replies come; at half of that rate;
and at that half while the process is killed (kill -9) and started again. Each counts turns without a reply, inversions, replies that
differ when they come twice and states that are not the replay's; latency is from sending a turn to reading its reply.
"""

import argparse
import asyncio
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from conversations import Desk, Members, Outcome, judge
from desk_customers import Customer, draw_customers, read_words
from real_kafka import real_kafka

from murmura.runtime.model.deltas.assembled import resolve
from murmura.scenarios.support.place import HERE, MODEL
from murmura.schemas.dialogue import Reply

POLICY = HERE / "policy.yaml"
DRAWN = 1000
"""Different customers; their conversations repeat under other names."""
WARM = 100
"""Turns before the clock starts."""
ANSWERED_WITHIN_S = 120.0
"""A turn that waits longer is lost."""


class Customers:
    """Sends turns and waits for their replies, at most so many conversations at a time."""

    def __init__(self, desk: Desk, producer: AIOKafkaProducer, *, rate: float | None, turns: int) -> None:
        """`rate`: turns a second, None as fast as the replies come. `turns`: how many are sent before customers leave."""
        self._desk, self._producer, self._turns = desk, producer, turns
        self._apart, self._due = 1 / rate if rate else 0.0, time.monotonic()
        self._waiting: dict[str, asyncio.Future[Reply]] = {}
        self.sent = 0
        self.lost = 0
        self.latencies: list[float] = []
        """Seconds, in the order of the replies."""
        self.answered_at: list[float] = []

    def hear(self, reply: Reply) -> None:
        """Give a reply to who waits for it; a second one is for `judge`."""
        waiting = self._waiting.pop(reply.request_id, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(reply)

    async def talk(self, names: Iterator[tuple[str, Customer]]) -> None:
        """Hold one conversation after another until all turns are sent."""
        while self.sent < self._turns:
            name, customer = next(names)
            asked: str | None = None
            while self.sent < self._turns and (text := customer.speak(asked)) is not None:
                await self._wait_for_turn()
                reply = await self._say(name, text)
                if reply is None:
                    break
                asked = reply.asked

    async def _wait_for_turn(self) -> None:
        if self._apart:
            due = self._due = max(self._due + self._apart, time.monotonic() - 1.0)
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def _say(self, name: str, text: str) -> Reply | None:
        self.sent += 1
        turn = f"{name}-{self.sent}"
        waiting = self._waiting[turn] = asyncio.get_running_loop().create_future()
        began = time.monotonic()
        await self._producer.send(self._desk.turns, json.dumps({"id": turn, "text": text}).encode(), key=name.encode())
        try:
            reply = await asyncio.wait_for(waiting, ANSWERED_WITHIN_S)
        except TimeoutError:
            self.lost += 1
            return None
        self.answered_at.append(time.monotonic())
        self.latencies.append(self.answered_at[-1] - began)
        return reply


def name_customers() -> Iterator[tuple[str, Customer]]:
    """Yield customers for ever, each with the name of a conversation of its own."""
    words = read_words()
    for again in itertools.count():
        for number, customer in enumerate(draw_customers(words, DRAWN)):
            yield f"c{again}-{number}", customer


class Load:
    """One run at the desk."""

    def __init__(self, bootstrap: str, folder: Path, model: Path, customers: int) -> None:
        self._desk = Desk(bootstrap, folder, model, POLICY, {})
        self._bootstrap, self._customers = bootstrap, customers

    async def run(self, *, turns: int, rate: float | None = None, kills: int = 0) -> tuple[float, bool]:
        """Print what was found; return the turns answered a second, and whether all is as promised."""
        await self._desk.make_topics()
        producer = AIOKafkaProducer(bootstrap_servers=self._bootstrap, acks="all", enable_idempotence=True)
        replies = AIOKafkaConsumer(
            self._desk.replies, bootstrap_servers=self._bootstrap, auto_offset_reset="earliest", fetch_max_wait_ms=20
        )
        await producer.start()
        await replies.start()
        customers = Customers(self._desk, producer, rate=rate, turns=turns)
        members = Members(self._desk, 1)
        reading = asyncio.create_task(self._read(replies, customers, members, turns, kills))
        names = name_customers()
        began = time.monotonic()
        try:
            await asyncio.gather(*(customers.talk(names) for _ in range(self._customers)))
            members.stop()
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            await producer.stop()
            await replies.stop()
            members.end()
        outcome = Outcome(customers.sent)
        outcome.seconds = time.monotonic() - began
        await judge(self._desk, outcome)
        return self._report(customers, outcome, rate, kills)

    async def _read(
        self, consumer: AIOKafkaConsumer, customers: Customers, members: Members, turns: int, kills: int
    ) -> None:
        killed = 0
        while True:
            for records in (await consumer.getmany(timeout_ms=100)).values():
                for record in records:
                    customers.hear(Reply.model_validate_json(record.value))
            members.tend()
            if killed < kills and len(customers.latencies) > (killed + 1) * turns / (kills + 1):
                members.kill()
                killed += 1

    @staticmethod
    def _report(customers: Customers, outcome: Outcome, rate: float | None, kills: int) -> tuple[float, bool]:
        at, latencies = customers.answered_at[WARM:], np.array(customers.latencies[WARM:]) * 1000
        per_s = (len(at) - 1) / (at[-1] - at[0])
        generated = outcome.kinds.get("generated", 0) / outcome.turns
        p50, p99 = np.percentile(latencies, (50, 99))
        what = "as fast as replies come" if rate is None else f"at {rate:.0f} turns/s"
        print(
            f"{what}, {kills} kills: {outcome.turns} turns, {per_s:.1f} a second, {per_s * generated:.1f} of them with a "
            f"generated reply ({100 * generated:.1f} %); latency p50 {p50:.0f} ms, p99 {p99:.0f} ms; {customers.lost} lost, "
            f"{outcome.inversions} inversions, {outcome.replies - outcome.turns} replies twice, {outcome.differing_replies} of "
            f"them different, {outcome.differing_states} states other than the replay's; {dict(sorted(outcome.kinds.items()))}",
            flush=True,
        )
        return per_s, outcome.sound and not customers.lost


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bootstrap", help="a running Kafka; default: one is started")
    parser.add_argument("--data", help="not used")
    parser.add_argument("--model", type=Path, default=MODEL, help="a model folder with the policy's tasks")
    parser.add_argument("--customers", type=int, default=64, help="conversations at a time")
    parser.add_argument("--turns", type=int, default=3000, help="of each run")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--short", action="store_true", help="600 turns a run, two kills")
    args = parser.parse_args()
    turns, kills = (600, 2) if args.short else (args.turns, args.kills)
    model = resolve(args.model)
    with tempfile.TemporaryDirectory() as scratch, real_kafka(args.bootstrap) as bootstrap:
        folder = Path(scratch)

        async def load(**how: Any) -> tuple[float, bool]:
            return await Load(bootstrap, folder, model, args.customers).run(turns=turns, **how)

        fastest, sound = await load()
        for killed in (0, kills):
            sound &= (await load(rate=fastest / 2, kills=killed))[1]
    sys.exit(not sound)


if __name__ == "__main__":
    asyncio.run(main())
