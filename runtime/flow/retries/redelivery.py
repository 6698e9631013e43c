"""Turns a record of the topic of retries into the next attempt at its original."""

from aiokafka.structs import ConsumerRecord, TopicPartition

from ....schemas.envelope import RETRY_HEADERS
from ...field_paths import FieldPaths
from ...kafka.offset_tracker import CompletionSink
from ...output.delivery import Attempt, Delivery
from ...wire.request import read_request
from ...wire.retry_record import Coordinates, Retry


class RetryProgress:
    """Finishes a record of the topic of retries when its original is reported as finished."""

    __slots__ = ("_offset", "_progress")

    def __init__(self, progress: CompletionSink, offset: int) -> None:
        self._progress, self._offset = progress, offset

    def finish(self, offset: int) -> None:
        """Finish the retry's own offset; `offset` is the original's and ignored."""
        self._progress.finish(self._offset)


def restore_original(record: ConsumerRecord, original: Coordinates) -> ConsumerRecord:
    """Return the original record: key, value and headers of this one with the original's coordinates."""
    headers = tuple(pair for pair in record.headers if pair[0] not in RETRY_HEADERS)
    return ConsumerRecord(
        original.topic,
        original.partition,
        original.offset,
        original.timestamp,
        record.timestamp_type,
        record.key,
        record.value,
        record.checksum,
        record.serialized_key_size,
        record.serialized_value_size,
        headers,
    )


def make_redelivery(
    record: ConsumerRecord,
    progress: CompletionSink,
    retry: Retry,
    *,
    max_value_bytes: int,
    max_hops: int | None,
    fields: FieldPaths | None = None,
) -> Delivery:
    """Return the next attempt at the original of a record of the topic of retries; call `settle` before queueing it.

    Results and dead letters name the original's coordinates, so they differ from those of the first attempt only in time.
    `fields`: field paths of the original's topic. Raises RecordError if the original cannot be parsed.
    """
    original = restore_original(record, retry.original)
    read_from = TopicPartition(record.topic, record.partition)
    attempt = Attempt(retry.attempts + 1, retry.only_agent, read_from=read_from)
    request = read_request(original, max_value_bytes, max_hops, fields)
    return Delivery(original, RetryProgress(progress, record.offset), request, attempt)
