"""Readers without a group pass over records that the client cannot unpack: `murmura tail`, `murmura chat`, the demos."""

import ast
import asyncio
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import TopicAuthorizationFailedError

import murmura
from murmura.runtime.cli.records import tail
from murmura.runtime.kafka.groupless_reader import PartitionsReader, open_reader
from murmura.runtime.settings.settings import Settings

ROOT = Path(murmura.__file__).parent
# The rule itself, and readers that keep positions of their own and read on by `read_next`.
FETCHERS = {
    "kafka/unreadable.py",
    "kafka/groupless_reader.py",
    "kafka/group_reader.py",
    "kafka/offset_ranges.py",
    "flow/fetching/source.py",
}


async def send(bootstrap: str, topic: str, values: list[bytes], partition: int = 0) -> None:
    async with AIOKafkaProducer(bootstrap_servers=bootstrap) as producer:
        for value in values:
            await producer.send_and_wait(topic, value, partition=partition)


def calls_of(path: Path, method: str) -> int:
    calls = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
    return sum(isinstance(call.func, ast.Attribute) and call.func.attr == method for call in calls)


def test_no_other_module_fetches_without_the_rule():
    sources = [
        path
        for room in ("runtime", "agents", "training", "console", "scenarios")
        for path in (ROOT / room).rglob("*.py")
    ]
    fetching = {path for path in sources if calls_of(path, "getmany") or calls_of(path, "getone")}
    assert fetching == {ROOT / "runtime" / name for name in FETCHERS}


@pytest.mark.parametrize("as_json", [False, True])
async def test_tail_prints_a_line_for_a_record_that_cannot_be_unpacked(
    kafka, make_topics, spoiled_batch, capsys, as_json
):
    (topic,) = await make_topics("spoiled", partitions=2)
    for number in range(2):
        await send(kafka, topic, [b'{"text": "before %d"}' % number])
        await spoiled_batch(kafka, TopicPartition(topic, 0))
    await send(kafka, topic, [b'{"text": "after"}'])
    await send(kafka, topic, [b'{"text": "beside"}'] * 3, partition=1)
    settings = Settings(kafka={"bootstrap_servers": kafka, "fetch_max_wait_ms": 200})
    await asyncio.wait_for(tail._tail(settings, topic, True, as_json, 8, asyncio.Event()), 60)
    out, err = capsys.readouterr()
    read = [line for line in out.splitlines() if '"text"' in line]
    assert len(read) == 6
    assert [line[line.index("{") :] for line in read if "beside" not in line] == [
        '{"text": "before 0"}',
        '{"text": "before 1"}',
        '{"text": "after"}',
    ]
    unreadable = (err if as_json else out).splitlines()
    assert [line for line in unreadable if "cannot unpack" in line] == [
        "0/1  (a record that the client cannot unpack: UnicodeDecodeError)",
        "0/3  (a record that the client cannot unpack: UnicodeDecodeError)",
    ]


async def test_tail_prints_no_more_lines_than_asked_for(kafka, make_topics, spoiled_batch, capsys):
    (topic,) = await make_topics("counted", partitions=1)
    await spoiled_batch(kafka, TopicPartition(topic, 0))
    await send(kafka, topic, [b"1", b"2", b"3"])
    settings = Settings(kafka={"bootstrap_servers": kafka})
    await tail._tail(settings, topic, True, False, 3, asyncio.Event())
    assert len(capsys.readouterr().out.splitlines()) == 3


async def test_an_error_of_the_broker_loses_no_record_of_another_partition(kafka, make_topics, monkeypatch):
    (topic,) = await make_topics("denied", partitions=2)
    await send(kafka, topic, [b"a", b"b"])
    read: list[bytes] = []

    def take(records) -> None:
        read.extend(record.value for record in records)

    settings = Settings(kafka={"bootstrap_servers": kafka}).kafka
    async with open_reader(settings, [topic], from_beginning=True) as consumer:
        getmany = consumer.getmany

        async def drop_and_raise(**options):
            while not await getmany(**options):
                pass
            raise TopicAuthorizationFailedError(topic)

        reader = PartitionsReader(consumer, take)
        monkeypatch.setattr(consumer, "getmany", drop_and_raise)
        with pytest.raises(TopicAuthorizationFailedError):
            await reader.read_more(500)
        monkeypatch.setattr(consumer, "getmany", getmany)
        while len(read) < 2:
            await reader.read_more(500)
    assert read == [b"a", b"b"]
