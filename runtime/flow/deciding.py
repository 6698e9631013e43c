"""Turns a batch of predictions into messages: asks every agent, and adds dead letters for failures."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from ...schemas.deadletter import DeadLetterReason as Reason
from ..agent.prediction import Prediction
from ..agent.routes import BoundAgent
from ..batching.queues.entry import Entry
from ..errors import Closed, RecordError, describe_origin
from ..observe.logs import get_logger
from ..observe.metrics import Metrics
from ..output.delivery import Delivery, coordinates
from ..output.held_parts import split_off
from ..output.outbox import Outbox
from ..output.outcome import Outcome, Outgoing
from ..output.result import Answer, answer
from ..output.reviews import Reviews
from ..output.suspending import Suspending
from .retries.retrying import Retrying
from .version_counts import count_batch, find_version

log = get_logger(__name__)


class Deciding:
    """Asks the agents of a record for its messages.

    Invariants:
    - every entry gets messages or a dead letter, is held, or is Closed (and will be delivered again);
    - a failure of one agent or one record does not affect the others;
    - no dead letter comes of a candidate's answer, and no agent is suspended for one.
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
        """`aligned` returns the pairs (topic of requests, topic of results) whose results keep the partition number."""
        self._outbox = outbox
        self._metrics = metrics
        self._aligned = aligned
        self._aligned_pairs: frozenset[tuple[str, str]] = frozenset()
        """The value of `aligned` for the current batch."""
        self._reviews = reviews
        self._suspending = suspending
        self._retrying = retrying

    def decide(self, entries: list[Entry]) -> tuple[Outcome, int]:
        """Return the outcome of a batch of one model, and the number of records that are not part of it: Closed or held."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        version = find_version(entries[0])
        outcome, unfinished = Outcome(version), 0
        count_batch(self._metrics.versions, version, entries)
        self._aligned_pairs = self._aligned()
        manifest = entries[0].model.manifest
        model = (manifest.name, manifest.version)
        for entry in entries:
            delivery: Delivery = entry.context
            if isinstance(entry.error, Closed):
                unfinished += 1
                continue
            if entry.error is not None:
                error = RecordError(Reason.MODEL_FAILED, f"the model failed: {type(entry.error).__name__}")
                unfinished += self._fail_all(outcome, delivery, error)
                continue
            if entry.encoded.truncated:
                self._metrics.truncated(delivery.request.topic)
            if delivery.span is not None:
                outcome.trace(delivery.span.answered(*model, len(entries)))
            held = False
            for bound, tasks in delivery.asked:
                held |= self._ask(outcome, delivery, entry, bound, tasks, model, now)
            if held:
                unfinished += 1
            else:
                outcome.works.append(delivery)
        if self._reviews is not None:
            self._add_reviews(self._reviews, outcome, entries, now)
        return outcome, unfinished

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
        """Add the messages of an agent; True when the delivery is held: the agent is suspended and no other is asked."""
        name, request = bound.agent.name, delivery.request
        if name in self._suspending.suspended and self._suspending.holds_back(name, delivery):
            return self._suspending.hold(delivery, name)
        try:
            messages, has_result = self._answer(delivery, entry, bound, tasks, model, now)
        except RecordError as error:
            if self._retrying.wants_retry(name, cause := error.__cause__):
                return self._schedule_retry(outcome, delivery, name, cause)
            why = describe_origin(error.__cause__ or error)
            log.error("an agent failed", agent=name, error=str(error), why=why, **coordinates(delivery.record))
            if bound.variant == "candidate":
                return self._ask_about_current(delivery, entry, name)
            return self._fail(outcome, delivery, name, error)
        if name in self._suspending.unclean:
            self._suspending.record_answer(name)
        record = delivery.record
        outcome.sending += [Outgoing(message, record, name) for message in messages]
        if has_result:
            outcome.sending[-1] = Outgoing(messages[-1], record, name, any_partition=True)
        ends = outcome.answered if has_result else outcome.silent
        ends.setdefault((name, request.topic), []).append(record)
        return False

    def _ask_about_current(self, delivery: Delivery, entry: Entry, name: str) -> bool:
        """Ask an agent that failed on a candidate's answer about that of the current version; True when the delivery has no other
        part.
        """
        whole = len(delivery.asked) == 1
        part = delivery if whole else split_off(delivery, name)
        part.current_only, part.span = True, None
        self._metrics.versions.failed(find_version(entry), 1)
        self._suspending.releases.requeue(part.partition, part)
        return whole

    def _schedule_retry(self, outcome: Outcome, delivery: Delivery, name: str, cause: BaseException | None) -> bool:
        """Schedule another attempt at an agent's part; True when the delivery has no other part."""
        try:
            held = self._retrying.schedule(outcome, delivery, name, cause)
        except RecordError as error:
            log.error("an agent has had its last attempt", agent=name, error=str(error), **coordinates(delivery.record))
            return self._fail(outcome, delivery, name, error)
        if self._suspending.is_probing:
            self._suspending.note_retry(delivery)
            if held:
                self._suspending.record_finish(delivery)
        return held

    def _fail(self, outcome: Outcome, delivery: Delivery, name: str, error: RecordError) -> bool:
        """Add the dead letter of an agent's part; True when the delivery is held instead: the agent is suspended."""
        held = self._suspending.record_failure(delivery, name, error)
        if held is None:
            outcome.attempts_made[id(delivery.record)] = delivery.attempts
            self._outbox.dead_letter(outcome, delivery.record, error, name, delivery.span)
        return bool(held)

    def _fail_all(self, outcome: Outcome, delivery: Delivery, error: RecordError) -> bool:
        """Add the dead letter of a record that the model failed on; True when it is held instead."""
        kept = [self._suspending.record_failure(delivery, bound.agent.name, error) for bound, _ in delivery.asked]
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
        """Return an agent's answer. Raises RecordError for any failure, so that the rest of the batch is not affected."""
        try:
            outputs = entry.outputs or {}
            own_outputs = outputs if len(tasks) == len(outputs) else {task: outputs[task] for task in tasks}
            prediction = Prediction(own_outputs, entry.encoded.truncated, model)
            if delivery.chosen is not None:
                prediction.pass_ratio = entry.pass_ratio
                prediction.candidate_failed = delivery.current_only
            same_partition = (delivery.request.topic, bound.agent.output) in self._aligned_pairs
            return answer(bound, delivery.request, prediction, now, same_partition=same_partition)
        except RecordError:
            raise
        except Exception as error:
            message = f"the model's answer cannot be used: {type(error).__name__}"
            raise RecordError(Reason.MODEL_FAILED, message) from error

    def _add_reviews(self, reviews: Reviews, outcome: Outcome, entries: list[Entry], now: str) -> None:
        """Add review requests for doubtful and for random answers that are published as results."""
        try:
            if not (found := reviews.pick(entries)):
                return
            published = outcome.find_published()
            for picked in found:
                entry = entries[picked.row]
                delivery: Delivery = entry.context
                for bound, tasks in delivery.asked:
                    name = bound.agent.name
                    if picked.task in tasks and (name, id(delivery.record)) in published:
                        message = reviews.message(picked, entry, name, delivery.request, now)
                        outcome.add(Outgoing(message, delivery.record, name, best_effort=True))
                        self._metrics.review(name, picked.task, picked.why)
                        break
        except Exception as error:  # noqa: BLE001
            # An agent may have modified a prediction in place. The answers are published regardless.
            log.error("a batch was not looked at for reviews", why=describe_origin(error))
