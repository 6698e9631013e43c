"""Asks people about replies: those whose wording had a low score, and those that a filter stopped."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Self

from ...runtime.observe.metrics import Metrics
from ...runtime.output.reviews import TokenBucket
from ...runtime.settings.settings import Settings
from ...runtime.wire.message import Publish
from ...schemas.dialogue import WordingReason
from ...schemas.review import REVIEW_TYPE, Review, ReviewReason
from .events import event_headers
from .policy.policy import Policy
from .turn.step import ReceivedTurn, Step


class ReplyReviews:
    """Makes requests for review, up to `per_minute`; the budget is its own beside that of predictions."""

    def __init__(
        self,
        topic: str,
        app: str,
        policy: Policy,
        per_minute: float,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._topic, self._app, self._policy, self._clock = topic, app, policy, clock
        self._metrics = metrics
        self._bucket = TokenBucket(per_minute, clock())

    @classmethod
    def from_settings(cls, settings: Settings, policy: Policy, metrics: Metrics) -> Self | None:
        """Return what makes the reviews that the settings ask for; None when they ask for none of doubtful answers."""
        per_minute = settings.reviews.per_minute
        return cls(f"{settings.prefix}.reviews", settings.app, policy, per_minute, metrics) if per_minute else None

    def make(self, result: Step, turn: ReceivedTurn) -> Publish | None:
        """Return the request to look at a reply; None where nothing speaks for it, or the budget is spent."""
        why = self._find_reason(result)
        if why is None or result.state.model is None or not self._bucket.left(self._clock()):
            return None
        self._bucket.take(1)
        at = datetime.now(UTC)
        is_filtered = why is ReviewReason.FILTERED
        task = (self._policy.filter if is_filtered else None) or self._policy.reply_task
        review = Review(
            prediction_id=turn.prediction_id,
            agent=turn.agent,
            task=task,
            why=why,
            model=result.state.model,
            source=turn.source,
            predicted=result.state.stopped.reason if is_filtered and result.state.stopped else None,
            score=None if is_filtered else result.score,
            at=at,
        )
        self._metrics.review(turn.agent, task, why)
        headers = event_headers(self._app, REVIEW_TYPE, review.key, turn.request_id, at)
        return Publish(self._topic, review.model_dump(mode="json"), review.key, headers, best_effort=True)

    @staticmethod
    def _find_reason(result: Step) -> ReviewReason | None:
        if result.state.stopped is not None:
            return ReviewReason.FILTERED
        low = result.state.wording_reason is WordingReason.LOW_SCORE and result.score is not None
        return ReviewReason.LOW_SCORE if low else None
