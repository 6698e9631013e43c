"""Some of the answers that a replayed version contradicts, as requests for review."""

import random
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from pydantic import ValidationError

from ...schemas.review import Review, ReviewReason
from ..kafka.sending.producer import producer_factory
from ..kafka.sending.publisher import Publisher
from ..kafka.topics import require_topics
from ..settings.settings import Settings
from ..wire.message import Message
from ..wire.review import to_message

_SEED: Final = 0


class DisagreementSample:
    """Pure. Keeps `most` of the differing answers, each with the same probability (Vitter, Random Sampling with a Reservoir, 1985)."""

    def __init__(self, most: int) -> None:
        self._most, self._seen = most, 0
        self._kept: list[tuple[Mapping[str, Any], str]] = []
        self._draw = random.Random(_SEED)

    def add(self, published: Mapping[str, Any], task: str) -> None:
        """Add a published result of which the answer to a task was contradicted."""
        self._seen += 1
        if len(self._kept) < self._most:
            self._kept.append((published, task))
        elif (place := self._draw.randrange(self._seen)) < self._most:
            self._kept[place] = published, task

    def make_messages(self, topic: str, app: str, at: datetime) -> list[Message]:
        """Return the reviews of what was kept; none of what another program published with fields of another form."""
        found = []
        for published, task in self._kept:
            try:
                review, request_id = _make_review(published, task, at), str(published["request_id"])
            except (AttributeError, KeyError, IndexError, TypeError, ValidationError):
                continue
            found.append(to_message(review, topic, app, request_id))
        return found


def _make_review(published: Mapping[str, Any], task: str, at: datetime) -> Review:
    output = published["outputs"][task]
    best = output.get("alternatives") or [{"label": output.get("label")}]
    fields = {name: published[name] for name in ("prediction_id", "agent", "model", "source")}
    answer = {"task": task, "predicted": best[0].get("label"), "score": output.get("score")}
    return Review.model_validate(fields | answer | {"why": ReviewReason.DISAGREEMENT, "at": at})


async def publish_reviews(settings: Settings, sample: DisagreementSample) -> int:
    """Publish reviews of what was kept; returns how many the broker took. SetupError without a topic of reviews."""
    topic = f"{settings.prefix}.reviews"
    await require_topics(settings.kafka, [topic], "`murmura topics --create` makes it")
    publisher = Publisher(producer_factory(settings.kafka, settings.producer))
    await publisher.start()
    try:
        refused = await publisher.publish(sample.make_messages(topic, settings.app, datetime.now(UTC)))
    finally:
        await publisher.stop()
    return sum(refusal is None for refusal in refused)
