"""Topics for tests, ready to be written when `create_topics` returns."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic

DEADLINE_SECONDS = 20.0


async def create_topics(bootstrap: str, names: Sequence[str], partitions: int, config: Mapping[str, str]) -> None:
    """Create `names` and wait until each partition has a leader: the first sends would meet NotLeaderForPartition."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        new = [NewTopic(name, partitions, 1, topic_configs=dict(config)) for name in names]
        for error in (await admin.create_topics(new)).topic_errors:
            assert error[1] == 0, f"topic {error[0]} was not created: {error[1:]}"
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not _have_leaders(await admin.describe_topics(list(names)), len(names), partitions):
                await asyncio.sleep(0.02)
    finally:
        await admin.close()


async def admin_call(bootstrap: str, call: Callable[[AIOKafkaAdminClient], Awaitable[Any]]) -> None:
    """Call something of an admin client of aiokafka."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await call(admin)
    finally:
        await admin.close()


async def delete_topic(bootstrap: str, topic: str) -> None:
    await admin_call(bootstrap, lambda admin: admin.delete_topics([topic]))


def _have_leaders(topics: list[dict], expected: int, partitions: int) -> bool:
    ready = [
        topic
        for topic in topics
        if topic["error_code"] == 0
        and len(topic["partitions"]) == partitions
        and all(p["error_code"] == 0 and p["leader"] >= 0 for p in topic["partitions"])
    ]
    return len(ready) == expected
