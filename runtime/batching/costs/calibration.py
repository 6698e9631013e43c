"""Measures the best batch size on this machine, at start, in about a second."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

from ...model.inputs import Input
from ...model.kinds.registry import kind_of
from ...model.pass_time import PassTime

FLOOR_TOKENS = 128
CEILING_TOKENS = 16_384
GOOD_ENOUGH = 0.95
FIRST_TOKENS = 32
SLOW_RUN_S = 0.1
"""Maximum time of a batch, since the next one waits for it, unless a batch of FLOOR_TOKENS takes longer."""
MAX_ROUNDS = 5
_SIZE_GROWTH = 4
_ENOUGH_S = 0.1
"""Seconds of the timer after which no larger batch is timed beside a serving version."""
_MOST_S = 0.5
"""The same by the clock, for a model whose work is on other threads than the caller's, which the timer does not see."""

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
Turn = Callable[[], AbstractContextManager[None]]
"""Makes what a pass waits for before it starts, and holds until it has ended."""


class Measurable(Protocol):
    @property
    def device(self) -> str: ...
    @property
    def tasks(self) -> Mapping[str, Any]: ...
    def encode(self, texts: Sequence[Input], /) -> Sequence[Any]: ...
    def run(self, batch: Sequence[Any], /) -> Any: ...
    def decode(self, logits: Any, batch: Any, texts: Any, wanted: Any, thresholds: Any = None) -> list[Any]: ...


@dataclass(frozen=True, slots=True)
class Calibration:
    """A measurement: seconds = `overhead_s` + `token_s` * tokens, and the resulting budget."""

    token_budget: int
    overhead_s: float
    token_s: float
    points: tuple[tuple[int, float], ...]
    """(tokens, seconds) of each batch size, the fastest of its runs."""
    took_s: float

    @property
    def tokens_per_s(self) -> float:
        """Expected throughput of one run slot at the chosen budget."""
        return self.token_budget / (self.overhead_s + self.token_s * self.token_budget)

    def seconds(self, tokens: int) -> float:
        """Return the expected time of a forward pass over `tokens`, decoding included."""
        return self.overhead_s + self.token_s * tokens

    def figures(self) -> dict[str, Any]:
        """Return the rounded values for a log line."""
        return {
            "token_budget": self.token_budget,
            "tokens_per_s": round(self.tokens_per_s),
            "overhead_ms": round(self.overhead_s * 1e3, 3),
            "token_us": round(self.token_s * 1e6, 2),
            "sizes": [tokens for tokens, _ in self.points],
            "took_s": round(self.took_s, 2),
        }


def warm_up(model: Measurable, *, max_rows: int = 256, turn: Turn = nullcontext) -> float:
    """Run small and medium batches, so that allocations and lazy initialisation do not delay the first records.

    Returns the seconds per token of the last one.
    """
    seconds = 0.0
    for aim in (FIRST_TOKENS, FLOOR_TOKENS):
        batch, tokens = _make_batch(model.encode(_TEXTS), aim, max_rows)
        seconds = _time_batch(model, batch, time.perf_counter, turn) / tokens
    return seconds


def measure_passes(
    model: Measurable,
    *,
    max_rows: int = 256,
    clock: Clock = time.perf_counter,
    timer: Clock | None = None,
    turn: Turn = nullcontext,
) -> PassTime:
    """Warm a model up, and time batches of at least two sizes, each twice.

    Shorter than `calibrate`, for a version whose token budget is known. `timer` measures the passes; its default is that of `calibrate`.
    No larger size is begun once they have taken `_ENOUGH_S` by the timer, or `_MOST_S` by the clock. Beside serving versions each pass
    has a `turn` on the device; waits for turns are not counted.
    """
    slowest_token_s = warm_up(model, max_rows=max_rows, turn=turn)
    timer = timer or _choose_timer(model, clock)
    samples, points = model.encode(_TEXTS), dict[int, float]()
    spent_s, clock_s, aim, batch = 0.0, 0.0, FIRST_TOKENS, list[Any]()

    @contextmanager
    def timed_turn() -> Iterator[None]:
        nonlocal clock_s
        with turn():
            began = clock()
            yield
            clock_s += clock() - began

    def is_enough() -> bool:
        return len(points) >= 2 and (spent_s >= _ENOUGH_S or clock_s >= _MOST_S)

    while aim <= CEILING_TOKENS and len(batch) < max_rows and not is_enough():
        batch, tokens = _make_batch(samples, aim, max_rows)
        times = [_time_batch(model, batch, timer, timed_turn) for _ in range(2)]
        points[tokens], spent_s = min(times), spent_s + sum(times)
        aim *= _SIZE_GROWTH
    return PassTime(*fit([*points.items()]), slowest_token_s)


