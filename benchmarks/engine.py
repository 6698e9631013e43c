"""What the engine adds to the forward pass, in CPU-seconds of this process.

    python benchmarks/engine.py [--short] [--texts N] [--rounds N] [--in-flight N] [--data ../shared/data]

Ways through the same utterances, taking turns in every round, compared by the median of the rounds:

- the engine, ragged graph, first in first out, from tokenised texts: queue, batch, lay out, run, decode all four heads,
  deliver; and the same from plain texts, tokenising in chunks beside the runs;
- a bare `session.run` loop over exactly the engine's batches, tokenised and laid out beforehand;
- a bare `session.run` loop over padded batches of 32 in file order, tokenised and laid out beforehand.

And the engine alone in front of a simulated accelerator (two runs at once, each 2 ms + 30 us a row), which shows what
it costs the host: no Kafka, exact offsets, all four heads decoded.
"""

import argparse
import asyncio
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from load import utterances
from minilm import NAME, minilm_model, simulated_model

from murmura.runtime.batching.engine import Engine
from murmura.runtime.batching.queues.entry import Entry
from murmura.runtime.model.model import Model

CHUNK = 256
PADDED_ROWS = 32
Feeds = Mapping[str, Any]


class Recorder:
    """A runner that notes what it is fed, so that the same batches can be run without the engine."""

    def __init__(self, model: Model) -> None:
        self._runner: Any = model.runner
        self.device = self._runner.device
        self.bare = self._runner._session  # onnxruntime's own object: `run` with nothing of ours around it
        self.seen: list[Feeds] = []
        self.recording = True
        model.runner = self

    def run(self, feeds: Feeds) -> Any:
        if self.recording:
            self.seen.append(feeds)
        return self._runner.run(feeds)


class Client:
    """Feeds the engine as the dispatcher does: whole chunks tokenised, at most two budgets queued."""

    def __init__(self, engine: Engine, texts: list[str]) -> None:
        self._engine, self._texts = engine, texts
        self._tasks = tuple(engine.model.tasks)
        self._room, self._done = asyncio.Event(), asyncio.Event()
        self._answered = 0
        engine.on_room(self._room.set)

    def deliver(self, entries: list[Entry]) -> None:
        assert all(entry.outputs for entry in entries)
        self._answered += len(entries)
        if self._answered == len(self._texts):
            self._done.set()

    async def answer_all(self, encoded_before: Sequence[Any] = ()) -> None:
        self._answered = 0
        self._done.clear()
        for begin in range(0, len(self._texts), CHUNK):
            chunk = self._texts[begin : begin + CHUNK]
            encoded = encoded_before[begin : begin + CHUNK] or await self._engine.encode(chunk)
            while self._engine.queued_tokens > 2 * self._engine.token_budget:
                self._room.clear()
                await self._room.wait()
            self._engine.submit(
                [Entry(text, self._tasks, each, self) for text, each in zip(chunk, encoded, strict=True)]
            )
        await self._done.wait()


def cpu_seconds(call: Callable[[], Any]) -> float:
    began = time.process_time()
    call()
    return time.process_time() - began


async def cpu_seconds_of(client: Client, encoded_before: Sequence[Any] = ()) -> float:
    began = time.process_time()
    await client.answer_all(encoded_before)
    return time.process_time() - began


def bare_loop(session: Any, batches: list[Feeds], threads: int) -> None:
    """Run batches as fast as onnxruntime does; with several in flight as the engine has them."""
    if threads == 1:
        for feeds in batches:
            session.run(None, feeds)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda feeds: session.run(None, feeds), batches))


def padded_loop(texts: list[str]) -> tuple[Any, list[Feeds]]:
    """Return the padded graph's session and batches of 32 in file order, run once."""
    model = minilm_model(form="padded")
    recorder = Recorder(model)
    encoded = model.encode(texts)
    for begin in range(0, len(texts), PADDED_ROWS):
        model.run(encoded[begin : begin + PADDED_ROWS])
    return recorder.bare, recorder.seen


async def on_the_cpu(texts: list[str], rounds: int, in_flight: int) -> None:
    padded, padded_batches = padded_loop(texts)
    model = minilm_model()
    recorder = Recorder(model)
    engine = Engine(model, max_in_flight=in_flight)
    await engine.start()
    client = Client(engine, texts)
    recorder.seen.clear()
    await client.answer_all()
    recorder.recording = False
    batches = recorder.seen

    encoded = model.encode(texts)
    took: dict[str, list[float]] = {"engine": [], "from text": [], "bare": [], "padded": []}
    for _ in range(rounds):
        took["engine"].append(await cpu_seconds_of(client, encoded))
        took["bare"].append(cpu_seconds(lambda: bare_loop(recorder.bare, batches, in_flight)))
        took["from text"].append(await cpu_seconds_of(client))
        took["padded"].append(cpu_seconds(lambda: bare_loop(padded, padded_batches, in_flight)))
    await engine.stop()

    what = f"{NAME}, {len(texts)} utterances of CLINC150's test set, {in_flight} in flight, {rounds} rounds"
    for name, seconds in took.items():
        print(f"  {name}: {statistics.median(seconds) / len(texts) * 1e3:.3f} CPU-ms a text")
    print(f"  budget {engine.token_budget} tokens, {len(batches)} batches")
    for mine, theirs, goal, says in (
        ("engine", "bare", 0.97, "engine against a bare session.run loop over the same batches"),
        ("from text", "bare", None, "the same with tokenising, on the engine's side alone"),
        ("engine", "padded", 1.55, "engine against padded first-in-first-out batches of 32, file order"),
    ):
        ratio = statistics.median(b / e for b, e in zip(took[theirs], took[mine], strict=True))
        print(f"{says}: {ratio:.3f}{f' (goal >= {goal})' if goal else ''}; {what}")


async def on_a_simulated_accelerator(texts: list[str], rounds: int) -> None:
    engine = Engine(simulated_model(runs_at_once=2))
    await engine.start()
    client = Client(engine, texts)
    await client.answer_all()
    wall, cpu = [], []
    for _ in range(rounds):
        began = time.perf_counter()
        cpu.append(await cpu_seconds_of(client))
        wall.append(time.perf_counter() - began)
    await engine.stop()
    print(
        f"engine alone on a simulated accelerator: {len(texts) / statistics.median(wall):,.0f} texts/s, "
        f"{statistics.median(cpu) / len(texts) * 1e6:.1f} CPU-us a text; {len(texts)} utterances of CLINC150's test set, "
        f"budget {engine.token_budget}, tokenising and decoding of four heads included"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="fewer texts and rounds: under 30 s")
    parser.add_argument("--texts", type=int, help="utterances (default 2000; short 250)")
    parser.add_argument("--rounds", type=int, help="rounds (default 7; short 4)")
    parser.add_argument(
        "--in-flight", type=int, default=1, help="runs at once, for the engine and the bare loops alike"
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the public data sets")
    args = parser.parse_args()
    texts = utterances(args.data)
    count = args.texts or (250 if args.short else 2000)
    rounds = args.rounds or (4 if args.short else 7)
    asyncio.run(on_the_cpu(texts[:: len(texts) // count][:count], rounds, args.in_flight))
    asyncio.run(on_a_simulated_accelerator(texts, rounds))


if __name__ == "__main__":
    main()
