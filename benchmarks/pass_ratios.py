"""How slow the passes of two equal versions are, compared with their calibration, under full load.

python benchmarks/pass_ratios.py                    # MiniLM on one core, 40 s
python benchmarks/pass_ratios.py --simulated        # a simulated accelerator
python benchmarks/pass_ratios.py --share 0.5

The rule that stops a slow candidate compares the 95th percentiles of both sides; of equal versions their quotient should stay well below 2.
"""

import argparse
import asyncio
import random
import time

import numpy as np
from minilm import FOUR_TASKS, manifest, minilm_model, tokenizer

from murmura.runtime.batching.calibration import measure_passes
from murmura.runtime.batching.engine import Engine
from murmura.runtime.batching.entry import Entry
from murmura.runtime.model.model import Model
from murmura.runtime.testing.simulated_runner import SimulatedRunner

TEXT = "where is my card i ordered it two weeks ago and it still has not arrived can you please check that for me"
TEXTS = [TEXT[:count] for count in (18, 45, 65, 33, 92, 50, 110, 24)]
TASKS = tuple(task.name for task in FOUR_TASKS)
AT_ONCE = 64


class Ratios:
    """A sink that keeps the ratio of each row by side."""

    def __init__(self) -> None:
        self.rows: dict[str, list[float]] = {"candidate": [], "control": []}
        self.passes = dict.fromkeys(self.rows, 0)

    def deliver(self, entries: list[Entry]) -> None:
        side: str = entries[0].context
        self.passes[side] += 1
        self.rows[side] += [entry.pass_ratio for entry in entries if entry.pass_ratio is not None]

    def take_back(self, entries: list[Entry]) -> None:
        raise AssertionError("no version fails here")

    @property
    def count(self) -> int:
        return sum(map(len, self.rows.values()))


def make_model(*, simulated: bool) -> Model:
    return Model(manifest(), tokenizer(), SimulatedRunner(FOUR_TASKS)) if simulated else minilm_model()


async def measure(*, simulated: bool, seconds: float, share: float) -> Ratios:
    """Answer for so many seconds, with a queue that is never empty."""
    current, candidate = (make_model(simulated=simulated) for _ in range(2))
    engine = Engine(current, max_in_flight=None if simulated else 1)
    await engine.start()
    engine.load_candidate(candidate, measure_passes(candidate), lambda fault: None)
    sink, draw, sent = Ratios(), random.Random(0), 0
    encoded, waiting = current.encode(TEXTS), 4000 if simulated else 512
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if sent - sink.count < waiting:
            chosen = [(draw.randrange(len(TEXTS)), draw.random() < share) for _ in range(AT_ONCE)]
            engine.submit(
                Entry(
                    TEXTS[text],
                    TASKS,
                    encoded[text],
                    sink,
                    "candidate" if is_candidates else "control",
                    model=candidate if is_candidates else current,
                )
                for text, is_candidates in chosen
            )
            sent += AT_ONCE
        await asyncio.sleep(0.0005)
    await engine.stop()
    return sink


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulated", action="store_true")
    parser.add_argument("--seconds", type=float, default=40.0)
    parser.add_argument("--share", type=float, default=0.05)
    chosen = parser.parse_args()
    found = asyncio.run(measure(simulated=chosen.simulated, seconds=chosen.seconds, share=chosen.share))
    highest = {}
    for side, ratios in found.rows.items():
        median, highest[side] = np.quantile(ratios, [0.5, 0.95])
        print(
            f"{side}: {found.passes[side]:,} passes, {len(ratios):,} rows, median {median:.2f}, 95 % {highest[side]:.2f}"
        )
    print(f"candidate / control at 95 %: {highest['candidate'] / highest['control']:.2f}")


if __name__ == "__main__":
    main()
