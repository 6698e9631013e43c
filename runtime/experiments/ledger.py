"""Gathers the events of units and sums them up when a unit is over. Pure: callers pass records with their places and times.

A unit is open from the minute of its first answer for `attribution_hours`. Then what happened in that time enters the sums
of its side, once; the same unit later counts for nothing. Minutes are those of the records, so that reading the same
records again, in whatever order of partitions and from wherever it is safe to begin, gives the same sums.
"""

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from .assignment import PLACES, Shares, Side
from .entered import EnteredUnits
from .observations import OTHER_AGREEMENT
from .sums import RatioSums
from .units import MAX_REFERENCES, Counts, Event, OpenUnit, Place

MAX_MEASURES = 1000
"""Above so many sums, verdicts that nobody was asked for are no longer counted by further tasks: feedback may name any."""
GRACE_MINUTES = 1
"""Minutes by which records may be out of order."""


@dataclass(slots=True)
class Tally:
    """What has entered: the part of a ledger that is kept."""

    sums: dict[str, dict[Side, RatioSums]] = field(default_factory=dict)
    units: Counter[Side] = field(default_factory=Counter)
    expected: float = 0.0
    """Sum over the units of the chance to be on the candidate's side."""
    variance: float = 0.0
    moved: int = 0
    """Units that changed sides; they are in no sum."""
    skipped: Counter[str] = field(default_factory=Counter)
    """Records that are in no sum, by reason."""
    minute: int = -1
    """Up to here units have entered."""
    sampled: float = 1.0
    """Part of the units that is counted."""

    @property
    def unexposed(self) -> int:
        """Events that refer to no open unit: of another version, too late, or of no answer."""
        return self.skipped["unexposed"]

    def enter(self, side: Side, share: float, totals: Counts) -> None:
        self.units[side] += 1
        self.expected += share
        self.variance += share * (1.0 - share)
        for key, (value, weight) in totals.items():
            if key not in self.sums and len(self.sums) >= MAX_MEASURES and key.startswith(f"{OTHER_AGREEMENT}/"):
                continue
            sides = self.sums.setdefault(key, {})
            sides[side] = sides.get(side, RatioSums()).with_unit(value, weight)


