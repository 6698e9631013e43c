"""From a batch of answers to what is sent for it: every agent is asked, and whatever fails has a dead letter."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from ...schemas.deadletter import DeadLetterReason as Reason
from ..agent.prediction import Prediction
from ..agent.routes import BoundAgent
from ..batching.policy import Entry
from ..errors import Closed, RecordError, place_of
from ..observe.logs import get_logger
from ..observe.metrics import Metrics
from ..output.delivery import Delivery, coordinates
from ..output.outbox import Outbox
from ..output.outcome import Outcome, Outgoing
from ..output.result import Answer, answer
from ..output.reviews import Reviews
from ..output.suspending import Suspending
from .retrying import Retrying

log = get_logger(__name__)


class Deciding:
    """Asks the agents that read a record.

    Invariants:
    - every entry leads to something: messages, a dead letter, or Closed (it will be delivered again);
    - what fails for one agent or one record changes nothing for the others.
    """

    def __init__(
        self,
        outbox: Outbox,
        metrics: Metrics,
        *,
        aligned: Callable[[], frozenset[tuple[str, str]]],
        reviews: Reviews | None,
        suspending: Suspending,
        retrying: Retrying,
    ) -> None:
        """`aligned` returns the pairs (topic of requests, topic of results) where results keep the partition number now."""
        self._outbox = outbox
        self._metrics = metrics
        self._aligned = aligned
        self._aligned_pairs: frozenset[tuple[str, str]] = frozenset()
        """Asked once for a batch."""
        self._reviews = reviews
        self._suspending = suspending
        self._retrying = retrying

    def outcome(self, entries: list[Entry]) -> tuple[Outcome, int]:
        """Return what is to be sent for a batch, all of one model, and how many records were not answered: Closed, or held."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        outcome, closed = Outcome(), 0
        self._aligned_pairs = self._aligned()
        manifest = entries[0].model.manifest
        model = (manifest.name, manifest.version)
        for entry in entries:
            delivery: Delivery = entry.context
            if isinstance(entry.error, Closed):
                closed += 1
                continue
            if entry.error is not None:
                error = RecordError(Reason.MODEL_FAILED, f"the model failed: {type(entry.error).__name__}")
                closed += self._fail_all(outcome, delivery, error)
                continue
            if entry.encoded.truncated:
                self._metrics.truncated(delivery.request.topic)
            if delivery.span is not None:
                outcome.trace(delivery.span.answered(*model, len(entries)))
            held = False
            for bound, tasks in delivery.asked:
                held |= self._ask(outcome, delivery, entry, bound, tasks, model, now)
            if held:
                closed += 1
            else:
                outcome.works.append(delivery)
        if self._reviews is not None:
            self._ask_people(self._reviews, outcome, entries, now)
        return outcome, closed

    def _ask(
        self,
        outcome: Outcome,
        delivery: Delivery,
        entry: Entry,
        bound: BoundAgent,
        tasks: Sequence[str],
        model: tuple[str, int],
        now: str,
    ) -> bool:
        """Add what an agent answers; True when it is suspended and nobody else is asked: the delivery is held."""
        name, request = bound.agent.name, delivery.request
        if name in self._suspending.suspended and self._suspending.holds_back(name, delivery):
            return self._suspending.hold(delivery, name)
        try:
            messages, has_result = self._answer(delivery, entry, bound, tasks, model, now)
        except RecordError as error:
            if self._retrying.asks(name, cause := error.__cause__):
                return self._try_again(outcome, delivery, name, cause)
            why = place_of(error.__cause__ or error)
            log.error("an agent failed", agent=name, said=str(error), why=why, **coordinates(delivery.record))
            kept = self._suspending.failed(delivery, name, error)
            if kept is None:
                outcome.attempts_made[id(delivery.record)] = delivery.attempts
                self._outbox.dead_letter(outcome, delivery.record, error, name, delivery.span)
            return bool(kept)
        if name in self._suspending.unclean:
            self._suspending.answered(name)
        record = delivery.record
        outcome.sending += [Outgoing(message, record, name) for message in messages]
        if has_result:
            outcome.sending[-1] = Outgoing(messages[-1], record, name, any_partition=True)
        ends = outcome.answered if has_result else outcome.silent
        ends.setdefault((name, request.topic), []).append(record)
        return False

    def _try_again(self, outcome: Outcome, delivery: Delivery, name: str, cause: BaseException | None) -> bool:
        """Let an agent's part wait for another attempt; True when that is all there is to the delivery."""
        self._suspending.note_retry(delivery)
        try:
            return self._retrying.try_again(outcome, delivery, name, cause)
        except RecordError as error:
            log.error("an agent has had its last attempt", agent=name, said=str(error), **coordinates(delivery.record))
            outcome.attempts_made[id(delivery.record)] = delivery.attempts
            self._outbox.dead_letter(outcome, delivery.record, error, name, delivery.span)
            return False

    def _fail_all(self, outcome: Outcome, delivery: Delivery, error: RecordError) -> bool:
        """Add the dead letter of a record on which the model failed; True when it is held instead."""
        kept = [self._suspending.failed(delivery, bound.agent.name, error) for bound, _ in delivery.asked]
        if any(kept):
            return True
        outcome.works.append(delivery)
        if None in kept:
            self._outbox.dead_letter(outcome, delivery.record, error, None)
            outcome.trace(delivery.span, error)
        return False

    def _answer(
        self,
        delivery: Delivery,
        entry: Entry,
        bound: BoundAgent,
        tasks: Sequence[str],
        model: tuple[str, int],
        now: str,
    ) -> Answer:
        """Return what an agent says; RecordError for whatever goes wrong: the record's neighbours are waiting."""
        try:
            outputs = entry.outputs or {}
            mine = outputs if len(tasks) == len(outputs) else {task: outputs[task] for task in tasks}
            prediction = Prediction(mine, entry.encoded.truncated, model)
            same = (delivery.request.topic, bound.agent.output) in self._aligned_pairs
            return answer(bound, delivery.request, prediction, now, same_partition=same)
        except RecordError:
            raise
        except Exception as error:
            what = f"the model's answer cannot be used: {type(error).__name__}"
            raise RecordError(Reason.MODEL_FAILED, what) from error

    def _ask_people(self, reviews: Reviews, outcome: Outcome, entries: list[Entry], now: str) -> None:
        """Add requests to look at the most doubtful answers, where the agent publishes its results."""
        try:
            for doubt in reviews.pick(entries):
                entry = entries[doubt.row]
                delivery: Delivery = entry.context
                for bound, tasks in delivery.asked:
                    if doubt.task in tasks and bound.agent.output is not None:
                        name = bound.agent.name
                        message = reviews.message(doubt, entry, name, delivery.request, now)
                        outcome.add(Outgoing(message, delivery.record, name, best_effort=True))
                        self._metrics.review(name, doubt.task, doubt.why)
                        break
        except Exception as error:  # noqa: BLE001
            # An agent may have changed in place what was predicted. The answers go out all the same.
            log.error("a batch was not looked at for reviews", why=place_of(error))
