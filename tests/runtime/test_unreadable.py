"""A record that cannot be unpacked is stepped over; whatever else a fetch raises says nothing of a record."""

import inspect

import aiokafka.errors
import pytest
from aiokafka.errors import CorruptRecordException, TopicAuthorizationFailedError
from aiokafka.structs import TopicPartition

from murmura.runtime.kafka.unreadable import is_unreadable, read_next

PARTITION = TopicPartition("in", 0)
END = 30


class Record:
    def __init__(self, offset: int) -> None:
        self.offset = offset


class Client:
    """A consumer of one partition, eight records a fetch, as aiokafka behaves: a fetch that raises moves nothing."""

    def __init__(self, broken: dict[int, Exception], position: int = 0) -> None:
        self.broken, self.at = broken, position
        self.fetches = 0

    def seek(self, partition, offset: int) -> None:
        self.at = offset

    async def position(self, partition) -> int:
        return self.at

    async def getmany(self, partition, *, timeout_ms: int, max_records: int | None) -> dict:
        self.fetches += 1
        records = []
        for offset in range(self.at, min(self.at + (max_records or 8), END)):
            if offset in self.broken:
                raise self.broken[offset]
            records.append(Record(offset))
        if not records:
            return {}
        self.at = records[-1].offset + 1
        return {partition: records}


async def read_all(client: Client) -> tuple[list[int], list[int]]:
    taken, skipped = [], []
    while client.at < END:
        await read_next(
            client,
            PARTITION,
            lambda records: taken.extend(record.offset for record in records),
            lambda offset, why: skipped.append(offset),
        )
    return taken, skipped


@pytest.mark.parametrize("bad", [set(), {0}, {5}, {7, 8}, {END - 1}, set(range(10, 20)), set(range(END))])
async def test_every_readable_record_is_taken_once_and_every_other_is_skipped_once(bad):
    errors = [CorruptRecordException("crc"), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), ValueError("varint")]
    taken, skipped = await read_all(Client({offset: errors[offset % 3] for offset in bad}))
    assert taken == [offset for offset in range(END) if offset not in bad]
    assert skipped == sorted(bad)


KAFKA_ERRORS = [
    error
    for _, error in inspect.getmembers(aiokafka.errors, inspect.isclass)
    if issubclass(error, Exception) and error is not CorruptRecordException
]


@pytest.mark.parametrize("error", KAFKA_ERRORS, ids=lambda error: error.__name__)
async def test_no_error_of_the_broker_is_taken_for_a_broken_record(error):
    failure = error.__new__(error)
    assert not is_unreadable(failure)
    client, skipped = Client({6: failure, 4: ValueError("varint")}), []

    async def read_on():
        await read_next(client, PARTITION, lambda records: None, lambda offset, why: skipped.append(offset))

    await read_on()
    with pytest.raises(error):
        await read_on()
    assert (client.at, skipped) == (5, [4])


async def test_an_error_of_the_broker_while_records_are_read_singly_loses_none():
    taken: list[int] = []

    class DeniedOnce(Client):
        async def getmany(self, partition, *, timeout_ms: int, max_records: int | None) -> dict:
            if (max_records, self.at) == (1, 2) and not taken.count(-1):
                taken.append(-1)
                raise TopicAuthorizationFailedError("in")
            return await super().getmany(partition, timeout_ms=timeout_ms, max_records=max_records)

    client = DeniedOnce({3: ValueError("varint")})

    async def read_on():
        def take(records):
            taken.extend(record.offset for record in records)

        await read_next(client, PARTITION, take, lambda offset, why: taken.append(-offset))

    with pytest.raises(TopicAuthorizationFailedError):
        await read_on()
    await read_on()
    assert taken == [0, 1, -1, 2, -3]
