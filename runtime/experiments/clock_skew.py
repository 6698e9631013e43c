"""Which records are skipped because their time is ahead of the clock, the same ones when they are read again. Pure."""

import math
from collections.abc import Mapping
from typing import Final, NamedTuple

from .units import Place

AHEAD_MINUTES: Final = 60
"""How far a record's time may be ahead of the clock, at least."""
_STEPS: Final = 96
"""Steps of the clock while a unit is open, at most."""


class Span(NamedTuple):
    """A part of a log in which records were skipped: those later than `limit`."""

    first: int
    last: int
    """Offsets, both included."""
    limit: int
    """Minute."""


class ClockSkew:
    """Says which records of each log are too far ahead of the clock.

    The clock counts in steps of an hour, or longer ones where units are open for days: a record may be `AHEAD_MINUTES` ahead of
    the end of the step. So one limit holds for all records that are read in a step, and what is kept to skip the same ones after
    a restart, when the clock has gone on, is a span of offsets for each step in which one was skipped, however many there were.
    Where the clock goes back over the end of a step, and at a restart, another span begins: none has an accepted record that is
    later than its limit.
    """

    def __init__(self, open_minutes: int, spans: Mapping[str, list[Span]] | None = None) -> None:
        """`open_minutes`: how long a unit is open. `spans`: by log, of what was read before."""
        self._step = max(60, math.ceil(open_minutes / _STEPS))
        self._spans = {log: list(found) for log, found in (spans or {}).items()}
        self._growing: set[str] = set()
        """The logs whose last span has no accepted record after it that is later than its limit. Not known of spans read before."""

    def find_limit(self, now_minute: int) -> int:
        """Return the latest minute that a record may have which is read now."""
        return (now_minute // self._step + 1) * self._step + AHEAD_MINUTES

    def skip(self, place: Place, now_minute: int) -> bool:
        """Return whether a record that was not read before is to be skipped, and remember it."""
        limit = self.find_limit(now_minute)
        spans = self._spans.get(place.log)
        if place.minute <= limit:
            if spans and place.minute > spans[-1].limit:
                self._growing.discard(place.log)
            return False
        if spans and spans[-1].limit == limit and place.log in self._growing:
            spans[-1] = spans[-1]._replace(last=place.offset)
        else:
            self._spans.setdefault(place.log, []).append(Span(place.offset, place.offset, limit))
            self._growing.add(place.log)
        return True

    def was_skipped(self, place: Place) -> bool:
        """Return whether a record that was read before was skipped then."""
        spans = self._spans.get(place.log, ())
        return any(span.first <= place.offset <= span.last and place.minute > span.limit for span in spans)

    def keep_from(self, begin: Mapping[str, int]) -> Mapping[str, list[Span]]:
        """Forget what is before these offsets, which is not read again; return by log what is left."""
        for log, spans in list(self._spans.items()):
            self._spans[log] = [span for span in spans if span.last >= begin.get(log, 0)]
            if not self._spans[log]:
                del self._spans[log]
        return self._spans
