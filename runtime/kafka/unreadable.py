"""Skips records that the client cannot unpack. Every reader of records uses this rule."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from aiokafka.errors import ConsumerStoppedError, CorruptRecordException, IllegalOperation, KafkaError
from aiokafka.structs import ConsumerRecord, TopicPartition

POLL_MS: Final = 200
_MOST_SINGLY: Final = 5000
"""Number of records that are read one by one before a whole fetch is tried again."""


def is_unreadable(error: Exception) -> bool:
    """Return whether `getmany` raised this error while unpacking a record: that record can never be read.

    aiokafka passes on any error of the unpacking, for example UnicodeDecodeError. Its own errors concern the broker or
    this client (a missing codec), except for a wrong checksum.
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
    """Read on in one partition: one fetch, or the records up to the first that cannot be unpacked.

    `take` gets the records (at least one) in order, possibly in several calls. `skip` gets the offset of a skipped
    record and the name of the error. Both are called when the consumer's position passes the records, so cancellation
    loses none. Raises what `getmany` raises for any other reason; the partition's position is then unchanged.

    Read partitions one by one after a failure: when `getmany` raises, it has dropped records of other partitions. The
    caller seeks those back.
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
    # The position is that of the failed fetch. Seek there, so that the consumer fetches it again.
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
