"""Texts and replies on one core: what replies add to the latency of texts, and that a saturated device serves both.

    python benchmarks/reply_load.py [--short] [--texts 150] [--replies 20] [--seconds 20] [--data ../shared/data]

The process is pinned to one core. MiniLM encodes; a decoder of three layers and 1,500 pieces with random weights words replies, and
each reply ends at a length that is drawn as those of the SGD data set are distributed (11 pieces on average). Texts and replies arrive
at random times at the given rates, texts are utterances of CLINC150's test set, a reply reads three of them. Saturated: texts at their
rate, and 64 callers for replies, each with the next request at once. Latencies count from the moment at which
a request was due.
"""

import argparse
import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import numpy as np
from decoding import draw_lengths
from load import utterances
from minilm import ENCODER, FOUR_TASKS, manifest, tokenizer, weights

from murmura.runtime.batching.engine import Engine
from murmura.runtime.errors import ModelFailed
from murmura.runtime.model.graph.build import build_graph
from murmura.runtime.model.graph.decoder import build_memory, build_step
from murmura.runtime.model.kinds.registry import kind_of
from murmura.runtime.model.model import Model
from murmura.runtime.model.onnx_session import open_session
from murmura.runtime.model.replies.reply_decoder import ChosenPiece, ReplyDecoder
from murmura.runtime.model.replies.slot_table import SlotTable
from murmura.runtime.observe.metrics import Metrics
from murmura.schemas.acts import Act, ActName, Utterance
from murmura.schemas.manifest import GenerationSpec, TaskSpec

TASK = TaskSpec(
    name="reply",
    kind="generation",
    labels=["{end}", *map(str, range(1499))],
    generation=GenerationSpec(context=3, acts=True, layers=3, max_tokens=40, slots=[]),
)
ACTS = (Act(act=ActName.REQUEST, slot="date"),)
ROUNDS = 3
CALLERS = 64


class DrawnLengths(ReplyDecoder):
    """Ends each reply at a drawn length: random weights hardly ever choose the end."""

    def step(self, table: SlotTable, *, apart: bool = False) -> list[ChosenPiece | ModelFailed]:
        places = table.places.tolist()
        chosen = super().step(table, apart=apart)
        ends = np.random.default_rng(sum(places)).random(len(places)) < self.chances[places]
        return [ChosenPiece(0, -1.0) if end else piece for end, piece in zip(ends, chosen, strict=True)]

    @property
    def chances(self) -> np.ndarray:
        """The share of replies that end at each place, among those that get so far."""
        counts = np.bincount(draw_lengths(4000), minlength=42).astype(float)[1:]
        left = counts[::-1].cumsum()[::-1]
        return np.divide(counts, left, out=np.ones_like(counts), where=left > 0)


def make_model() -> Model:
    random = np.random.default_rng(0)
    arrays = dict(weights())
    for name, shape in kind_of(TASK).head_shapes(TASK, ENCODER).items():
        arrays[f"heads.reply.{name}"] = (random.normal(size=shape) * 0.05).astype(np.float32)
    arrays |= {
        name: np.ones_like(a) for name, a in arrays.items() if name.startswith("heads.reply") and "norm.w" in name
    }
    about = manifest([*FOUR_TASKS, TASK])
    memory, step = (open_session(build(ENCODER, TASK, arrays, {}), "cpu") for build in (build_memory, build_step))
    session = open_session(build_graph(ENCODER, about.tasks, arrays), "cpu")
    return Model(about, tokenizer(), session, decoders={"reply": DrawnLengths(about, TASK, memory, step)})


async def arrive(rate: float, seconds: float, ask: Callable[[int], Awaitable[object]], seed: int) -> list[float]:
    """Ask at random times at a rate; returns the latencies in ms, each from the moment at which it was due."""
    times = np.random.default_rng(seed).exponential(1 / rate, int(rate * seconds)).cumsum()
    loop, taken = asyncio.get_running_loop(), []
    began = loop.time()

    async def measure(number: int, due: float) -> None:
        await ask(number)
        taken.append(1000 * (loop.time() - began - due))

    async with asyncio.TaskGroup() as group:
        for number, due in enumerate(times.tolist()):
            await asyncio.sleep(max(began + due - loop.time(), 0))
            group.create_task(measure(number, due))
    return taken


