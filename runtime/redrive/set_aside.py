"""Sets one unfinished record aside while its group is stopped: writes its dead letter, then commits the next offset.

The broker guards the commit: it accepts offsets from a non-member only while the group has no members.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import (
    CommitFailedError,
    GroupAuthorizationFailedError,
    IllegalGenerationError,
    KafkaError,
    RebalanceInProgressError,
    TopicAuthorizationFailedError,
    UnknownMemberIdError,
)
from aiokafka.structs import TopicPartition

from ...schemas.deadletter import DeadLetterReason
from ..errors import MurmuraError, RecordError, SetupError
from ..kafka import offset_ranges
from ..kafka.broker_diagnosis import describe_refusal
from ..kafka.offset_ranges import OffsetRange
from ..kafka.sending.producer import producer_factory
from ..settings.settings import Settings
from ..wire.dead_letter import dead_letter
from ..wire.dead_letter_records import OriginalRecord
from ..wire.message import Message

_MOST_BEFORE: Final = 100_000
"""Maximum number of offsets between the committed one and the record that are searched for records."""
_MEMBERS = (CommitFailedError, UnknownMemberIdError, IllegalGenerationError, RebalanceInProgressError)


class Place(NamedTuple):
    """The coordinates of a record."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"


def read_place(text: str) -> Place:
    """Parse `TOPIC/PARTITION/OFFSET`. Raises SetupError for anything else."""
    found = re.fullmatch(r"([A-Za-z0-9._-]+)/(\d+)/(\d+)", text, re.ASCII)
    if found is None:
        raise SetupError(f"expected TOPIC/PARTITION/OFFSET, found {text!r}")
    return Place(found[1], int(found[2]), int(found[3]))


async def set_aside(settings: Settings, place: Place, why: str) -> None:
    """Write the dead letter of a record and commit the offset after it.

    The record must be the next one that the group would read. Raises SetupError, before writing anything, when it is
    not, when it no longer exists, when the group has members, or when the broker does not allow it. A kill between the
    dead letter and the commit leaves the dead letter only; the next run writes it again.
    """
    ranges = await offset_ranges.freeze(settings.kafka, [[place.topic]])
    held_range = next((each for each in ranges if each.partition == place.partition), None)
    if held_range is None or not held_range.start <= place.offset < held_range.end:
        held = (
            f"it holds {held_range.start} to {held_range.end} (exclusive)"
            if held_range
            else "there is no such partition"
        )
        raise SetupError(f"{place} is not there: {held}")
    partition = TopicPartition(place.topic, place.partition)
    try:
        async with _outside_of_group(settings, partition) as consumer:
            next_offset = await _next_offset(settings, consumer, partition, held_range)
            record = await _find(settings, place, next_offset)
            await consumer.commit({partition: next_offset})  # changes nothing; refused while the group has members
            error = RecordError(DeadLetterReason.SET_ASIDE, why)
            letter = dead_letter(
                record, error, settings.dead_letters, app=settings.app, spring_group=settings.spring_group
            )
            await _publish(settings, letter)
            await consumer.commit({partition: place.offset + 1})
    except _MEMBERS:
        raise SetupError(
            f"group {settings.group} has members: stop its processes first; one that runs holds the record"
        ) from None
    except (GroupAuthorizationFailedError, TopicAuthorizationFailedError) as error:
        raise SetupError(describe_refusal(settings.kafka, error)) from None
    except KafkaError as error:
        raise MurmuraError(f"{place} could not be set aside: {type(error).__name__}") from None


@asynccontextmanager
async def _outside_of_group(settings: Settings, partition: TopicPartition) -> AsyncIterator[Any]:
    """Yield a consumer that reads and commits the group's offset of one partition without joining the group."""
    consumer = AIOKafkaConsumer(
        **settings.kafka.consumer_options(),
        group_id=settings.group,
        enable_auto_commit=False,
        auto_offset_reset="none",
    )
    await consumer.start()
    try:
        consumer.assign([partition])
        yield consumer
    finally:
        await consumer.stop()


async def _next_offset(settings: Settings, consumer: Any, partition: TopicPartition, held_range: OffsetRange) -> int:
    committed: int | None = await consumer.committed(partition)
    if committed is not None:
        return max(committed, held_range.start)
    return held_range.start if settings.kafka.auto_offset_reset == "earliest" else held_range.end


async def _find(settings: Settings, place: Place, next_offset: int) -> OriginalRecord:
    """Return the record at a place. Raises SetupError unless it is the first one from `next_offset` on."""
    if place.offset < next_offset:
        raise SetupError(f"{place} is finished: group {settings.group} goes on at offset {next_offset}")
    if place.offset - next_offset > _MOST_BEFORE:
        raise SetupError(_not_next(settings.group, place, next_offset))
    found: list[OriginalRecord] = []

    def take(number: int, records: list[Any]) -> None:
        found.extend(
            OriginalRecord(r.topic, r.partition, r.offset, r.timestamp, r.key, r.value, r.headers) for r in records[:1]
        )

    def unreadable(number: int, offset: int) -> None:
        found.append(OriginalRecord(place.topic, place.partition, offset, -1, None, None, ()))

    await offset_ranges.read(
        settings.kafka,
        [OffsetRange(place.topic, place.partition, next_offset, place.offset + 1)],
        take,
        unreadable=unreadable,
    )
    first = min(found, key=lambda record: record.offset, default=None)
    if first is None:
        raise SetupError(f"{place} holds no record (a mark of a transaction, or compacted away)")
    if first.offset != place.offset:
        raise SetupError(_not_next(settings.group, place, first.offset))
    return first


def _not_next(group: str, place: Place, next_offset: int) -> str:
    return (
        f"{place} is not the next record of group {group}: that is offset {next_offset}. Set that one aside, or let the "
        "processes finish it"
    )


async def _publish(settings: Settings, message: Message) -> None:
    producer = producer_factory(settings.kafka, settings.producer)()
    await producer.start()
    try:
        async with asyncio.timeout(settings.producer.send_timeout_s):
            await producer.send_and_wait(
                message.topic,
                message.value,
                message.key or (b"" if message.value is None else None),
                headers=message.headers,
            )
    except TimeoutError:
        raise MurmuraError(f"{message.topic} took nothing within {settings.producer.send_timeout_s:g} s") from None
    finally:
        await producer.stop()