def calibrate(
    model: Measurable,
    *,
    max_rows: int = 256,
    padded: bool = False,
    limit_s: float = 1.2,
    clock: Clock = time.perf_counter,
    timer: Clock | None = None,
) -> Calibration:
    """Time batches of growing size in rounds for `limit_s`, and choose the token budget.

    A run is the forward pass and the decoding of every task. Sizes double from 32 tokens until a run is slow or has
    `max_rows`. The fastest run of each size counts, since cold starts and other load only add time. A batch of a `padded`
    graph counts with its padding: rows times the longest text.

    `clock` measures the limit, `timer` the runs. The default timer is the thread's CPU time on a CPU, where a run is the
    work of one thread and is independent of other load, and `clock` elsewhere.
    """
    began = clock()
    timer = timer or _choose_timer(model, clock)
    _answer(model, model.encode(_TEXTS)[:1])
    batches, best = _measure_sizes(model, max_rows, padded, limit_s, timer)
    for _ in range(MAX_ROUNDS):
        for tokens, batch in batches.items():
            if clock() - began + best[tokens] <= limit_s:
                best[tokens] = min(best[tokens], _time_batch(model, batch, timer))
    points = tuple(best.items())
    overhead_s, token_s = fit(points)
    budget = choose_budget(overhead_s, token_s)
    return Calibration(budget, overhead_s, token_s, points, clock() - began)


def fit(points: Sequence[tuple[int, float]]) -> tuple[float, float]:
    """Fit seconds = a + b * tokens by least squares on relative errors, with a >= 0 and b > 0.

    Minimises sum(((a + b * n_i - t_i) / t_i)^2): with absolute errors the largest batch alone would determine a.
    """
    weights = [1.0 / seconds**2 for _, seconds in points]
    total = sum(weights)
    mean_n = sum(w * n for w, (n, _) in zip(weights, points, strict=True)) / total
    mean_t = sum(w * t for w, (_, t) in zip(weights, points, strict=True)) / total
    spread = sum(w * (n - mean_n) ** 2 for w, (n, _) in zip(weights, points, strict=True))
    covariance = sum(w * (n - mean_n) * (t - mean_t) for w, (n, t) in zip(weights, points, strict=True))
    token_s = covariance / spread if spread else 0.0
    if token_s <= 0:
        return mean_t, 1e-9
    overhead_s = mean_t - token_s * mean_n
    return (overhead_s, token_s) if overhead_s > 0 else (0.0, mean_t / mean_n)


def choose_budget(overhead_s: float, token_s: float) -> int:
    """Return the smallest budget with a throughput within 5 % of the best.

    With r(n) = n / (a + b n) the best is r* = r(N), where N is the maximum of tokens that take at most `SLOW_RUN_S` (and at
    most `CEILING_TOKENS`), and r(n) >= q r* for n >= q r* a / (1 - q r* b). Rounded up to a multiple of 32.
    """
    most = min(max((SLOW_RUN_S - overhead_s) / token_s, FLOOR_TOKENS), CEILING_TOKENS)
    aim = GOOD_ENOUGH * most / (overhead_s + token_s * most)
    smallest = aim * overhead_s / (1.0 - aim * token_s)
    return max(min(math.ceil(smallest / 32) * 32, CEILING_TOKENS), FLOOR_TOKENS)


def _choose_timer(model: Measurable, clock: Clock) -> Clock:
    return time.thread_time if model.device == "cpu" else clock


def _measure_sizes(
    model: Measurable, max_rows: int, padded: bool, limit_s: float, timer: Clock
) -> tuple[dict[int, list[Any]], dict[int, float]]:
    """Return the batches to measure by tokens, and a first, cold time for each."""
    samples = model.encode(_TEXTS)
    batches: dict[int, list[Any]] = {}
    seconds: dict[int, float] = {}
    aim, enough = FIRST_TOKENS, SLOW_RUN_S / 2  # the slope is known by then
    while aim <= CEILING_TOKENS:
        batch, tokens = _make_batch(samples, aim, max_rows)
        if padded:
            tokens = len(batch) * max(sample.tokens for sample in batch)
        batches[tokens] = batch
        seconds[tokens] = _time_batch(model, batch, timer)
        spent = sum(seconds.values())
        if enough < seconds[tokens] < limit_s - spent:  # repeat: other load may have slowed it
            seconds[tokens] = min(seconds[tokens], _time_batch(model, batch, timer))
        slow = seconds[tokens] > enough and (len(seconds) > 2 or spent > limit_s)
        if slow or len(batch) >= max_rows:
            break
        aim *= 2
    return batches, seconds


def _make_batch(samples: Sequence[Any], aim: int, max_rows: int) -> tuple[list[Any], int]:
    """Return tokenised texts of about `aim` tokens in total, and their number of tokens."""
    batch: list[Any] = []
    tokens = 0
    while tokens < aim and len(batch) < max_rows:
        sample = samples[len(batch) % len(samples)]
        batch.append(sample)
        tokens += sample.tokens
    return batch, tokens


def _answer(model: Measurable, batch: Sequence[Any]) -> None:
    texts = (_TEXTS * (len(batch) // len(_TEXTS) + 1))[: len(batch)]
    # Replies are no part of a pass: steps are counted apart.
    tasks = tuple(name for name, task in model.tasks.items() if not kind_of(task).generates)
    model.decode(model.run(batch), batch, texts, [tasks] * len(batch))


def _time_batch(model: Measurable, batch: list[Any], timer: Clock, turn: Turn = nullcontext) -> float:
    with turn():
        began = timer()
        _answer(model, batch)
        return max(timer() - began, 1e-9)
