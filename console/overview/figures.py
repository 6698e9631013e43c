"""Figures of agents from records: answers, times, withheld answers, corrections, dead letters. Pure.

A window of time is kept in slices, so memory does not grow with the number of records.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from ...runtime.wire.dead_letter_records import read_letter
from ...runtime.wire.message import Record

CURRENT: Final = "current"
SLICE_S: Final = 10
HOUR_S: Final = 3600
_RATIO: Final = 1.2
"""Of the bounds of two neighbouring classes of times: a percentile is at most 20 % too high."""
_MAX_CLASS: Final = 100
_MAX_AGENTS: Final = 200
"""Names of agents come from records; those beyond it are left out."""
_MAX_NAMES: Final = 300
"""Names that are counted in a slice: some come from records, too."""
_UNREADABLE: Final = msgspec.MsgspecError, UnicodeDecodeError, RecursionError
"""What another program's record causes; the last one by lists in lists."""


class RecentCounts:
    """Counts by name in slices of 10 s, for the last hour."""

    def __init__(self) -> None:
        self._slices: dict[int, Counter[Hashable]] = {}

    def add(self, at: float, name: Hashable) -> None:
        number = int(at // SLICE_S)
        counts = self._slices.get(number)
        if counts is None:
            counts = self._slices[number] = Counter()
        if name in counts or len(counts) < _MAX_NAMES:
            counts[name] += 1
        if len(self._slices) > HOUR_S // SLICE_S + 1:
            del self._slices[min(self._slices)]

    def total(self, now: float, seconds: float) -> Counter[Hashable]:
        """Return the counts of the last `seconds`, from whole slices; the one that has just begun counts."""
        first = int((now - seconds) // SLICE_S) + 1
        found: Counter[Hashable] = Counter()
        for number, counts in self._slices.items():
            if number >= first:
                found.update(counts)
        return found


class _Model(msgspec.Struct, frozen=True):
    name: str
    version: int
    variant: str = CURRENT


class Served(NamedTuple):
    """A version that answered. `variant`: `current`, or `candidate` for one beside it."""

    name: str
    version: int
    variant: str = CURRENT


class _Source(msgspec.Struct):
    timestamp: int


class _Result(msgspec.Struct):
    """What is read of a result; the rest is skipped."""

    agent: str
    source: _Source
    model: _Model | None = None
    outputs: dict[str, Any] = {}


class _Feedback(msgspec.Struct):
    agent: str
    verdict: str


class AgentFigures:
    """The figures of all agents. Times of records are those of the log (ms); one that is ahead of the clock counts as now."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._counts: dict[str, RecentCounts] = {}
        self._versions: dict[str, str] = {}
        self._results, self._feedback = msgspec.json.Decoder(_Result), msgspec.json.Decoder(_Feedback)

    @property
    def agents(self) -> list[str]:
        return sorted(self._counts)

    def version(self, agent: str) -> str | None:
        """Return name and version of the model of the latest answer, of the current version if it answered any."""
        return self._versions.get(agent)

    def served(self, agent: str, now: float, seconds: float) -> dict[Served, int]:
        """Return the answers of the last `seconds` by version."""
        counts = self.counts(agent, now, seconds)
        return {name: count for name, count in counts.items() if isinstance(name, Served)}

    def counts(self, agent: str, now: float, seconds: float) -> Counter[Hashable]:
        found = self._counts.get(agent)
        return Counter() if found is None else found.total(now, seconds)

    def take_results(self, records: Sequence[Record]) -> None:
        for record in records:
            try:
                result = self._results.decode(record.value or b"")
            except _UNREADABLE:
                continue
            at = self._time_of(record)
            self._add(result.agent, at, "answered")
            self._add(result.agent, at, _time_class(record.timestamp - result.source.timestamp))
            if any(isinstance(each, dict) and each.get("abstained") for each in result.outputs.values()):
                self._add(result.agent, at, "withheld")
            if result.model is not None and result.agent in self._counts:
                self._note_model(result.agent, at, result.model)

    def _note_model(self, agent: str, at: float, model: _Model) -> None:
        self._add(agent, at, Served(model.name, model.version, model.variant))
        if model.variant == CURRENT or agent not in self._versions:
            self._versions[agent] = f"{model.name} {model.version}"

    def take_feedback(self, records: Sequence[Record]) -> None:
        for record in records:
            try:
                found = self._feedback.decode(record.value or b"")
            except _UNREADABLE:
                continue
            self._add(found.agent, self._time_of(record), found.verdict)

    def take_dead_letters(self, records: Sequence[Record]) -> None:
        for record in records:
            if (fields := read_letter(record)) is not None and fields.agent is not None:
                self._add(fields.agent, self._time_of(record), "dead_letter")

    def _time_of(self, record: Record) -> float:
        return min(record.timestamp / 1000, self._clock())

    def _add(self, agent: str, at: float, name: Hashable) -> None:
        if agent not in self._counts and len(self._counts) >= _MAX_AGENTS:
            return
        self._counts.setdefault(agent, RecentCounts()).add(at, name)


def _time_class(milliseconds: float) -> int:
    """Return the number of the class of a time: its bound is `_RATIO` to this power."""
    return min(_MAX_CLASS, max(0, math.ceil(math.log(milliseconds, _RATIO) - 1e-9))) if milliseconds > 1 else 0


def percentile_ms(counts: Counter[Hashable], share: float) -> float | None:
    """Return the bound of the class that holds this share of the times; None without any."""
    times = sorted((number, count) for number, count in counts.items() if isinstance(number, int))
    left = share * sum(count for _, count in times)
    for number, count in times:
        left -= count
        if left <= 0:
            return float(_RATIO**number)
    return None
