"""What a client may raise while it reads: what is stepped over, and what ends the read in one line."""

import sqlite3
from collections.abc import Callable
from typing import NamedTuple

import pytest
from aiokafka.errors import (
    CorruptRecordException,
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    OffsetOutOfRangeError,
    RequestTimedOutError,
    TopicAuthorizationFailedError,
    UnsupportedCodecError,
)

from murmura.runtime.errors import MurmuraError, SetupError
from murmura.runtime.kafka import offset_ranges
from murmura.runtime.kafka.offset_ranges import OffsetRange
from murmura.runtime.settings.settings import KafkaSettings

KAFKA = KafkaSettings(request_timeout_ms=2000)
END = 40


class Fetched(NamedTuple):
    offset: int


class BadClient:
    """A consumer of one partition, seven records a fetch, that raises what it is told to at an offset."""

    def __init__(self, raises: Callable[[int], Exception | None], start: Exception | None = None) -> None:
        self.raises, self.at_start = raises, start
        self.first = self.at = 0
        self.stopped = False

    async def start(self) -> None:
        if self.at_start is not None:
            raise self.at_start

    async def stop(self) -> None:
        self.stopped = True

    def assign(self, partitions) -> None: ...

    def unsubscribe(self) -> None: ...

    def pause(self, partition) -> None: ...

    def seek(self, partition, offset: int) -> None:
        self.at = offset

    async def position(self, partition) -> int:
        return self.at

    async def beginning_offsets(self, partitions) -> dict:
        return dict.fromkeys(partitions, self.first)

    async def end_offsets(self, partitions) -> dict:
        return dict.fromkeys(partitions, END)

    async def getmany(self, *partitions, timeout_ms: int, max_records: int | None = None) -> dict:
        got = []
        while self.at < END and len(got) < min(max_records or 7, 7):
            if (error := self.raises(self.at)) is not None:
                if got:
                    break
                raise error
            got.append(Fetched(self.at))
            self.at += 1
        return {partitions[0]: got} if got else {}


class Outcome:
    def __init__(self) -> None:
        self.taken: list[int] = []
        self.unreadable: list[int] = []

    def take(self, number: int, records: list[Fetched]) -> None:
        self.taken += [record.offset for record in records]


@pytest.fixture
def read(monkeypatch):
    """`await read(client)` reads everything with this client."""

    async def reading(client: BadClient, take=None) -> Outcome:
        monkeypatch.setattr(offset_ranges, "AIOKafkaConsumer", lambda **options: client)
        outcome = Outcome()
        await offset_ranges.read(
            KAFKA,
            [OffsetRange("t", 0, 0, END)],
            take or outcome.take,
            unreadable=lambda number, offset: outcome.unreadable.append(offset),
        )
        return outcome

    return reading


@pytest.mark.parametrize("error", [CorruptRecordException("Invalid CRC"), UnicodeDecodeError("utf-8", b"x", 0, 1, "x")])
async def test_only_what_is_corrupt_is_stepped_over(read, error):
    outcome = await read(BadClient(lambda offset: error if offset in {0, 20, 21, END - 1} else None))
    assert outcome.unreadable == [0, 20, 21, END - 1]
    assert outcome.taken == [offset for offset in range(END) if offset not in outcome.unreadable]


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (TopicAuthorizationFailedError("t"), SetupError, "may not use topic t: allow READ"),
        (UnsupportedCodecError("Libraries for zstd not found"), SetupError, "Libraries for zstd not found"),
        (KafkaError("Unexpected error"), MurmuraError, "could not be read from: .*Unexpected error"),
    ],
)
@pytest.mark.parametrize("at", [0, 20])
async def test_what_says_nothing_of_a_record_ends_the_read_in_one_line(read, error, kind, said, at):
    """At 20 it comes while what is corrupt at 19 is being stepped over."""
    client = BadClient(lambda offset: ValueError() if offset == 19 else error if offset >= at else None)
    with pytest.raises(kind, match=said) as raised:
        await read(client)
    assert "\n" not in str(raised.value)
    assert client.stopped


async def test_a_broker_that_is_busy_is_asked_again(read):
    busy = [RequestTimedOutError()] * 3
    outcome = await read(BadClient(lambda offset: busy.pop() if offset == 14 and busy else None))
    assert (outcome.taken, outcome.unreadable) == (list(range(END)), [])


@pytest.mark.parametrize("at", [5, 20, 21])
async def test_what_is_gone_while_something_corrupt_is_stepped_over_is_named(read, at):
    def raises(offset: int) -> Exception | None:
        if offset == 20 and not client.first:
            if at == 20:
                client.first = 30
            return ValueError()
        if offset >= at:
            client.first = 30
        return OffsetOutOfRangeError({}) if offset < client.first else None

    client = BadClient(raises)
    with pytest.raises(SetupError, match=r"t, partition 0: of offsets 0 to 40 \(exclusive\) 30 to 40 is left"):
        await read(client)


async def test_what_the_one_who_takes_raises_goes_through_and_is_no_unreadable_record(read):
    for corrupt in (None, 3):
        taken = []

        def take(number, records, taken=taken):
            taken.extend(records)
            if len(taken) > 5:
                raise sqlite3.OperationalError("database or disk is full")

        with pytest.raises(sqlite3.OperationalError):
            await read(BadClient(lambda offset, corrupt=corrupt: ValueError() if offset == corrupt else None), take)


async def test_a_broker_that_is_gone_at_the_start_is_one_line(read):
    client = BadClient(lambda offset: None, start=KafkaConnectionError("Unable to bootstrap from x"))
    with pytest.raises(MurmuraError, match="could not be read from: KafkaConnectionError: Unable to bootstrap"):
        await read(client)
    assert client.stopped


async def test_a_broker_that_is_gone_when_it_is_asked_for_ends_is_one_line(monkeypatch):
    class Silent(BadClient):
        async def beginning_offsets(self, partitions) -> dict:
            raise KafkaTimeoutError("Failed to get offsets")

    async def there(kafka, topics):
        return {"t": 1}

    monkeypatch.setattr(offset_ranges, "AIOKafkaConsumer", lambda **options: Silent(lambda offset: None))
    monkeypatch.setattr(offset_ranges, "require_topics", there)
    with pytest.raises(MurmuraError, match=r"Failed to get offsets|no Kafka broker at"):
        await offset_ranges.freeze(KAFKA, [["t"]])
    with pytest.raises(MurmuraError, match=r"Failed to get offsets|no Kafka broker at"):
        await offset_ranges.check(KAFKA, [OffsetRange("t", 0, 0, 5)])
