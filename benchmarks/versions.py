"""What several loaded versions cost: a candidate beside the current version, and two models that share the device.

    python benchmarks/versions.py [--short] [--seconds S] [--rounds N] [--in-flight N] [--share P] [--data ../shared/data]

The queues are fed as the dispatcher feeds them: of tokenised utterances of CLINC150's test set, in file order, until the fullest
queue holds a token budget.

- Rate with a candidate that answers a share (5 %) of the texts, against the rate of one version, and the same without a hold
  (`max_hold_ms: 0`): on a simulated accelerator (two runs at once, each 2 ms + 30 us a row) in simulated time, so that the host
  costs nothing; and with MiniLM, in texts per CPU-second, in turns, the median of the rounds.
- Share of the device time of two models that both have a backlog, with weights 1:1 and 3:1: one that takes three times as long on
  the simulated accelerator, and MiniLM beside its first three layers, in CPU time of their threads.
"""

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from load import utterances
from minilm import ENCODER, FOUR_TASKS, NAME, manifest, minilm_model, simulated_model, tokenizer, weights

from murmura.runtime.batching.batcher import Batcher
from murmura.runtime.batching.costs.calibration import calibrate, choose_budget
from murmura.runtime.batching.queues.entry import Entry
from murmura.runtime.batching.queues.policy import CELLS_PER_TOKEN, MAX_HOLD_S, BatchLimits, BatchPolicy
from murmura.runtime.batching.queues.version_queue import VersionTerms
from murmura.runtime.model.graph.build import build_graph
from murmura.runtime.model.model import Model
from murmura.runtime.model.onnx_session import open_session

MAX_ROWS = 256
TASKS = tuple(task.name for task in FOUR_TASKS)
SEED = 7
RUNS_AT_ONCE, RUN_S, ROW_S = 2, 0.002, 30e-6
"""The simulated accelerator: a run takes `RUN_S` + `ROW_S` a row."""
SIZES = {"current": 1.0, "candidate": 1.0, "large": 3.0}
"""How many times as long a version takes."""
SIMULATED_S = 1.0
LEAST_TEXTS = 200
"""Of a round, however busy the machine is."""


