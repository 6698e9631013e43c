"""Stepping over a record that the client cannot unpack: the one rule that every reader of records follows."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from aiokafka.errors import ConsumerStoppedError, CorruptRecordException, IllegalOperation, KafkaError
from aiokafka.structs import ConsumerRecord, TopicPartition

POLL_MS: Final = 200
_MOST_SINGLY: Final = 5000
"""So many records are read one by one before a whole fetch is tried again."""


def is_unreadable(error: Exception) -> bool:
    """Say whether `getmany` raised this while it unpacked a record: it never will unpack that record.

    aiokafka passes on whatever the unpacking raises, a UnicodeDecodeError for example. Its own errors speak of the broker or
    of this client (a codec that is not installed), except the one of a wrong checksum.
    """
    of_client = isinstance(error, KafkaError | ConsumerStoppedError | IllegalOperation)
    return not of_client or isinstance(error, CorruptRecordException)


async def read_next(
    consumer: Any,
    partition: TopicPartition,
    take: Callable[[list[ConsumerRecord]], None],
    skip: Callable[[int, str], None],
    *,
    timeout_ms: int = POLL_MS,
    max_records: int | None = None,
) -> None:
    """Read what comes next in one partition: one fetch, or the records up to the first that cannot be unpacked.

    `take` gets records (never none) in their order, perhaps in several calls. `skip` gets the offset that was stepped over and the name
    of the error. Both are called in the moment in which the consumer's position passes them, so a caller that is cancelled
    has lost nothing. Raises what `getmany` raises for any other reason; the partition's position is then where it was.

    Read partitions one by one after a failure: when `getmany` raises, it has lost what it had taken from others. The caller
    puts those back to where they were.
    """
    try:
        batch = await _fetch(consumer, partition, timeout_ms, max_records)
    except Exception as error:
        if not is_unreadable(error):
            raise
    else:
        if records := batch.get(partition):
            take(records)
        return
    # The position is that of the fetch which failed. Seeking there makes the consumer fetch it again.
    consumer.seek(partition, await consumer.position(partition))
    for _ in range(_MOST_SINGLY):
        try:
            batch = await _fetch(consumer, partition, timeout_ms, 1)
        except Exception as error:
            if not is_unreadable(error):
                raise
            offset = await consumer.position(partition)
            consumer.seek(partition, offset + 1)
            skip(offset, type(error).__name__)
            return
        if not (records := batch.get(partition)):
            return
        take(records)


async def _fetch(
    consumer: Any, partition: TopicPartition, timeout_ms: int, max_records: int | None
) -> Mapping[TopicPartition, list[ConsumerRecord]]:
    batch: Mapping[TopicPartition, list[ConsumerRecord]] = await consumer.getmany(
        partition, timeout_ms=timeout_ms, max_records=max_records
    )
    return batch