async def ask_always(callers: int, seconds: float, ask: Callable[[int], Awaitable[object]]) -> list[float]:
    """So many callers, each with the next request at once; returns the latencies in ms."""
    loop, taken = asyncio.get_running_loop(), []
    until = loop.time() + seconds

    async def call(number: int) -> None:
        while loop.time() < until:
            began = loop.time()
            await ask(number)
            taken.append(1000 * (loop.time() - began))
            number += callers

    await asyncio.gather(*(call(number) for number in range(callers)))
    return taken


class Load:
    """One engine under one load."""

    def __init__(self, model: Model, texts: Sequence[str]) -> None:
        self.model, self.texts = model, texts
        turns = [Utterance(role=("user", "agent")[n % 2], text=text) for n, text in enumerate(texts)]
        self.turns = [turns[n : n + 3] for n in range(0, len(turns) - 3, 3)]

    async def run(
        self, texts: float, replies: float | None, seconds: float
    ) -> tuple[list[float], list[float], Metrics]:
        """`replies`: a second; None: as many as the engine takes."""
        metrics = Metrics()
        engine = Engine(self.model, max_in_flight=1, observer=metrics)
        await engine.start()

        async def word(number: int) -> None:
            await engine.generate(self.turns[number % len(self.turns)], ACTS, "reply")

        async def predict(number: int) -> None:
            await engine.predict(self.texts[number % len(self.texts)], ["intent", "queue", "sentiment", "entities"])

        answering = asyncio.create_task(arrive(texts, seconds, predict, 1))
        worded: list[float] = []
        if replies is None:
            worded = await ask_always(CALLERS, seconds, word)
        elif replies:
            worded = await arrive(replies, seconds, word, 2)
        answered = await answering
        await engine.stop(5)
        return answered, worded, metrics


def describe(name: str, answered: list[float], worded: list[float], metrics: Metrics, seconds: float) -> str:
    line = f"{name:28} texts p50 {np.percentile(answered, 50):6.1f} p99 {np.percentile(answered, 99):6.1f} ms"
    if worded:
        steps, rows = metrics.step_rows.totals()
        share = metrics.step_seconds.totals()[1] / (metrics.step_seconds.totals()[1] + metrics.inference.totals()[1])
        line += (
            f" | replies p50 {np.percentile(worded, 50):6.1f} p99 {np.percentile(worded, 99):6.1f} ms, {len(worded) / seconds:5.1f}/s,"
            f" {rows / steps:4.1f} rows a step, steps {100 * share:3.0f} % of the device"
        )
    return line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="one round of 6 s")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--texts", type=float, default=150, help="texts a second")
    parser.add_argument("--replies", type=float, default=20, help="replies a second")
    parser.add_argument("--seconds", type=float, default=20)
    options = parser.parse_args()
    if not (options.data / "clinc150").is_dir():
        print(f"no CLINC150 in {options.data}: name the folder of the public data sets with --data")
        return
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    load, seconds = Load(make_model(), utterances(options.data)), 6.0 if options.short else options.seconds
    ratios = []
    for number in range(1 if options.short else ROUNDS):
        began = time.process_time()
        alone = asyncio.run(load.run(options.texts, 0, seconds))
        both = asyncio.run(load.run(options.texts, options.replies, seconds))
        print(f"round {number + 1}, {options.texts:g} texts/s, one core")
        print(describe("texts alone", *alone, seconds))
        print(describe(f"with {options.replies:g} replies/s", *both, seconds))
        print(describe("with all the replies it takes", *asyncio.run(load.run(options.texts, None, seconds)), seconds))
        ratios.append(np.percentile(both[0], 99) / np.percentile(alone[0], 99))
        print(f"texts' p99 with replies against alone: {ratios[-1]:.2f}; {time.process_time() - began:.0f} CPU-s")
    print(f"median of the ratios: {np.median(ratios):.2f}")


if __name__ == "__main__":
    main()
