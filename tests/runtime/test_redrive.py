"""Dead letters sent again: each once, whatever ends the one who sends them."""

import asyncio
import json
import multiprocessing
import random
import time
from datetime import UTC, datetime

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.structs import TopicPartition

from murmura.runtime.kafka.sending.transactional_sender import Fenced, TransactionalSender
from murmura.runtime.redrive import redrive as redriving
from murmura.runtime.redrive.dead_letter_reader import LetterScan
from murmura.runtime.redrive.rules import Redrive, Refusal
from murmura.runtime.settings.settings import Settings
from murmura.runtime.wire.dead_letter_records import Selection, marked_offset
from murmura.schemas.deadletter import DeadLetter, DeadLetterReason

REASON = DeadLetterReason.AGENT_FAILED


def letter_headers(offset: int, *, topic: str = "in", reason: DeadLetterReason = REASON, agent: str | None = "a"):
    fields = DeadLetter(
        reason=reason, message="m", agent=agent, topic=topic, partition=0, offset=offset, timestamp=1, attempts=2,
        time=datetime.now(UTC), app="desk",
    )  # fmt: skip
    return fields.headers()


async def write_letters(bootstrap: str, topic: str, letters: int) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, linger_ms=5)
    await producer.start()
    try:
        for number in range(letters):
            headers = [("own", b"1"), *letter_headers(number)]
            await producer.send(topic, json.dumps({"text": f"t{number}"}).encode(), b"k", number % 3, headers=headers)
    finally:
        await producer.stop()


async def written(consumer: AIOKafkaConsumer, topic: str) -> int:
    """How many records the logs of a topic hold, those of open and aborted transactions and their markers included."""
    return sum((await consumer.end_offsets([TopicPartition(topic, number) for number in range(3)])).values())


