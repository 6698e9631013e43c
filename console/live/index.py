"""The newest results and replies, bounded in number and bytes, and how many pass a second. Pure."""

import asyncio
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from ...runtime.wire.message import Record
from ..reading.bounded_index import BoundedIndex
from .result import LiveResult, read_live_reply, read_live_result

MOST_RESULTS: Final = 2_000
MOST_BYTES: Final = 8 * 1024 * 1024
RATE_S: Final = 10

Read = Callable[[bytes, int, float], LiveResult | None]


@dataclass(frozen=True, slots=True)
class LiveFilters:
    """Empty fields select all. A label and scores are those of one answer."""

    agent: str = ""
    label: str = ""
    version: str = ""
    least: float | None = None
    most: float | None = None

    def has(self, result: LiveResult, *, is_blind: bool = False) -> bool:
        """Return whether a result is selected. `is_blind`: nothing may be found out of its answers and version."""
        if self.agent not in {"", result.agent}:
            return False
        if is_blind:
            return self == LiveFilters(self.agent)
        if self.version not in {"", result.version}:
            return False
        if not self.label and self.least is None and self.most is None:
            return True
        return any(
            self.label in {"", scored.label} and self._has_score(scored.score)
            for answer in result.answers
            for scored in answer.labels
        )

    def _has_score(self, score: float | None) -> bool:
        if self.least is None and self.most is None:
            return True
        return score is not None and (self.least or 0.0) <= score <= (1.0 if self.most is None else self.most)


class LiveIndex:
    """Takes the records of the topics of results and of replies, each in order. `drawn`: ids of the predictions that are judged blind."""

    def __init__(
        self, most: int = MOST_RESULTS, most_bytes: int = MOST_BYTES, drawn: Container[str] = frozenset()
    ) -> None:
        self.drawn = drawn
        self._results: BoundedIndex[str, LiveResult] = BoundedIndex(most, most_bytes)
        self._number = 0
        self._by_second: dict[int, int] = {}
        self._awaited: dict[str, list[LiveResult]] = {}
        self._came = asyncio.Event()
        self._choices: tuple[list[str], list[str], list[str]] = ([], [], [])
        self._choices_at = 0
        """Number of the newest result when they were collected."""

    def take(self, records: Sequence[Record]) -> None:
        self._take(records, read_live_result)

    def take_replies(self, records: Sequence[Record]) -> None:
        """Take the records of the topic of replies."""
        self._take(records, read_live_reply)

    def _take(self, records: Sequence[Record], read: Read) -> None:
        for record in records:
            result = read(record.value or b"", self._number + 1, record.timestamp / 1000)
            if result is None:
                continue
            self._number += 1
            self._count(record.timestamp // 1000)
            self._results.remove(result.prediction_id)  # delivered once more: it is the newest
            self._results.put(result.prediction_id, result, 4 * len(record.value or b""))
            if result.request_id in self._awaited:
                self._awaited[result.request_id].append(result)
                self._came.set()

    def _count(self, second: int) -> None:
        self._by_second[second] = self._by_second.get(second, 0) + 1
        if len(self._by_second) > 4 * RATE_S:
            del self._by_second[next(iter(self._by_second))]

    def rate(self, now: float) -> float:
        """Return the results a second of the last 10 s, by the times of the log."""
        seconds = range(int(now) - RATE_S, int(now) + 2)  # beyond it a producer's clock is wrong
        return sum(count for second, count in self._by_second.items() if second in seconds) / RATE_S

    def get(self, prediction_id: str) -> LiveResult | None:
        return self._results.get(prediction_id)

    def find(self, filters: LiveFilters, most: int, until: int | None = None) -> list[LiveResult]:
        """Return the newest ones that a filter has, of those up to number `until`."""
        found = (each for each in self._newest(until) if filters.has(each, is_blind=each.prediction_id in self.drawn))
        return list(islice(found, most))

    def _newest(self, until: int | None) -> Iterator[LiveResult]:
        return (each for each in self._results.newest() if until is None or each.number <= until)

    def choices(self) -> tuple[list[str], list[str], list[str]]:
        """Return the agents, versions and labels that there are to filter by, at most 200 of each."""
        if self._choices_at != self._number:
            self._choices, self._choices_at = self._find_choices(), self._number
        return self._choices

    def _find_choices(self) -> tuple[list[str], list[str], list[str]]:
        agents: set[str] = set()
        versions: set[str] = set()
        labels: set[str] = set()
        for each in self._results.newest():
            agents.add(each.agent)
            versions.update([each.version] if each.version else ())
            labels.update(scored.label for answer in each.answers for scored in answer.labels if scored.label)
        return _first(agents), _first(versions), _first(labels)

    def expect(self, request_id: str) -> list[LiveResult]:
        """Begin to collect the results of a request; the list grows as they come, until `forget`."""
        return self._awaited.setdefault(request_id, [])

    async def wait_for(self, request_id: str, agents: Iterable[str]) -> None:
        """Wait until these agents have answered an expected request."""
        wanted = set(agents)
        while not wanted <= {each.agent for each in self._awaited[request_id]}:
            self._came.clear()
            await self._came.wait()

    def forget(self, request_id: str) -> None:
        """Collect them no more."""
        self._awaited.pop(request_id, None)


def _first(names: set[str]) -> list[str]:
    return sorted(names)[:200]
