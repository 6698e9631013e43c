"""How large a batch should be on this machine: measured at start, in about a second."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

FLOOR_TOKENS = 128
CEILING_TOKENS = 16_384
GOOD_ENOUGH = 0.95
FIRST_TOKENS = 32
SLOW_RUN_S = 0.1
"""A batch is also the time that the next one waits: none is made that takes longer, unless the floor does."""
MAX_ROUNDS = 5

_WORDS = [
    "where",
    "is",
    "my",
    "card",
    "i",
    "ordered",
    "it",
    "two",
    "weeks",
    "ago",
    "and",
    "it",
    "still",
    "has",
    "not",
    "arrived",
    "can",
    "you",
    "please",
    "check",
    "that",
    "for",
    "me",
]
_TEXTS = [" ".join((_WORDS * 2)[start : start + words]) for start, words in enumerate((4, 9, 13, 7, 18, 11, 26, 5))]


Clock = Callable[[], float]


class Measurable(Protocol):
    @property
    def device(self) -> str: ...
    @property
    def tasks(self) -> Mapping[str, Any]: ...
    def encode(self, texts: Sequence[str], /) -> Sequence[Any]: ...
    def run(self, batch: Sequence[Any], /) -> Any: ...
    def decode(self, logits: Any, batch: Any, texts: Any, wanted: Any, thresholds: Any = None) -> list[Any]: ...


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was measured: seconds = `overhead_s` + `token_s` * tokens, and the budget that follows from it."""

    token_budget: int
    overhead_s: float
    token_s: float
    points: tuple[tuple[int, float], ...]
    """(tokens, seconds) of each batch size, the best of its repeats."""
    took_s: float

    @property
    def tokens_per_s(self) -> float:
        """Expected of one run slot at the chosen budget."""
        return self.token_budget / (self.overhead_s + self.token_s * self.token_budget)

    def seconds(self, tokens: int) -> float:
        """Expected of a forward pass over so many tokens, decoding included."""
        return self.overhead_s + self.token_s * tokens

    def figures(self) -> dict[str, Any]:
        """Return what is worth a log line."""
        return {
            "token_budget": self.token_budget,
            "tokens_per_s": round(self.tokens_per_s),
            "overhead_ms": round(self.overhead_s * 1e3, 3),
            "token_us": round(self.token_s * 1e6, 2),
            "sizes": [tokens for tokens, _ in self.points],
            "took_s": round(self.took_s, 2),
        }


def warm_up(model: Measurable, *, max_rows: int = 256) -> float:
    """Run small and middling batches, so that allocations and lazy set-up are not paid by the first records.

    Returns the seconds that the last of them took for each of its tokens.
    """
    seconds = 0.0
    for aim in (FIRST_TOKENS, FLOOR_TOKENS):
        batch, tokens = _batch(model.encode(_TEXTS), aim, max_rows)
        seconds = _timed(model, batch, time.perf_counter) / tokens
    return seconds


def calibrate(
    model: Measurable,
    *,
    max_rows: int = 256,
    padded: bool = False,
    limit_s: float = 1.2,
    clock: Clock = time.perf_counter,
    timer: Clock | None = None,
) -> Calibration:
    """Time batches of growing size in rounds until `limit_s` has gone by, and choose the token budget.

    What is timed is what keeps a run slot busy: the forward pass and the decoding of every task. Sizes double from 32
    tokens until a run is slow or the rows run out. Of each size the fastest run counts: cold starts and neighbours only
    ever add. A `padded` graph is charged for its padding: rows times the longest.

    `clock` watches the limit. `timer` times the runs; on a CPU a run is one thread's work, and that thread's CPU time is
    the same on a busy machine (default there), elsewhere it is the clock.
    """
    began = clock()
    timer = timer or (time.thread_time if model.device == "cpu" else clock)
    _answer(model, model.encode(_TEXTS)[:1])
    batches, best = _ladder(model, max_rows, padded, limit_s, timer)
    for _ in range(MAX_ROUNDS):
        for tokens, batch in batches.items():
            if clock() - began + best[tokens] <= limit_s:
                best[tokens] = min(best[tokens], _timed(model, batch, timer))
    points = tuple(best.items())
    overhead_s, token_s = fit(points)
    budget = choose_budget(overhead_s, token_s)
    return Calibration(budget, overhead_s, token_s, points, clock() - began)