async def read_committed(bootstrap: str, topic: str) -> list:
    """Everything that a reader of committed records sees now."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap, isolation_level="read_committed", enable_auto_commit=False, group_id=None
    )
    await consumer.start()
    try:
        partitions = [TopicPartition(topic, number) for number in range(3)]
        ends = await consumer.end_offsets(partitions)
        consumer.assign(partitions)
        await consumer.seek_to_beginning()
        records = []
        async with asyncio.timeout(60):
            while any([await consumer.position(p) < ends[p] for p in partitions]):
                for batch in (await consumer.getmany(timeout_ms=100)).values():
                    records += batch
        return records
    finally:
        await consumer.stop()


def rules(prefix: str, **more) -> Redrive:
    retries = f"{prefix}.retries"
    return Redrive(**{"retries": retries, "target": retries, "app": "x", "agents": {"a"}} | more)


def settings(bootstrap: str, prefix: str) -> Settings:
    return Settings(
        prefix=prefix, kafka={"bootstrap_servers": bootstrap, "fetch_max_wait_ms": 20}, producer={"send_timeout_s": 15}
    )


async def redrive(bootstrap: str, prefix: str, *, batch_records: int = 500, **more):
    given = settings(bootstrap, prefix)
    return await redriving.send_again(
        LetterScan(given.kafka, given.dead_letters),
        Selection(),
        rules(prefix, **more),
        lambda: TransactionalSender(given.kafka, given.producer, f"{given.dead_letters}.redrive"),
        stop=asyncio.Event(),
        clock=time.time,
        batch_records=batch_records,
    )


def redrive_in_a_process(bootstrap: str, prefix: str) -> None:
    try:
        asyncio.run(redrive(bootstrap, prefix, batch_records=5))
    except Fenced:
        return


async def test_letters_go_to_the_topic_of_retries_with_the_originals_place_and_are_marked(kafka, unique, make_topics):
    prefix = unique("dl")
    await make_topics("deadletters", "retries", prefix=prefix)
    await write_letters(kafka, f"{prefix}.deadletters", 7)
    tally = await redrive(kafka, prefix)
    assert (tally.sent, tally.before, tally.refused) == (7, 0, {})
    found = await read_committed(kafka, f"{prefix}.retries")
    assert sorted(json.loads(record.value)["text"] for record in found) == [f"t{n}" for n in range(7)]
    headers = dict(found[0].headers)
    due = datetime.fromisoformat(headers.pop("murmura_not_before").decode())
    assert abs(due.timestamp() - time.time()) < 60
    number = json.loads(found[0].value)["text"][1:].encode()
    assert headers == {
        "own": b"1",
        "murmura_app": b"desk",
        "murmura_only_agent": b"a",
        "murmura_attempts": b"2",
        "murmura_original_topic": b"in",
        "murmura_original_partition": b"0",
        "murmura_original_offset": number,
        "murmura_original_timestamp": b"1",
    }
    assert (found[0].key, found[0].partition) == (b"k", 0)
    marked = [
        offset for r in await read_committed(kafka, f"{prefix}.deadletters") if (offset := marked_offset(r)) is not None
    ]
    assert len(marked) == 7
    again = await redrive(kafka, prefix)
    assert (again.sent, again.before) == (0, 7)
    assert len(await read_committed(kafka, f"{prefix}.retries")) == 7


async def test_killed_at_random_moments_and_started_twice_at_once_each_letter_is_sent_once(kafka, unique, make_topics):
    """Each process is killed after it has written some records: a moment chosen by time alone may lie before all work."""
    prefix, letters = unique("dl"), 1200
    await make_topics("deadletters", "retries", prefix=prefix)
    await write_letters(kafka, f"{prefix}.deadletters", letters)
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload([__name__])
    moments = random.Random(8)
    in_mid_work = 0
    async with AIOKafkaConsumer(bootstrap_servers=kafka) as consumer:
        for kill in range(10):
            enough = await written(consumer, f"{prefix}.retries") + moments.randint(1, 40)
            running = [
                processes.Process(target=redrive_in_a_process, args=(kafka, prefix)) for _ in range(1 + (kill % 4 == 3))
            ]
            for process in running:
                process.start()
            while await written(consumer, f"{prefix}.retries") < enough and any(p.is_alive() for p in running):
                await asyncio.sleep(0.005)
            await asyncio.sleep(moments.uniform(0, 0.02))
            in_mid_work += any(process.is_alive() for process in running)
            for process in running:
                process.kill()
            for process in running:
                process.join()
    await redrive(kafka, prefix)
    found = await read_committed(kafka, f"{prefix}.retries")
    texts = [json.loads(record.value)["text"] for record in found]
    assert sorted(texts, key=lambda t: int(t[1:])) == [f"t{n}" for n in range(letters)]
    assert in_mid_work


async def test_who_starts_later_takes_over_and_the_earlier_one_ends_with_one_line(kafka, unique, make_topics):
    prefix = unique("dl")
    await make_topics("deadletters", "retries", prefix=prefix)
    await write_letters(kafka, f"{prefix}.deadletters", 1000)
    first = asyncio.create_task(redrive(kafka, prefix, batch_records=2))
    async with AIOKafkaConsumer(bootstrap_servers=kafka) as consumer:
        while not await written(consumer, f"{prefix}.retries"):
            await asyncio.sleep(0.005)
    second = await redrive(kafka, prefix)
    with pytest.raises(Fenced, match=r"another redrive took over .*this one has ended"):
        await first
    assert second.sent + second.before == 1000
    assert len(await read_committed(kafka, f"{prefix}.retries")) == 1000


async def test_a_record_that_the_target_never_takes_is_refused_and_the_others_go(kafka, unique, make_topics):
    prefix = unique("dl")
    await make_topics("deadletters", prefix=prefix)
    await make_topics("retries", prefix=prefix, config={"max.message.bytes": "2000"})
    producer = AIOKafkaProducer(bootstrap_servers=kafka)
    await producer.start()
    for number in range(9):
        value = json.dumps({"text": f"t{number}" + "x" * 3000 * (number == 4)}).encode()
        await producer.send(f"{prefix}.deadletters", value, b"k", 0, headers=letter_headers(number))
    await producer.stop()
    tally = await redrive(kafka, prefix)
    assert (tally.sent, tally.before, tally.refused) == (8, 0, {Refusal.TOO_LARGE: 1})
    assert len(await read_committed(kafka, f"{prefix}.retries")) == 8
