"""Finds the texts and the answers that reviews are about, by the coordinates and times that they name."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

import msgspec

from ...runtime.errors import RecordError
from ...runtime.field_paths import FieldPaths
from ...runtime.kafka import offset_ranges
from ...runtime.kafka.offset_ranges import OffsetRange
from ...runtime.kafka.topics import fetch_partition_counts
from ...runtime.settings.settings import KafkaSettings
from ...runtime.wire.request import Incoming, read_request
from ...schemas.result import Source
from ...schemas.review import Review, ReviewReason

MOST_ANSWERS: Final = 20_000
"""Results that are read at once to find the answers of a few reviews."""
_BEFORE_S, _AFTER_S = 1.0, 5.0
"""An answer is published about when its review is. One that was suggested later is searched after its request."""
_AFTER_REQUEST_S: Final = 60.0
_LARGEST_BYTES: Final = 16 * 1024 * 1024


class Lack(StrEnum):
    """Why there is no request."""

    GONE = "gone"
    """The log holds it no more, or another record in its place."""
    HIDDEN = "hidden"
    """There is no such topic, or this user may not see it."""
    UNREADABLE = "unreadable"
    """It is there, and is no request as this console reads them."""


@dataclass
class Found:
    """What was found: requests by their coordinates, answers by prediction id."""

    requests: dict[tuple[str, int, int], Incoming] = field(default_factory=dict)
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)
    hidden: set[str] = field(default_factory=set)
    """Topics that were not seen."""
    unreadable: set[tuple[str, int, int]] = field(default_factory=set)

    def request_of(self, source: Source) -> Incoming | None:
        """Return the request; None where the log holds another record there, as after the topic was recreated."""
        found = self.requests.get((source.topic, source.partition, source.offset))
        return found if found is not None and found.timestamp == source.timestamp else None

    def lack_of(self, source: Source) -> Lack:
        """Return why `request_of` has no request."""
        if source.topic in self.hidden:
            return Lack.HIDDEN
        is_unreadable = (source.topic, source.partition, source.offset) in self.unreadable
        return Lack.UNREADABLE if is_unreadable else Lack.GONE


class _Answer(msgspec.Struct):
    prediction_id: str
    outputs: dict[str, dict[str, Any]] = msgspec.field(default_factory=dict)
    text: str | None = None
    """Of a reply."""


_read_answer: Final = msgspec.json.Decoder(_Answer).decode


class RequestFinder:
    """Reads without a group. `answers`: by agent, the topic of its results or replies. `fields`: by topic, field paths."""

    def __init__(self, kafka: KafkaSettings, answers: Mapping[str, str], fields: Mapping[str, FieldPaths]) -> None:
        self._kafka, self._answers, self._fields = kafka, answers, fields

    async def find(self, reviews: Sequence[Review]) -> Found:
        """Return what is still there. Raises MurmuraError where the broker or a topic is away: ask again later."""
        found = Found()
        await self._find_requests([each.source for each in reviews if each.source is not None], found)
        for agent, topic in self._answers.items():
            own = [each for each in reviews if each.agent == agent]
            for window in merge_windows(search_window(each) for each in own):
                await self._find_answers(topic, window, {each.prediction_id for each in own}, found)
        return found

    async def find_requests(self, sources: Sequence[Source]) -> Found:
        """Return the requests that are still there. Raises MurmuraError."""
        found = Found()
        await self._find_requests(sources, found)
        return found

    async def _find_requests(self, sources: Sequence[Source], found: Found) -> None:
        wanted: dict[tuple[str, int], set[int]] = {}
        for source in sources:
            wanted.setdefault((source.topic, source.partition), set()).add(source.offset)
        if not wanted:
            return
        topics = {topic for topic, _ in wanted}
        there = await self._freeze(topics)
        found.hidden |= topics - {each.topic for each in there}
        ranges, offsets = [], []
        for each in there:
            inside = sorted(o for o in wanted.get(each[:2], ()) if each.start <= o < each.end)
            if inside:
                ranges.append(OffsetRange(each.topic, each.partition, inside[0], inside[-1] + 1))
                offsets.append(inside)

        def take(number: int, records: list[Any]) -> None:
            for record in records:
                if record.offset not in offsets[number]:
                    continue
                place, request = (record.topic, record.partition, record.offset), self._read(record)
                if request is None:
                    found.unreadable.add(place)
                else:
                    found.requests[place] = request

        def next_wanted(number: int, position: int) -> int:
            return next((offset for offset in offsets[number] if offset >= position), ranges[number].end)

        await offset_ranges.read(self._kafka, ranges, take, next_wanted=next_wanted)

    async def _freeze(self, topics: Iterable[str]) -> list[OffsetRange]:
        """Return what those of the topics hold that exist and that this user may see."""
        there = await fetch_partition_counts(self._kafka)
        known = sorted(set(topics) & there.keys())
        return await offset_ranges.freeze(self._kafka, [known]) if known else []

    def _read(self, record: Any) -> Incoming | None:
        try:
            return read_request(record, _LARGEST_BYTES, fields=self._fields.get(record.topic))
        except RecordError:
            return None

    async def _find_answers(
        self, topic: str, window: tuple[float, float], wanted: set[str | None], found: Found
    ) -> None:
        ranges = await self._freeze({topic})
        ranges = await offset_ranges.narrow(self._kafka, ranges, *window)
        most = MOST_ANSWERS // max(1, len(ranges))

        def take(number: int, records: list[Any]) -> None:
            for record in records:
                try:
                    answer = _read_answer(record.value or b"")
                except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                    continue
                if answer.prediction_id in wanted:
                    reply = {} if answer.text is None else {REPLY: {"text": answer.text}}
                    found.answers[answer.prediction_id] = answer.outputs or reply

        await offset_ranges.read(self._kafka, [r._replace(end=min(r.end, r.start + most)) for r in ranges], take)


REPLY: Final = ""
"""Stands for the task of a reply, which only its review names."""


def search_window(review: Review) -> tuple[float, float]:
    """Return the times (Unix, s) between which an answer was published."""
    if review.why is ReviewReason.SUGGESTED and review.source is not None:
        begin = review.source.timestamp / 1000
        return begin - _BEFORE_S, begin + _AFTER_REQUEST_S
    at = review.at.timestamp()
    return at - _BEFORE_S, at + _AFTER_S


def merge_windows(windows: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return windows that cover the same times and do not overlap, in order."""
    merged: list[tuple[float, float]] = []
    for begin, end in sorted(windows):
        if merged and begin <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((begin, end))
    return merged
