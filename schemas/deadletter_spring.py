"""Spring Kafka's headers of a dead letter, for tools that know those names.

Names and encodings are those of Spring's `DeadLetterPublishingRecoverer`: numbers are big-endian, text is UTF-8.
"""

import struct
from collections.abc import Iterable
from typing import Final

from .deadletter import DeadLetter

ORIGINAL_TOPIC: Final = "kafka_dlt-original-topic"
ORIGINAL_PARTITION: Final = "kafka_dlt-original-partition"
"""Four bytes."""
ORIGINAL_OFFSET: Final = "kafka_dlt-original-offset"
"""Eight bytes."""
ORIGINAL_TIMESTAMP: Final = "kafka_dlt-original-timestamp"
"""Eight bytes, milliseconds since 1970."""
ORIGINAL_GROUP: Final = "kafka_dlt-original-consumer-group"
EXCEPTION_FQCN: Final = "kafka_dlt-exception-fqcn"
"""In Spring the exception's class; here `murmura.REASON`."""
EXCEPTION_MESSAGE: Final = "kafka_dlt-exception-message"
SPRING_HEADERS: Final = (
    ORIGINAL_TOPIC,
    ORIGINAL_PARTITION,
    ORIGINAL_OFFSET,
    ORIGINAL_TIMESTAMP,
    ORIGINAL_GROUP,
    EXCEPTION_FQCN,
    EXCEPTION_MESSAGE,
)


def spring_headers(letter: DeadLetter, group: str) -> list[tuple[str, bytes]]:
    """Return Spring Kafka's headers for this dead letter of a consumer group."""
    return [
        (ORIGINAL_TOPIC, letter.topic.encode()),
        (ORIGINAL_PARTITION, struct.pack(">i", letter.partition)),
        (ORIGINAL_OFFSET, struct.pack(">q", letter.offset)),
        (ORIGINAL_TIMESTAMP, struct.pack(">q", letter.timestamp)),
        (ORIGINAL_GROUP, group.encode()),
        (EXCEPTION_FQCN, f"murmura.{letter.reason.value}".encode()),
        (EXCEPTION_MESSAGE, letter.message.encode()),
    ]


def has_spring_headers(letter: DeadLetter, headers: Iterable[tuple[str, bytes | None]]) -> bool:
    """Return whether headers with Spring's names belong to this dead letter, and not to the original."""
    found = dict(headers)
    own_headers = dict(spring_headers(letter, ""))
    return all(found.get(name) == raw for name, raw in own_headers.items() if name != ORIGINAL_GROUP)