class Ledger:
    """The open units of one experiment, and the tally of those that are over."""

    def __init__(
        self,
        shares: Shares,
        attribution_minutes: int,
        max_units: int,
        tally: Tally | None = None,
        entered: EnteredUnits | None = None,
        positions: Mapping[str, int] | None = None,
    ) -> None:
        """`tally` and `entered` are what was kept when the logs had been read up to `positions`, from which on none is."""
        self.shares = shares
        self.tally = tally or Tally()
        self.entered = entered or EnteredUnits()
        self._known_until, self._known_minute = dict(positions or {}), self.tally.minute
        self._minutes = attribution_minutes
        self._max_units = max_units
        self._open: dict[int, OpenUnit] = {}
        self._unit_of: dict[str, int] = {}
        self._closing: list[tuple[int, int]] = []
        self._early: dict[str, dict[tuple[str, int], tuple[Place, Event]]] = {}
        """By the id that they refer to, the events that wait, by log and offset."""
        self._early_order: list[tuple[int, str]] = []
        self._unit_offsets: dict[str, list[tuple[int, int]]] = {}
        """By log, a queue of offsets with the open units that begin there; and, below, with the ids that events wait for."""
        self._early_offsets: dict[str, list[tuple[int, str]]] = {}

    @property
    def open_units(self) -> int:
        return len(self._open)

    @property
    def next_close(self) -> int | None:
        """The first minute at which `close_until` lets a unit enter; None while none is open."""
        while self._closing and not self._is_due(*self._closing[0]):
            heapq.heappop(self._closing)
        return self._closing[0][0] + GRACE_MINUTES if self._closing else None

    def has_answer(self, reference: str) -> bool:
        """Return whether an open unit has an answer with this id."""
        return reference in self._unit_of

    def count_answer(self, place: Place, unit: int, side: Side, references: Iterable[str], events: Counts) -> None:
        """Count an answer to a unit; a repeated one, whose references are known, counts once.

        `unit` is that of `hash_unit`; `references` are ids by which later events name the answer, the first its own.
        """
        if unit in self.entered or not self._is_sampled(unit):
            return
        own, *others = references
        if own in self._unit_of:
            repeated = self._open[self._unit_of[own]]
            if place.log not in repeated.first_offsets:
                repeated.first_offsets[place.log] = place.offset
                self._note_offset(repeated, place, unit)
            return
        opened = self._open.get(unit)
        if opened is not None and len(opened.references) >= MAX_REFERENCES:
            return  # ids beyond the limit are not kept, so a repeated answer would count twice
        if opened is None or place.minute < opened.first_minute:
            opened = opened or self._open.setdefault(unit, OpenUnit(place.minute))
            opened.first_minute = place.minute
            heapq.heappush(self._closing, (place.minute + self._minutes, unit))
        opened.minutes_of[side] = min(place.minute, opened.minutes_of.get(side, place.minute))
        opened.add(place, events)
        self._note_offset(opened, place, unit)
        for reference in (own, *others):
            opened.references.append(reference)
            self._unit_of[reference] = unit
            for early_place, early in self._early.pop(reference, {}).values():
                self._add_event(opened, early_place, reference, early)
        self._sample_fewer()

    def count_event(self, place: Place, reference: str, event: Event) -> None:
        """Count an event that refers to an answer: it waits for an answer that is read later."""
        unit = self._unit_of.get(reference)
        if unit is not None:
            self._add_event(self._open[unit], place, reference, event)
        elif len(self._early_order) < self._max_units:
            self._let_wait(place, reference, event)
        else:
            self._count_unexposed(place)

    def enter_some(self, minute: int, most: int) -> bool:
        """Let at most so many units enter that are over at this minute, or ids go that events waited for; return whether there
        may be more.
        """
        over = minute - GRACE_MINUTES
        for _ in range(most):
            if self._closing and self._closing[0][0] <= over:
                end, unit = heapq.heappop(self._closing)
                if self._is_due(end, unit):
                    self._enter(unit)
            elif self._early_order and self._early_order[0][0] < over:
                self._expire(*self._pop_early())
            else:
                return False
        return True

    def close_until(self, minute: int) -> None:
        """Let units enter that are over at this minute, which all logs have been read up to."""
        while self.enter_some(minute, 1000):
            pass
        self.tally.minute = max(self.tally.minute, minute - GRACE_MINUTES)

    def find_safe_offsets(self, positions: Mapping[str, int]) -> dict[str, int]:
        """Return by log the offset to begin at after a restart: before all open units; `positions` are the next to read."""
        safe = dict(positions)
        for log, units in self._unit_offsets.items():
            while units and not self._begins_at(*units[0], log):
                heapq.heappop(units)
            if units:
                safe[log] = min(units[0][0], safe.get(log, units[0][0]))
        for log, waiting in self._early_offsets.items():
            while waiting and not self._waits_at(*waiting[0], log):
                heapq.heappop(waiting)
            if waiting:
                safe[log] = min(waiting[0][0], safe.get(log, waiting[0][0]))
        return safe

    def _begins_at(self, offset: int, unit: int, log: str) -> bool:
        opened = self._open.get(unit)
        return opened is not None and opened.first_offsets.get(log) == offset

    def _waits_at(self, offset: int, reference: str, log: str) -> bool:
        return (log, offset) in self._early.get(reference, {})

    def _note_offset(self, opened: OpenUnit, place: Place, unit: int) -> None:
        """Note the first offset of a unit in a log, once a record was added to it."""
        if opened.first_offsets[place.log] == place.offset:
            heapq.heappush(self._unit_offsets.setdefault(place.log, []), (place.offset, unit))

    def _is_due(self, end: int, unit: int) -> bool:
        """Return whether the unit is over at `end`; a place in the queue is out of date once an earlier record was read."""
        opened = self._open.get(unit)
        return opened is not None and opened.first_minute + self._minutes == end

    def _add_event(self, opened: OpenUnit, place: Place, reference: str, event: Event) -> None:
        opened.add(place, event)
        opened.events.append((reference, place))
        self._note_offset(opened, place, self._unit_of[reference])

    def _expire(self, minute: int, reference: str) -> None:
        """Count the events of this minute that no answer came for."""
        waiting = self._early.pop(reference, {})
        for place, _ in waiting.values():
            if place.minute == minute:
                self._count_unexposed(place)
        if later := {at: pair for at, pair in waiting.items() if pair[0].minute > minute}:
            self._early[reference] = later

    def _pop_early(self) -> tuple[int, str]:
        """Return the first minute of events that wait, with their id: once, however many of that minute wait for it."""
        first = heapq.heappop(self._early_order)
        while self._early_order and self._early_order[0] == first:
            heapq.heappop(self._early_order)
        return first

    def _let_wait(self, place: Place, reference: str, event: Event) -> None:
        self._early.setdefault(reference, {})[place.log, place.offset] = place, event
        heapq.heappush(self._early_order, (place.minute, reference))
        heapq.heappush(self._early_offsets.setdefault(place.log, []), (place.offset, reference))

    def _enter(self, unit: int) -> None:
        opened = self._drop(unit)
        self.entered.add(unit)
        for reference, place in opened.find_outside(self._minutes):
            self._let_wait(place, reference, {})  # counted once its minute is over, as if it was read after the unit
        end = opened.first_minute + self._minutes
        side, *others = [side for side, minute in opened.minutes_of.items() if minute < end]
        if others or self.shares.is_moved(unit / PLACES, end):
            self.tally.moved += 1
            return
        self.tally.enter(side, self.shares.expected_until(end), opened.total(self._minutes))

    def _drop(self, unit: int) -> OpenUnit:
        opened = self._open.pop(unit)
        for reference in opened.references:
            self._unit_of.pop(reference, None)
        return opened

    def _count_unexposed(self, place: Place) -> None:
        """Count an event that refers to nothing, but not again one that was read and over before the restart."""
        if place.offset >= self._known_until.get(place.log, 0) or place.minute >= self._known_minute:
            self.tally.skipped["unexposed"] += 1

    def _is_sampled(self, unit: int) -> bool:
        return self.tally.sampled == 1.0 or (unit * 0x9E3779B97F4A7C15 % 2**64) / 2**64 < self.tally.sampled

    def _sample_fewer(self) -> None:
        """Halve the part of units that count while there are too many ids of open ones."""
        while len(self._unit_of) > self._max_units:
            self.tally.sampled /= 2.0
            for unit in [unit for unit in self._open if not self._is_sampled(unit)]:
                self._drop(unit)
            if len(self._open) <= 1:
                return
