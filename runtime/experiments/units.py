"""An open unit of an experiment: what happened to it, minute by minute, until it is over. Pure."""

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from ...schemas.feedback import Feedback, Verdict
from .assignment import Side
from .observations import Drawn, count_feedback

_Key = TypeVar("_Key", bound=Hashable)

MAX_REFERENCES = 10_000
"""Ids of one unit's answers that later events may refer to, and verdicts of one unit."""

Counts = Mapping[str, tuple[float, float]]
"""By measure's key: a number of events out of a number of chances."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record was read, and the minute of its timestamp."""

    log: str
    offset: int
    minute: int


Event = Counts | Feedback | Drawn
"""What refers to an answer: events of a ratio, a person's verdict, or that the answer was drawn at random for review."""


@dataclass(slots=True)
class OpenUnit:
    """What happened to a unit. Only what is inside its time counts, whenever it was read."""

    first_minute: int
    minutes_of: dict[Side, int] = field(default_factory=dict)
    """The first minute of an answer by each side."""
    references: list[str] = field(default_factory=list)
    first_offsets: dict[str, int] = field(default_factory=dict)
    """By log, the first record of the unit."""
    events: list[tuple[str, Place]] = field(default_factory=list)
    """Events, with the id that each refers to; not answers."""
    _buckets: dict[int, dict[str, tuple[float, float]]] = field(default_factory=dict)
    _verdicts: dict[str, tuple[int, Feedback]] = field(default_factory=dict)
    _withdrawn: dict[str, int] = field(default_factory=dict)
    _drawn: dict[Drawn, int] = field(default_factory=dict)

    def add(self, place: Place, event: Event) -> None:
        """Add an event. Repeated verdicts, withdrawals and draws change nothing."""
        self.first_offsets[place.log] = min(place.offset, self.first_offsets.get(place.log, place.offset))
        if isinstance(event, tuple):
            _keep_first(self._drawn, event, place.minute)
        elif not isinstance(event, Feedback):
            _add_counts(self._buckets.setdefault(place.minute, {}), event)
        elif event.verdict is Verdict.WITHDRAWN:
            _keep_first(self._withdrawn, str(event.value), place.minute)
        elif len(self._verdicts) < MAX_REFERENCES:
            self._verdicts.setdefault(event.id, (place.minute, event))

    def find_outside(self, minutes: int) -> Iterator[tuple[str, Place]]:
        """Yield the events that are outside so many minutes from the first one."""
        end = self.first_minute + minutes
        return (pair for pair in self.events if not self.first_minute <= pair[1].minute < end)

    def total(self, minutes: int) -> dict[str, tuple[float, float]]:
        """Return what happened in so many minutes from the first one."""
        totals: dict[str, tuple[float, float]] = {}
        end = self.first_minute + minutes
        for minute in sorted(self._buckets):
            if self.first_minute <= minute < end:
                _add_counts(totals, self._buckets[minute])
        drawn = {answer for answer, minute in self._drawn.items() if minute < end}
        for feedback in self._latest_verdicts(end):
            _add_counts(totals, count_feedback(feedback, drawn))
        return totals

    def _latest_verdicts(self, end: int) -> Iterator[Feedback]:
        """Yield the latest verdict of each person on each task of each answer, without those taken back; of who saw the answer
        later the latest blind one, too.
        """
        latest: dict[tuple[str, str, str, bool], Feedback] = {}
        for minute, feedback in sorted(self._verdicts.values(), key=lambda pair: (pair[1].at, pair[1].id)):
            if minute < end and self._withdrawn.get(feedback.id, end) >= end:
                latest[feedback.prediction_id, feedback.task, feedback.by, feedback.blind] = feedback
        yield from latest.values()


def _keep_first(minutes: dict[_Key, int], key: _Key, minute: int) -> None:
    if key in minutes or len(minutes) < MAX_REFERENCES:
        minutes[key] = min(minute, minutes.get(key, minute))


def _add_counts(totals: dict[str, tuple[float, float]], counts: Counts) -> None:
    for key, (value, weight) in counts.items():
        before = totals.get(key, (0.0, 0.0))
        totals[key] = before[0] + value, before[1] + weight
