"""Asks people about some of the requests that a compared version answers otherwise."""

import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from ...schemas.ids import prediction_id
from ...schemas.result import ModelRef, Source
from ...schemas.review import Review, ReviewReason
from ..observe.metrics import Metrics
from ..output.reviews import TokenBucket
from ..wire.message import Message
from ..wire.review import to_message
from .comparing import Compared
from .rows import Row


class DisagreementReviews:
    """Makes reviews of differing answers, at most `per_minute` of them. The guess is that of the version that answered."""

    def __init__(
        self, topic: str, app: str, per_minute: float, metrics: Metrics, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._topic, self._app, self._metrics, self._clock = topic, app, metrics, clock
        self._bucket = TokenBucket(per_minute, clock()) if per_minute else None

    def ask(self, row: Row, compared: Compared, at: datetime) -> Message | None:
        """Return a review of one differing answer that an agent gave; None where there is none, or no budget."""
        if self._bucket is None or not self._bucket.left(self._clock()):
            return None
        asked = [
            (agent, task)
            for agent, tasks in row.request.agents.items()
            for task in tasks
            if task in compared.tasks and not compared.tasks[task]["agrees"]
        ]
        if not asked:
            return None
        agent, task = asked[row.request.offset % len(asked)]
        try:
            review = _make_review(row, agent, task, at)
        except (
            AttributeError,
            KeyError,
            IndexError,
            TypeError,
            ValueError,
        ):  # an agent may have changed its prediction
            return None
        self._bucket.take(1)
        self._metrics.review(agent, task, review.why)
        return to_message(review, self._topic, self._app, row.request.request_id)


def _make_review(row: Row, agent: str, task: str, at: datetime) -> Review:
    asked, output = row.request, row.outputs[task]
    best: list[Mapping[str, Any]] = output.get("alternatives") or [{}]
    return Review(
        prediction_id=prediction_id(agent, asked.source, asked.request_id),
        agent=agent,
        task=task,
        why=ReviewReason.DISAGREEMENT,
        model=ModelRef(name=row.versions.name, version=row.versions.current),
        source=Source(topic=asked.topic, partition=asked.partition, offset=asked.offset, timestamp=asked.timestamp),
        predicted=best[0].get("label"),
        score=output.get("score"),
        at=at,
    )
