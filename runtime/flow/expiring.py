"""Answers requests that are too old with `expired`, before anything is computed for them."""

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
    """Some deliveries, by whether anybody is asked about them."""

    asked: list[Delivery]
    outcome: Outcome
    """The answers for all others, and for those agents of the asked ones for which they are too old."""
    whole: list[Delivery]
    """Those of which nothing is left to be asked."""


class Expiring:
    """Finds who is not asked any more.

    Invariants:
    - each agent of a record is looked at by its own `max_age_s`, and what another one is asked changes nothing for it;
    - an agent is not asked again about a record that was answered `expired` for it;
    - of a suspended agent nothing is answered before its part leaves the suspension.
    """

    def __init__(
        self,
        suspending: Suspending,
        *,
        model: Callable[[], tuple[str, int]],
        aligned: Callable[[], frozenset[tuple[str, str]]],
        clock: Callable[[], float] | None = time.time,
    ) -> None:
        """`model` returns name and version of the one that serves. `clock`: seconds since 1970; None: nothing is too old."""
        self._suspending, self._model, self._aligned, self._clock = suspending, model, aligned, clock

    def separate(self, deliveries: list[Delivery]) -> Separated | None:
        """Answer what is too old of some deliveries; None when none of them is, which costs a look at each."""
        if self._clock is None:
            return None
        now = self._clock()
        if not any(is_suspect(delivery, now) for delivery in deliveries):
            return None
        found = Separated([], Outcome(), [])
        time_text = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        answering = _Answering(self._model(), self._aligned(), time_text)
        for delivery in deliveries:
            late = self._late(delivery, now) if is_suspect(delivery, now) else []
            if len(late) == len(delivery.asked):
                answering.add(found.outcome, delivery, late)
                found.outcome.works.append(delivery)
                found.whole.append(delivery)
                self._suspending.has_expired(delivery)
                if delivery.span is not None:
                    found.outcome.trace(delivery.span.expired())
                continue
            if late:
                self._split(found.outcome, delivery, late)
                answering.add(found.outcome, delivery, late)
            found.asked.append(delivery)
        return found

    def _late(self, delivery: Delivery, now: float) -> list[tuple[BoundAgent, Limit]]:
        """Return the agents for which a delivery is too old, but none that is left alone now."""
        record, deadline = delivery.record, delivery.request.deadline
        late: list[tuple[BoundAgent, Limit]] = []
        for bound, _ in delivery.asked:
            limit = passed_limit(record.timestamp, deadline, bound.agent.max_age_s, now)
            if limit is not None and not self._suspending.holds_back(bound.agent.name, delivery):
                late.append((bound, limit))
        return late

    def _split(self, outcome: Outcome, delivery: Delivery, late: Sequence[tuple[BoundAgent, Limit]]) -> None:
        """Take the parts of some agents out of a delivery: the record is finished when they and the rest are."""
        names = frozenset(bound.agent.name for bound, _ in late)
        outcome.works += [split_off(delivery, name) for name in sorted(names)]
        delivery.asked = tuple(asked for asked in delivery.asked if asked[0].agent.name not in names)
        delivery.attempt = delivery.attempt._replace(answered=delivery.attempt.answered | names)


class _Answering(NamedTuple):
    """What all answers of one round share."""

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
