"""Answers requests that are too old with `expired`, without computing them."""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from ..agent.routes import BoundAgent
from ..output.delivery import Delivery
from ..output.expiry import Limit, is_suspect, passed_limit
from ..output.held_parts import split_off
from ..output.outcome import Outcome, Outgoing
from ..output.result import expired
from ..output.suspending import Suspending


class Separated(NamedTuple):
    """Deliveries, separated by whether an agent is still asked about them."""

    asked: list[Delivery]
    outcome: Outcome
    """The `expired` answers."""
    whole: list[Delivery]
    """Deliveries that are too old for all their agents."""


class Expiring:
    """Finds the agents for which a delivery is too old.

    Invariants:
    - each agent is checked by its own `max_age_s`, independently of other agents;
    - an agent is not asked again about a record that was answered `expired` for it;
    - a part of a suspended agent is not answered before it leaves the suspension.
    """

    def __init__(
        self,
        suspending: Suspending,
        *,
        model: Callable[[], tuple[str, int]],
        aligned: Callable[[], frozenset[tuple[str, str]]],
        clock: Callable[[], float] | None = time.time,
    ) -> None:
        """`model` returns name and version of the serving model. `clock`: seconds since 1970; None: nothing is too old."""
        self._suspending, self._model, self._aligned, self._clock = suspending, model, aligned, clock

    def separate(self, deliveries: list[Delivery]) -> Separated | None:
        """Answer the deliveries that are too old; None when none is (one comparison per delivery)."""
        if self._clock is None:
            return None
        now = self._clock()
        if not any(is_suspect(delivery, now) for delivery in deliveries):
            return None
        separated = Separated([], Outcome(), [])
        time_text = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        answering = _Answering(self._model(), self._aligned(), time_text)
        for delivery in deliveries:
            late = self._find_late(delivery, now) if is_suspect(delivery, now) else []
            if len(late) == len(delivery.asked):
                answering.add(separated.outcome, delivery, late)
                separated.outcome.works.append(delivery)
                separated.whole.append(delivery)
                self._suspending.record_expiry(delivery)
                if delivery.span is not None:
                    separated.outcome.trace(delivery.span.expired())
                continue
            if late:
                self._split(separated.outcome, delivery, late)
                answering.add(separated.outcome, delivery, late)
            separated.asked.append(delivery)
        return separated

    def _find_late(self, delivery: Delivery, now: float) -> list[tuple[BoundAgent, Limit]]:
        """Return the agents for which a delivery is too old, except those whose parts are held back."""
        record, deadline = delivery.record, delivery.request.deadline
        late: list[tuple[BoundAgent, Limit]] = []
        for bound, _ in delivery.asked:
            limit = passed_limit(record.timestamp, deadline, bound.agent.max_age_s, now)
            if limit is not None and not self._suspending.holds_back(bound.agent.name, delivery):
                late.append((bound, limit))
        return late

    def _split(self, outcome: Outcome, delivery: Delivery, late: Sequence[tuple[BoundAgent, Limit]]) -> None:
        """Split the parts of some agents off a delivery: the record is finished when all parts are."""
        names = frozenset(bound.agent.name for bound, _ in late)
        outcome.works += [split_off(delivery, name) for name in sorted(names)]
        delivery.asked = tuple(asked for asked in delivery.asked if asked[0].agent.name not in names)
        delivery.attempt = delivery.attempt._replace(answered=delivery.attempt.answered | names)


class _Answering(NamedTuple):
    """The values that all answers of one call share."""

    model: tuple[str, int]
    aligned: frozenset[tuple[str, str]]
    time: str

    def add(self, outcome: Outcome, delivery: Delivery, late: Sequence[tuple[BoundAgent, Limit]]) -> None:
        request, record = delivery.request, delivery.record
        for bound, limit in late:
            name, same = bound.agent.name, (request.topic, bound.agent.output) in self.aligned
            message = expired(bound, request, self.model, self.time, same_partition=same)
            if message is not None:
                outcome.add(Outgoing(message, record, name, any_partition=True))
            outcome.expired.setdefault((name, request.topic, limit), []).append(record)
