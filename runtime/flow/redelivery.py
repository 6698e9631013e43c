"""A record of the topic of retries, taken for the original that it asks to try again."""

from aiokafka.structs import ConsumerRecord

from ...schemas.envelope import RETRY_HEADERS
from ..field_paths import FieldPaths
from ..kafka.offset_tracker import NotesFinished
from ..output.delivery import Attempt, Delivery
from ..wire.request import read_request
from ..wire.retry_record import Coordinates, Retry


class FinishesRetry:
    """Notes that a record of the topic of retries is finished, whatever coordinates it is known by."""

    __slots__ = ("_offset", "_progress")

    def __init__(self, progress: NotesFinished, offset: int) -> None:
        self._progress, self._offset = progress, offset

    def finish(self, offset: int) -> None:
        """`offset` is the original's, which is finished long ago."""
        self._progress.finish(self._offset)


def original_of(record: ConsumerRecord, original: Coordinates) -> ConsumerRecord:
    """Return the original record: key, value and headers of this one, at the place where the original lay."""
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


def redelivery(
    record: ConsumerRecord,
    progress: NotesFinished,
    retry: Retry,
    *,
    max_value_bytes: int,
    max_hops: int | None,
    fields: FieldPaths | None = None,
) -> Delivery:
    """Return the next attempt at the original of a record of the topic of retries; `settle` it before it is queued.

    Results and dead letters name the original's place, so they differ from those of the first attempt in their time alone.
    `fields`: where values of the original's topic hold the fields of a request. Raises RecordError as reading the original does.
    """
    original = original_of(record, retry.original)
    attempt = Attempt(retry.attempts + 1, retry.only_agent)
    request = read_request(original, max_value_bytes, max_hops, fields)
    return Delivery(original, FinishesRetry(progress, record.offset), request, attempt)
