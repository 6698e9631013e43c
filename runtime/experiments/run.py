"""One running experiment: reads records, looks at the sums minute by minute, and decides. Pure.

Whoever holds the experiment passes records with their places, and the minute up to which all logs have been read. All times
are those of records, so the sums and the decisions are the same wherever the holder was killed.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from ...schemas.experiment import Experiment
from ...schemas.experiment_state import Decided, Ended
from .assignment import PLACES, Shares, Side, hash_unit
from .clock_skew import ClockSkew, Span
from .decision import Decision, decide
from .distributions import Distributions
from .entered import EnteredUnits
from .intervals import MISMATCH_P, find_mismatch
from .ledger import Ledger, Tally
from .observations import count_chances, find_unit
from .pass_ratios import WINDOW_MINUTES, PassRatios
from .sums import RatioSums
from .units import Counts, Event, Place


@dataclass(frozen=True, slots=True)
class Answer:
    """What a result, or a dead letter, says of an experiment."""

    key: bytes | None
    request_id: str
    metadata: Mapping[str, str]
    prediction_id: str
    counts: Counts
    version: int | None = None
    """None: unknown, of a dead letter."""
    by_candidate: bool = False
    pass_ratio: float | None = None
    conversation: str | None = None
    """That a reply belongs to."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """By task, of the best label."""
    latency_ms: float | None = None
    """From the request to the result."""


@dataclass(frozen=True, slots=True)
class Reference:
    """An event that refers to an answer by one of its ids."""

    to: str
    event: Event
    version: int | None = None
    """The version that answered, where known."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A record that is in no sum."""

    reason: str


Content = Answer | Reference | Skipped


@dataclass(slots=True)
class Kept:
    """What an experiment goes on from."""

    minute: int = -1
    begin_at: dict[str, int] = field(default_factory=dict)
    read_until: dict[str, int] = field(default_factory=dict)
    skipped_spans: dict[str, list[Span]] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)
    answers: Counter[str] = field(default_factory=Counter)
    entered: EnteredUnits = field(default_factory=EnteredUnits)
    pass_ratios: PassRatios = field(default_factory=PassRatios)
    decided: list[Decided] = field(default_factory=list)
    distributions: Distributions = field(default_factory=Distributions)


