"""The table of topics: name, records, key, and the settings to create the topic with."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

MANY: Final = 12
FEW: Final = 3
DAY_MS: Final = 86_400_000
LARGE_VALUE_BYTES: Final = 12 * 1024 * 1024
"""Largest value that topics of requests and dead letters allow."""
DEAD_LETTER_ROOM_BYTES: Final = 64 * 1024
"""Maximum size of the headers that a dead letter adds to the largest input."""

Count = Literal["many", "few", "one"]


@dataclass(frozen=True, slots=True)
class Topic:
    """One row. `name` is without the prefix; `retention_ms` None keeps records without limit (compacted topics)."""

    name: str
    record: str
    key: str
    count: Count
    retention_ms: int | None = None
    compacted: bool = False
    large: bool = False
    """Carries requests or dead letters: values of 12 MiB are allowed."""

    @property
    def requests(self) -> bool:
        """Whether requests may be published to it."""
        return self.record in {"request", "turn"}

    def partitions(self, many: int = MANY) -> int:
        return {"many": many, "few": FEW, "one": 1}[self.count]

    def config(self) -> dict[str, str]:
        """Return the topic's settings for the broker."""
        config = {"cleanup.policy": "compact" if self.compacted else "delete"}
        if self.retention_ms is not None:
            config["retention.ms"] = str(self.retention_ms)
        if self.large:
            room = 2 * DEAD_LETTER_ROOM_BYTES if self.name == "deadletters" else DEAD_LETTER_ROOM_BYTES
            config["max.message.bytes"] = str(LARGE_VALUE_BYTES + room)
        return config


TOPICS: Final = (
    Topic("classification.requests", "request", "the sender's key", "many", 30 * DAY_MS, large=True),
    Topic("classification.results", "result", "the request's key, else the request id", "many", 30 * DAY_MS),
    Topic("analysis.requests", "request", "the sender's key", "many", 30 * DAY_MS, large=True),
    Topic("analysis.results", "result", "the request's key, else the request id", "many", 30 * DAY_MS),
    Topic("dialogue.turns", "turn", "conversation id", "many", 30 * DAY_MS, large=True),
    Topic("dialogue.replies", "reply", "conversation id", "many", 30 * DAY_MS),
    Topic("dialogue.state", "conversation state", "conversation id", "many", compacted=True),
    Topic("handoffs", "hand-over", "conversation id", "many", 30 * DAY_MS),
    Topic("models", "release state", "model name", "one", compacted=True),
    Topic("experiments", "experiment state", "experiment id and part", "one", compacted=True),
    Topic("shadow", "shadow difference", "request id", "few", 7 * DAY_MS),
    Topic("training", "training event", "run id", "one", 30 * DAY_MS),
    Topic("events", "serving event", "model or app name", "one", 30 * DAY_MS),
    Topic("feedback", "feedback", "feedback id", "many", 90 * DAY_MS),
    Topic("reviews", "review", "prediction id", "few", 30 * DAY_MS),
    Topic("retries", "request that waits for its next attempt", "the original's", "few", 30 * DAY_MS, large=True),
    Topic("deadletters", "dead letter", "the original's", "few", 30 * DAY_MS, large=True),
)


def named_topics(prefix: str = "murmura") -> Iterator[tuple[str, Topic]]:
    """Yield each topic with its full name under a prefix."""
    for topic in TOPICS:
        yield f"{prefix}.{topic.name}", topic
