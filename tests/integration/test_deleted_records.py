"""Records that the broker deleted before they were read, as retention does."""

import asyncio

from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from serving import Desk, ids


def requests(first: int, last: int) -> list[dict]:
    return [{"id": f"r{number}", "text": f"my card was lost {number}"} for number in range(first, last)]


async def delete_before(bootstrap: str, topic: str, offset: int) -> None:
    """Delete the records of partition 0 below an offset."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    futures = admin.delete_records([TopicPartition(topic, 0, offset)])
    await asyncio.gather(*(asyncio.wrap_future(future) for future in futures.values()))


async def test_what_was_deleted_while_no_process_ran_is_counted_and_the_rest_is_answered(desk: Desk):
    async with desk.serving():
        await desk.send(*requests(0, 5), partition=0)
        await desk.read(desk.classified, 5)
    await desk.send(*requests(5, 15), partition=0)
    await delete_before(desk.bootstrap, desk.requests, 8)
    async with desk.serving() as serving:
        await desk.send({"id": "other", "text": "of a partition of which nothing was deleted"}, partition=1)
        answered = ids(await desk.read(desk.classified, 5 + 7 + 1))
        expired = serving.metrics.registry.get_sample_value("murmura_expired_records_total", {"topic": desk.requests})
    assert sorted(answered) == sorted(["other", *(f"r{n}" for n in range(5)), *(f"r{n}" for n in range(8, 15))])
    assert expired == 3
    assert await desk.committed() == await desk.ends()
    assert await desk.read(desk.dead_letters, 0) == []


async def test_what_is_deleted_under_a_process_that_waits_is_counted_and_the_rest_is_answered(desk: Desk):
    waits = {"kafka": {"bootstrap_servers": desk.bootstrap, "fetch_max_wait_ms": 500}}
    async with desk.serving(**waits) as serving:
        await desk.send(*requests(0, 5), partition=0)
        await desk.read(desk.classified, 5)
        await delete_before(desk.bootstrap, desk.requests, 5)  # what was read already: nothing is lost by it
        await desk.send(*requests(5, 10), partition=0)
        answered = ids(await desk.read(desk.classified, 10))
        expired = serving.metrics.registry.get_sample_value("murmura_expired_records_total", {"topic": desk.requests})
    assert sorted(answered) == sorted(f"r{n}" for n in range(10))
    assert not expired