class Timed:
    """A model whose forward passes are timed, in CPU time of the threads that run them."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self.seconds = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def run(self, batch: Sequence[Any]) -> Any:
        began = time.thread_time()
        try:
            return self._model.run(batch)
        finally:
            self.seconds += time.thread_time() - began


class Feeder:
    """Keeps a budget queued for the version whose queue is the fullest, and counts the answers."""

    def __init__(self, batcher: Batcher, texts: list[str], encoded: Sequence[Any]) -> None:
        self._batcher, self._texts, self._encoded = batcher, texts, encoded
        self._at = 0
        self.answered = 0

    def deliver(self, entries: list[Entry]) -> None:
        self.answered += len(entries)

    def take_back(self, entries: list[Entry]) -> None:
        raise AssertionError("no version fails")

    def feed(self, versions: Sequence[Any], choose: Callable[[], Any], budget: int) -> None:
        """Submit texts until the fullest queue of the versions holds a budget."""
        while True:
            queued = [self._batcher.backlog.queued(version) for version in versions]
            tokens, rows = budget - max(each[0] for each in queued), MAX_ROWS - max(each[1] for each in queued)
            if tokens <= 0 or rows <= 0:
                return
            entries: list[Entry] = []
            while tokens > 0 and len(entries) < rows:
                at = self._at = (self._at + 1) % len(self._texts)
                entries.append(Entry(self._texts[at], TASKS, self._encoded[at], self, model=choose()))
                tokens -= self._encoded[at].tokens
            self._batcher.submit(entries)


def make_terms(model: Any, name: str, weight: float) -> VersionTerms:
    """Calibrate a model as the engine does."""
    found = calibrate(model, max_rows=MAX_ROWS)
    cells = CELLS_PER_TOKEN * found.token_budget
    return VersionTerms(found.token_budget, MAX_ROWS, cells, name, weight, found.overhead_s, found.token_s)


def simulate(
    loads: dict[str, VersionTerms], choose: Callable[[], str] | None, encoded: Sequence[Any], hold_s: float
) -> tuple[float, dict[str, float]]:
    """Answer a backlog on a simulated accelerator in simulated time; returns texts/s, and the device time by version.

    `choose`: the version of a text of one backlog; None: each version has a backlog of its own.
    """
    first = next(iter(loads.values()))
    policy = BatchPolicy(
        BatchLimits(first.token_budget, MAX_ROWS, eager_in_flight=1, max_in_flight=RUNS_AT_ONCE, max_hold_s=hold_s)
    )
    for version, terms in loads.items():
        policy.load(version, terms)
    now, at, rows, used = 0.0, 0, 0, dict.fromkeys(loads, 0.0)
    ends: list[float] = []
    while now < SIMULATED_S:
        for group in ([*loads],) if choose else ([version] for version in loads):
            while max(policy.queued(version)[0] for version in group) < loads[group[0]].token_budget:
                at = (at + 1) % len(encoded)
                model = choose() if choose else group[0]
                policy.push([Entry("", TASKS, encoded[at], None, model=model)], now)
        while (batch := policy.take(now, len(ends))) is not None:
            version = batch.entries[0].model
            seconds = SIZES[version] * (RUN_S + ROW_S * len(batch.entries))
            ends.append(now + seconds)
            rows += len(batch.entries)
            used[version] += seconds
        wake_at = policy.wake_at(len(ends))
        now = min(ends if wake_at is None or wake_at <= now else [*ends, wake_at])
        ends = [end for end in ends if end > now]
    return rows / now, used


def simulated_terms(version: str, encoded: Sequence[Any], name: str = "one", weight: float = 1.0) -> VersionTerms:
    """Return the terms of a version on the simulated accelerator, of its true costs."""
    mean = statistics.mean(each.tokens for each in encoded)
    overhead_s, token_s = SIZES[version] * RUN_S, SIZES[version] * ROW_S / mean
    budget = choose_budget(overhead_s, token_s)
    return VersionTerms(budget, MAX_ROWS, CELLS_PER_TOKEN * budget, name, weight, overhead_s, token_s)


def measure_simulated(encoded: Sequence[Any], share: float) -> None:
    """Print the rate with a candidate and the shares of two models, in simulated time."""
    terms = simulated_terms("current", encoded)
    pair = {"current": terms, "candidate": terms}
    one, _ = simulate({"current": terms}, lambda: "current", encoded, MAX_HOLD_S)
    for what, hold_s, aim in (("held", MAX_HOLD_S, " (aim >= 0.90)"), ("not held", 0.0, "")):
        draw = random.Random(SEED)
        rate, _ = simulate(
            pair,
            lambda draw=draw: "candidate" if draw.random() < share else "current",
            encoded,
            hold_s,
        )
        print(
            f"simulated accelerator, {share:.0%} on a candidate, {what}: {rate / one:.3f} of the rate of one version{aim}; "
            f"{rate:,.0f} of {one:,.0f} texts/s"
        )
    for weight in (1.0, 3.0):
        loads = {
            "current": simulated_terms("current", encoded, "small", weight),
            "large": simulated_terms("large", encoded, "large"),
        }
        _, used = simulate(loads, None, encoded, MAX_HOLD_S)
        print_share("simulated accelerator, one model three times as slow", weight, used["current"], used["large"])


def print_share(what: str, weight: float, small_s: float, large_s: float) -> None:
    """Print the share of the device time of the smaller model."""
    share, due = small_s / (small_s + large_s), weight / (weight + 1.0)
    print(
        f"{what}, weights {weight:g}:1: {share:.3f} of the device time to the smaller one, {share / due:.3f} of its share (aim 0.90 to 1.10)"
    )


async def run_for(
    seconds: float,
    loads: dict[Any, VersionTerms],
    feed: Callable[[Feeder], None],
    texts: tuple[list[str], Sequence[Any]],
    in_flight: int,
    hold_s: float = MAX_HOLD_S,
) -> float:
    """Answer for so long; returns texts per CPU-second of this process."""
    first, terms = next(iter(loads.items()))
    limits = BatchLimits(
        terms.token_budget, MAX_ROWS, eager_in_flight=in_flight, max_in_flight=in_flight, max_hold_s=hold_s
    )
    batcher = Batcher(first, limits, terms=terms)
    batcher.start()
    for model, own in loads.items():
        batcher.load(model, own, 30.0)
    feeder, room = Feeder(batcher, *texts), asyncio.Event()
    batcher.on_room(room.set)
    began, until = time.process_time(), time.perf_counter() + seconds
    while (left := until - time.perf_counter()) > 0 or feeder.answered < LEAST_TEXTS:
        room.clear()
        feed(feeder)
        with suppress(TimeoutError):
            await asyncio.wait_for(room.wait(), max(left, 1.0))
    rate = feeder.answered / (time.process_time() - began)
    await batcher.stop(0.0)
    return rate


def measure_minilm(texts: tuple[list[str], Sequence[Any]], args: argparse.Namespace) -> None:
    """Print the rate of MiniLM with a candidate, with and without a hold, against that of one version."""
    current, candidate = minilm_model(), minilm_model()
    terms, draw = make_terms(current, "one", 1.0), random.Random(SEED)
    rates: dict[str, list[float]] = {"one version": [], "held": [], "not held": []}

    def feed_one(feeder: Feeder) -> None:
        feeder.feed([current], lambda: current, terms.token_budget)

    def feed_both(feeder: Feeder) -> None:
        feeder.feed(
            [current, candidate], lambda: candidate if draw.random() < args.share else current, terms.token_budget
        )

    both = {current: terms, candidate: terms}
    for _ in range(args.rounds):
        for way, loads, feed, hold_s in (
            ("one version", {current: terms}, feed_one, MAX_HOLD_S),
            ("held", both, feed_both, MAX_HOLD_S),
            ("not held", both, feed_both, 0.0),
        ):
            rates[way].append(asyncio.run(run_for(args.seconds, loads, feed, texts, args.in_flight, hold_s)))
    for way, aim in (("held", " (aim >= 0.90)"), ("not held", "")):
        ratio = statistics.median(mine / one for mine, one in zip(rates[way], rates["one version"], strict=True))
        print(
            f"{NAME}, {args.share:.0%} on a candidate, {way}: {ratio:.3f} of the rate of one version{aim}; "
            f"{statistics.median(rates[way]):,.0f} of {statistics.median(rates['one version']):,.0f} texts per CPU-second, "
            f"budget {terms.token_budget} tokens, {args.in_flight} in flight, {args.rounds} rounds of {args.seconds:g} s"
        )


def measure_shares(texts: tuple[list[str], Sequence[Any]], args: argparse.Namespace) -> None:
    """Print how MiniLM and its first three layers share the CPU time of the threads that run them."""
    small, large = Timed(half_of_minilm()), Timed(minilm_model())
    for weight in (1.0, 3.0):
        loads = {small: make_terms(small, "small", weight), large: make_terms(large, "large", 1.0)}
        small.seconds = large.seconds = 0.0

        def feed(feeder: Feeder, loads: dict[Any, VersionTerms] = loads) -> None:
            for model, terms in loads.items():
                feeder.feed([model], lambda model=model: model, terms.token_budget)

        asyncio.run(run_for(2 * args.seconds, loads, feed, texts, args.in_flight))
        print_share(f"{NAME} beside its first three layers", weight, small.seconds, large.seconds)


def half_of_minilm() -> Model:
    """Return the first three layers of MiniLM with its heads, on the CPU."""
    encoder = ENCODER.model_copy(update={"layers": 3})
    path = Path(tempfile.mkdtemp(prefix="murmura-bench-")) / "half.onnx"
    path.write_bytes(build_graph(encoder, FOUR_TASKS, weights(), "ragged"))
    described = manifest().model_copy(update={"name": "minilm-half", "encoder": encoder})
    return Model(described, tokenizer(), open_session(path, "cpu"), graph="ragged")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="fewer and shorter rounds: about a minute")
    parser.add_argument("--seconds", type=float, help="of a round (default 5; short 2)")
    parser.add_argument("--rounds", type=int, help="rounds (default 7; short 3)")
    parser.add_argument("--in-flight", type=int, default=1, help="runs at once on the CPU")
    parser.add_argument("--share", type=float, default=0.05, help="of the candidate")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the public data sets")
    args = parser.parse_args()
    args.seconds = args.seconds or (2.0 if args.short else 5.0)
    args.rounds = args.rounds or (3 if args.short else 7)
    plain = utterances(args.data)
    texts = plain, simulated_model().encode(plain)
    measure_simulated(texts[1], args.share)
    measure_minilm(texts, args)
    measure_shares(texts, args)


if __name__ == "__main__":
    main()