def fit(points: Sequence[tuple[int, float]]) -> tuple[float, float]:
    """Fit seconds = a + b * tokens by least squares on relative errors, with a >= 0 and b > 0.

    Minimises sum(((a + b * n_i - t_i) / t_i)^2): in absolute errors the largest batch would decide a alone.
    """
    weights = [1.0 / seconds**2 for _, seconds in points]
    total = sum(weights)
    mean_n = sum(w * n for w, (n, _) in zip(weights, points, strict=True)) / total
    mean_t = sum(w * t for w, (_, t) in zip(weights, points, strict=True)) / total
    spread = sum(w * (n - mean_n) ** 2 for w, (n, _) in zip(weights, points, strict=True))
    together = sum(w * (n - mean_n) * (t - mean_t) for w, (n, t) in zip(weights, points, strict=True))
    token_s = together / spread if spread else 0.0
    if token_s <= 0:
        return mean_t, 1e-9
    overhead_s = mean_t - token_s * mean_n
    return (overhead_s, token_s) if overhead_s > 0 else (0.0, mean_t / mean_n)


def choose_budget(overhead_s: float, token_s: float) -> int:
    """Return the smallest budget whose tokens/s come within 5 % of the best.

    With r(n) = n / (a + b n) the best is r* = r(N), N being the most tokens that take no longer than `SLOW_RUN_S` (at
    most `CEILING_TOKENS`), and r(n) >= q r* from n = q r* a / (1 - q r* b) on. Rounded up to a multiple of 32.
    """
    most = min(max((SLOW_RUN_S - overhead_s) / token_s, FLOOR_TOKENS), CEILING_TOKENS)
    aim = GOOD_ENOUGH * most / (overhead_s + token_s * most)
    smallest = aim * overhead_s / (1.0 - aim * token_s)
    return max(min(math.ceil(smallest / 32) * 32, CEILING_TOKENS), FLOOR_TOKENS)


def _ladder(
    model: Measurable, max_rows: int, padded: bool, limit_s: float, timer: Clock
) -> tuple[dict[int, list[Any]], dict[int, float]]:
    """Return the batches to measure by their tokens, and a first, cold time for each."""
    samples = model.encode(_TEXTS)
    batches: dict[int, list[Any]] = {}
    seconds: dict[int, float] = {}
    aim, enough = FIRST_TOKENS, SLOW_RUN_S / 2  # the slope is known by then
    while aim <= CEILING_TOKENS:
        batch, tokens = _batch(samples, aim, max_rows)
        if padded:
            tokens = len(batch) * max(sample.tokens for sample in batch)
        batches[tokens] = batch
        seconds[tokens] = _timed(model, batch, timer)
        spent = sum(seconds.values())
        if enough < seconds[tokens] < limit_s - spent:  # or was it a neighbour?
            seconds[tokens] = min(seconds[tokens], _timed(model, batch, timer))
        slow = seconds[tokens] > enough and (len(seconds) > 2 or spent > limit_s)
        if slow or len(batch) >= max_rows:
            break
        aim *= 2
    return batches, seconds


def _batch(samples: Sequence[Any], aim: int, max_rows: int) -> tuple[list[Any], int]:
    """Return tokenised texts worth about `aim` tokens, and how many tokens they are."""
    batch: list[Any] = []
    tokens = 0
    while tokens < aim and len(batch) < max_rows:
        sample = samples[len(batch) % len(samples)]
        batch.append(sample)
        tokens += sample.tokens
    return batch, tokens


def _answer(model: Measurable, batch: Sequence[Any]) -> None:
    texts = (_TEXTS * (len(batch) // len(_TEXTS) + 1))[: len(batch)]
    model.decode(model.run(batch), batch, texts, [tuple(model.tasks)] * len(batch))


def _timed(model: Measurable, batch: list[Any], timer: Clock) -> float:
    began = timer()
    _answer(model, batch)
    return max(timer() - began, 1e-9)
