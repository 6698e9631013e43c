"""Topics of a broker: lists them, finds missing ones, and creates them as the table in `schemas.topics` says.

Checked at start, because a consumer of a missing topic hangs. Reads the list of all topics, because a request for one
topic by name may make the broker create it with one partition.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, TopicAuthorizationFailedError, for_code
from aiokafka.protocol.metadata import MetadataRequest

from ...schemas.topics import MANY, Topic
from ..errors import SetupError
from ..observe.logs import quiet_client
from ..settings.settings import KafkaSettings
from .broker_diagnosis import describe_missing, diagnose, parse_servers

REPLICAS: Final = 3
ADVICE: Final = "`murmura topics --create` makes ours, and with MODULE:AGENT those of your agent"
OTHER_TOPIC: Final = Topic("", "any", "the sender's", "many", large=True)
"""The definition of a topic that is not in the table: as a request topic, with the broker's default retention."""


async def fetch_partition_counts(kafka: KafkaSettings, timeout_s: float | None = None) -> dict[str, int]:
    """Return the number of partitions of every topic that this user may see.

    Raises SetupError when no broker answers within `timeout_s` (default: `kafka.start_timeout_s`).
    """
    async with connect_admin(kafka, timeout_s or kafka.start_timeout_s) as admin:
        return _counts(await admin.describe_topics())


async def is_mock_cluster(kafka: KafkaSettings) -> bool:
    """Return whether the broker is librdkafka's mock cluster, which treats transactions as plain sends."""
    async with connect_admin(kafka, kafka.start_timeout_s) as admin:
        return str((await admin.describe_cluster()).get("cluster_id", "")).startswith("mockCluster")


async def require_topics(kafka: KafkaSettings, topics: Iterable[str], advice: str = ADVICE) -> dict[str, int]:
    """Return what `fetch_partition_counts` does; raise SetupError unless all of `topics` are among them.

    The error distinguishes missing topics, with `advice`, from those that this user may not see.
    """
    async with connect_admin(kafka, kafka.start_timeout_s) as admin:
        counts = _counts(await admin.describe_topics())
        absent = sorted(set(topics) - counts.keys())
        hidden = [topic for topic in absent if await _is_hidden(admin, topic)]
    if absent:
        raise SetupError(describe_missing(kafka, [topic for topic in absent if topic not in hidden], hidden, advice))
    return counts


async def _is_hidden(admin: AIOKafkaAdminClient, topic: str) -> bool:
    """Return whether the broker refuses to describe a topic. It does so for invisible topics, existing or not."""
    response = await admin._send_request(MetadataRequest([topic], allow_auto_topic_creation=False))
    code = response.to_object()["topics"][0]["error_code"]
    return bool(for_code(code) is TopicAuthorizationFailedError)


async def create_topics(
    kafka: KafkaSettings, topics: Mapping[str, Topic], *, many: int = MANY, timeout_s: float | None = None
) -> list[str]:
    """Create the missing ones of `topics` (by full name) and return their names.

    `many` is the partition count of the topics that have many. Existing topics are not changed. Each topic gets as many
    replicas as there are brokers, at most three. Returns when the broker lists all of them.
    """
    timeout_s = timeout_s or kafka.start_timeout_s
    async with connect_admin(kafka, timeout_s) as admin:
        existing = _counts(await admin.describe_topics())
        missing = {name: topic for name, topic in topics.items() if name not in existing}
        if missing:
            # A broker that has just started does not list itself yet.
            replicas = max(1, min(REPLICAS, len((await admin.describe_cluster())["brokers"])))
            response = await admin.create_topics([_new(name, topic, many, replicas) for name, topic in missing.items()])
            _refuse_failures(response.topic_errors)
            # Kafka does not report when all brokers know a new topic.
            while missing.keys() - _counts(await admin.describe_topics()).keys():  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        return sorted(missing)


def _new(name: str, topic: Topic, many: int, replicas: int) -> NewTopic:
    return NewTopic(name, topic.partitions(many), replicas, topic_configs=topic.config())


def _refuse_failures(errors: Iterable[tuple[Any, ...]]) -> None:
    for name, code, *message in errors:
        error = for_code(code)
        if code and error is not TopicAlreadyExistsError:
            why = next((text for text in message if text), error.__name__)
            raise SetupError(f"topic {name}: the broker will not make it: {why}")


def _counts(described: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    # A new topic has partitions but no leader yet: it counts as existing.
    return {topic["topic"]: len(topic["partitions"]) for topic in described if topic["partitions"]}


@asynccontextmanager
async def connect_admin(kafka: KafkaSettings, timeout_s: float) -> AsyncIterator[AIOKafkaAdminClient]:
    """Yield a connected admin client. The block has `timeout_s`; Kafka errors in it become a SetupError of one line."""
    parse_servers(kafka.bootstrap_servers)
    try:
        options = kafka.client_options()
    except OSError as error:
        raise SetupError(f"kafka.security: {error.filename or 'certificates'}: {error.strerror or error}") from None
    admin = AIOKafkaAdminClient(**options, request_timeout_ms=max(int(timeout_s * 1000), 1))
    with quiet_client():
        try:
            async with asyncio.timeout(timeout_s):
                await admin.start()
                yield admin
        except (KafkaError, OSError, TimeoutError) as error:
            raise await diagnose(kafka, error) from None
        finally:
            await admin.close()