class ExperimentRun:
    """An experiment between two versions of a model. Each log is read in order, from `find_begin` on."""

    def __init__(self, model: str, versions: tuple[int, int], experiment: Experiment, kept: Kept | None = None) -> None:
        """`versions`: the current one and the candidate."""
        kept = kept or Kept()
        self.model, self.versions, self.experiment = model, versions, experiment
        self.start_minute = _minute(experiment.started)
        self.minute = max(kept.minute, self.start_minute)
        """The last look."""
        self.positions, self._read_until = dict(kept.begin_at), dict(kept.read_until)
        self._counted_until = dict(kept.read_until)
        self.answers = kept.answers
        self.pass_ratios, self.decided = kept.pass_ratios, kept.decided
        self.distributions = kept.distributions
        self.ended: Ended | None = None
        rules = experiment.rules
        open_minutes = max(round(rules.attribution_hours * 60), 1)
        self._skew = ClockSkew(open_minutes, kept.skipped_spans)
        self.ledger = Ledger(
            _shares(experiment),
            open_minutes,
            rules.max_units,
            kept.tally,
            kept.entered,
            kept.read_until,
        )
        measures = (*rules.goals, *rules.guardrails)
        self._ratios = sorted({each.name for each in measures if each.name is not None})
        self.decision = self._decide()

    def update(self, experiment: Experiment) -> None:
        """Take over what was changed in the release state: shares were raised, or the candidate was promoted."""
        self.experiment = experiment
        self.ledger.shares = _shares(experiment)

    def read(self, place: Place, content: Content | None, now_minute: int) -> None:
        """Read a record; one from before the log's position was read already.

        `content` None: it says nothing of this experiment. `now_minute`: the clock, to find skewed times.
        """
        if place.offset < self.positions.get(place.log, 0):
            return
        self.positions[place.log] = place.offset + 1
        self._read_until[place.log] = max(place.offset + 1, self._read_until.get(place.log, 0))
        if content is None or place.minute < self.start_minute:
            return
        if self._is_ahead(place, now_minute):
            self._skip(place, "clock_skew")
        elif isinstance(content, Answer):
            self._read_answer(place, content)
        elif isinstance(content, Skipped):
            self._skip(place, content.reason)
        elif content.version is not None and content.version not in self.versions:
            self._skip(place, "other_version")
        elif isinstance(content.event, dict) and not content.event.keys() <= count_chances(self._ratios).keys():
            self._skip(place, "unknown_ratio")
        else:
            self.ledger.count_event(place, content.to, content.event)

    def keep_within(self, log: str, first: int, end: int) -> int:
        """Go on within what there is of a log, from `first` to before `end`; return how many records are gone.

        Those that retention deleted before they were read, or read again for open units, are counted as `deleted`. A log that
        is shorter than what was read is another one: what is there by now is not read.
        """
        position = self.positions[log]
        gone = max(first - position, 0)
        if gone:
            self.ledger.tally.skipped["deleted"] += gone
        self.positions[log] = min(max(position, first), end)
        return gone or max(position - end, 0)

    def find_begin(self) -> dict[str, int]:
        """Return by log the offset from which a successor has to read."""
        return self.ledger.find_safe_offsets(self.positions)

    @property
    def read_until(self) -> dict[str, int]:
        """By log, the offset behind the last record that was ever read."""
        return dict(self._read_until)

    def find_skipped_spans(self) -> Mapping[str, list[Span]]:
        """Return by log where records that may be read again were skipped because of their time."""
        return self._skew.keep_from(self.find_begin())

    def next_look(self, until: int) -> int | None:
        """Return the next minute to look at; None: nothing is due. All logs have been read up to `until`.

        Besides `until` itself it is each minute at which something may be decided, so that a run that was interrupted looks
        at the same sums as one that was not.
        """
        rules, promoted = self.experiment.rules, self.experiment.promoted
        stops = [until, (self.minute // WINDOW_MINUTES + 1) * WINDOW_MINUTES]
        stops.append(self.start_minute + _ceil_minutes(rules.min_hours))
        if promoted is not None:
            stops.append(_minute(promoted) + _ceil_minutes(rules.hold_back_hours))
        if (closing := self.ledger.next_close) is not None:
            stops.append(max(closing, self.minute + 1))
        return min((stop for stop in stops if self.minute < stop <= until), default=None)

    def look(self, minute: int) -> None:
        """Let units enter that are over at this minute, and decide."""
        self.ledger.close_until(minute)
        self.pass_ratios.close_until(minute - 1)
        self.minute = max(self.minute, minute)
        self.decision = self._decide()
        action, why = self.decision.action, self.decision.why
        if self.pass_ratios.is_broken and self.pass_ratios.latest is not None:
            candidate, control = self.pass_ratios.latest
            action, why = (
                "stop",
                f"passes take {candidate:.2f} times their calibrated time, the current version's {control:.2f}",
            )
        if action == "stop" or (action == "promote" and self.experiment.promoted is None):
            self._note(action, why)
        elif self._is_held_back_to_end():
            self._note(
                "complete", f"held back for {self.experiment.rules.hold_back_hours:g} hours, no guardrail is broken"
            )

    @property
    def due(self) -> Decided | None:
        """What is to be done and is not in the release state yet."""
        by_action = {each.action: each for each in self.decided}
        if "stop" in by_action:
            return by_action["stop"]
        if self.experiment.promoted is None:
            return by_action.get("promote")
        return by_action.get("complete")

    @property
    def mismatch(self) -> float:
        """The p-value of the number of units on the candidate's side."""
        tally = self.ledger.tally
        return float(find_mismatch(tally.expected, tally.variance, float(tally.units["candidate"])))

    def _decide(self) -> Decision:
        tally = self.ledger.tally
        sums = {
            key: (sides.get("candidate", RatioSums()), sides.get("control", RatioSums()))
            for key, sides in tally.sums.items()
        }
        units = tally.units["candidate"], tally.units["control"]
        hours = (self.minute - self.start_minute) / 60
        return decide(self.experiment.rules, sums, units, hours, self.mismatch)

    def _note(self, action: str, why: str) -> None:
        if all(each.action != action for each in self.decided):
            at = datetime.fromtimestamp(self.minute * 60, UTC)
            self.decided.append(Decided.model_validate({"action": action, "why": why, "at": at}))

    def _is_held_back_to_end(self) -> bool:
        promoted = self.experiment.promoted
        if promoted is None or self.mismatch < MISMATCH_P:
            return False
        return self.minute >= _minute(promoted) + _ceil_minutes(self.experiment.rules.hold_back_hours)

    def _read_answer(self, place: Place, answer: Answer) -> None:
        if answer.version is not None and answer.version not in self.versions:
            self._skip(place, "other_version")
            return
        request = answer.conversation or answer.request_id  # a conversation keeps its side over its requests
        unit = find_unit(self.experiment.unit, answer.key, request, answer.metadata)
        if unit is None:
            self._skip(place, "no_unit")
            return
        hashed = hash_unit(self.experiment.id, unit)
        side: Side = "candidate" if hashed / PLACES < self.experiment.share else "control"
        if self._is_new(place) and answer.version is not None:
            self._count_who_answered(place, answer, side)
        counts = dict(answer.counts)
        if not self.ledger.has_answer(answer.request_id):
            counts.update(count_chances(self._ratios))
        self.ledger.count_answer(place, hashed, side, (answer.prediction_id, answer.request_id), counts)

    def _count_who_answered(self, place: Place, answer: Answer, side: Side) -> None:
        by: Side = "candidate" if answer.by_candidate else "control"
        self.answers["fallback" if side == "candidate" and by == "control" else by] += 1
        self.distributions.count(by, answer.scores, answer.latency_ms)
        if answer.pass_ratio is not None:
            self.pass_ratios.count(place.minute, by, answer.pass_ratio)

    def _is_ahead(self, place: Place, now_minute: int) -> bool:
        return self._skew.skip(place, now_minute) if self._is_new(place) else self._skew.was_skipped(place)

    def _skip(self, place: Place, reason: str) -> None:
        if self._is_new(place):
            self.ledger.tally.skipped[reason] += 1

    def _is_new(self, place: Place) -> bool:
        """Return whether a record was not read before a restart."""
        return place.offset >= self._counted_until.get(place.log, 0)


def _shares(experiment: Experiment) -> Shares:
    shares = Shares(experiment.share)
    for step in experiment.raises:
        shares = shares.raised(_minute(step.at), step.share)
    return shares


def _minute(at: datetime) -> int:
    return int(at.timestamp() // 60)


def _ceil_minutes(hours: float) -> int:
    return -int(-hours * 60 // 1)
