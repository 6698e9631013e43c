"""Topics on a broker: which are there, which are missing, and making them as the table in `schemas.topics` says.

Asked before anything starts, because a consumer of a missing topic hangs, and because a client that merely asks for a
topic by name may have the broker create it with one partition: the list of all topics is read instead.
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
"""How a topic that is not in the table is made: as one of requests, kept as long as the broker keeps topics."""


async def partitions(kafka: KafkaSettings, timeout_s: float | None = None) -> dict[str, int]:
    """Return every topic of the broker that we may see, with the number of its partitions.

    Raises SetupError when nobody answers within `timeout_s` (default: `kafka.start_timeout_s`).
    """
    async with connected(kafka, timeout_s or kafka.start_timeout_s) as admin:
        return _counts(await admin.describe_topics())


async def is_mock(kafka: KafkaSettings) -> bool:
    """Say whether it is librdkafka's mock cluster (`embedded`), which takes transactions for plain sends."""
    async with connected(kafka, kafka.start_timeout_s) as admin:
        return str((await admin.describe_cluster()).get("cluster_id", "")).startswith("mockCluster")


async def require(kafka: KafkaSettings, topics: Iterable[str], advice: str = ADVICE) -> dict[str, int]:
    """Return what `partitions` does; SetupError unless all of `topics` are among them.

    The error tells a topic that is not there, which `advice` helps against, from one that this user may not see.
    """
    async with connected(kafka, kafka.start_timeout_s) as admin:
        counts = _counts(await admin.describe_topics())
        absent = sorted(set(topics) - counts.keys())
        hidden = [topic for topic in absent if await _is_hidden(admin, topic)]
    if absent:
        raise SetupError(describe_missing(kafka, [topic for topic in absent if topic not in hidden], hidden, advice))
    return counts


async def _is_hidden(admin: AIOKafkaAdminClient, topic: str) -> bool:
    """Say whether the broker refuses to answer about a topic, as it does for all that a user may not see, there or not."""
    response = await admin._send_request(MetadataRequest([topic], allow_auto_topic_creation=False))
    code = response.to_object()["topics"][0]["error_code"]
    return bool(for_code(code) is TopicAuthorizationFailedError)


async def create(
    kafka: KafkaSettings, topics: Mapping[str, Topic], *, many: int = MANY, timeout_s: float | None = None
) -> list[str]:
    """Make those of `topics` (by full name) that are missing and return their names.

    `many` is the number of partitions of the topics that have many. Topics that are there are left as they are. Each
    has as many replicas as there are brokers, at most three. Returns when the broker lists them all.
    """
    timeout_s = timeout_s or kafka.start_timeout_s
    async with connected(kafka, timeout_s) as admin:
        there = _counts(await admin.describe_topics())
        missing = {name: topic for name, topic in topics.items() if name not in there}
        if missing:
            replicas = min(REPLICAS, len((await admin.describe_cluster())["brokers"]))
            response = await admin.create_topics([_new(name, topic, many, replicas) for name, topic in missing.items()])
            _refuse_failures(response.topic_errors)
            # Nobody tells when a new topic is known everywhere.
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
    # A topic that was made a moment ago has partitions and no leader yet: it is there.
    return {topic["topic"]: len(topic["partitions"]) for topic in described if topic["partitions"]}


@asynccontextmanager
async def connected(kafka: KafkaSettings, timeout_s: float) -> AsyncIterator[AIOKafkaAdminClient]:
    """A connected admin client. Everything within has `timeout_s`; failures become one line."""
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
