"""How slow the passes of two equal versions are, compared with their calibration.

python benchmarks/pass_ratios.py                    # MiniLM on one core under full load, 40 s
python benchmarks/pass_ratios.py --simulated        # a simulated accelerator
python benchmarks/pass_ratios.py --tiny --rate 40   # the tests' tiny model, 40 texts a second one at a time
python benchmarks/pass_ratios.py --share 0.5

The rule that stops a slow candidate compares the 95th percentiles of both sides; of equal versions their quotient should stay well below 2.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from minilm import FOUR_TASKS, manifest, minilm_model, tokenizer

from murmura.runtime.batching.costs.calibration import measure_passes
from murmura.runtime.batching.engine import Engine
from murmura.runtime.batching.queues.entry import Entry
from murmura.runtime.model.model import Model
from murmura.runtime.testing.simulated_runner import SimulatedRunner

TEXT = "where is my card i ordered it two weeks ago and it still has not arrived can you please check that for me"
TEXTS = [TEXT[:count] for count in (18, 45, 65, 33, 92, 50, 110, 24)]
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


def make_models(*, simulated: bool, tiny: bool) -> list[Model]:
    """Return the same model twice."""
    if simulated:
        return [Model(manifest(), tokenizer(), SimulatedRunner(FOUR_TASKS)) for _ in range(2)]
    if not tiny:
        return [minilm_model() for _ in range(2)]
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
    from tiny_model import write_tiny_model

    with tempfile.TemporaryDirectory() as folder:
        written = write_tiny_model(Path(folder))
        return [Model.load(written, device="cpu") for _ in range(2)]


async def measure(models: list[Model], *, seconds: float, share: float, rate: float | None) -> Ratios:
    """Answer for so many seconds, with a queue that is never empty, or texts one at a time at a rate."""
    current, candidate = models
    engine = Engine(current, max_in_flight=1 if current.device == "cpu" else None)
    await engine.start()
    passes = measure_passes(candidate)
    engine.load_candidate(candidate, passes, lambda fault: None)
    terms = engine.estimate_terms(current)
    for side, times in (("current", terms), ("candidate", passes)):
        print(f"{side}: {1e3 * times.overhead_s:.3f} ms a pass and {1e6 * times.token_s:.2f} us a token by calibration")
    tasks = tuple(name for name, task in current.tasks.items() if task.kind in ("classification", "tagging"))
    sink, draw, sent = Ratios(), random.Random(0), 0
    encoded, waiting = current.encode(TEXTS), 4000 if current.device == "simulated" else 512
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if rate or sent - sink.count < waiting:
            count = 1 if rate else AT_ONCE
            chosen = [(draw.randrange(len(TEXTS)), draw.random() < share) for _ in range(count)]
            engine.submit(
                Entry(
                    TEXTS[text],
                    tasks,
                    encoded[text],
                    sink,
                    "candidate" if is_candidates else "control",
                    model=candidate if is_candidates else current,
                )
                for text, is_candidates in chosen
            )
            sent += count
        await asyncio.sleep(draw.expovariate(rate) if rate else 0.0005)
    await engine.stop()
    return sink


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulated", action="store_true")
    parser.add_argument("--tiny", action="store_true", help="the tests' tiny model")
    parser.add_argument("--seconds", type=float, default=40.0)
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument("--rate", type=float, help="texts a second, one at a time; default: full load")
    chosen = parser.parse_args()
    models = make_models(simulated=chosen.simulated, tiny=chosen.tiny)
    found = asyncio.run(measure(models, seconds=chosen.seconds, share=chosen.share, rate=chosen.rate))
    highest = {}
    for side, ratios in found.rows.items():
        median, highest[side] = np.quantile(ratios, [0.5, 0.95])
        print(
            f"{side}: {found.passes[side]:,} passes, {len(ratios):,} rows, median {median:.2f}, 95 % {highest[side]:.2f}"
        )
    print(f"candidate / control at 95 %: {highest['candidate'] / highest['control']:.2f}")


if __name__ == "__main__":
    main()
