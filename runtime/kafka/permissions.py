"""The permissions that this user lacks on the broker.

Asks the broker for the allowed operations on a topic or a group. Nothing is read, written or created.
"""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal, NamedTuple

from aiokafka.errors import (
    GroupAuthorizationFailedError,
    IncompatibleBrokerVersion,
    KafkaError,
    TransactionalIdAuthorizationFailed,
    for_code,
)
from aiokafka.protocol.admin import DescribeGroupsResponse_v3
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Array, Boolean, Int16, Int32, Schema, String

from ..errors import MurmuraError
from ..settings.settings import KafkaSettings
from .topics import connect_admin

Operation = Literal["READ", "WRITE", "DESCRIBE"]
Kind = Literal["topic", "group", "transactional id"]


class Need(NamedTuple):
    """One permission that a command needs."""

    command: str
    operation: Operation
    kind: Kind
    name: str


_COORDINATOR_TRIES: Final = 25
_COORDINATOR_PAUSE_S: Final = 0.2

_CODES: Final[Mapping[Operation, int]] = {"READ": 3, "WRITE": 4, "DESCRIBE": 8}
_GROUP, _TRANSACTION = 0, 1
_AGAIN_S: Final = 0.2
_ALL: Final[frozenset[Operation]] = frozenset(_CODES)


class PermissionsUnknown(MurmuraError):
    """The broker does not report what a user may do: it is older than the requests that ask for it (KIP-430)."""


async def lacking(kafka: KafkaSettings, wanted: Iterable[Need], present: Iterable[str]) -> list[Need]:
    """Return the permissions that this user lacks, except for topics that are not `present`.

    Raises SetupError when the broker does not answer, PermissionsUnknown when it is too old to report permissions.
    """
    wanted, present = list(wanted), set(present)
    async with connect_admin(kafka, kafka.start_timeout_s) as admin:
        try:
            allowed = await _allowed(admin, wanted, present)
        except IncompatibleBrokerVersion as error:
            raise PermissionsUnknown(str(error)) from None
    return [need for need in wanted if need.operation not in allowed.get((need.kind, need.name), _ALL)]


async def _allowed(admin: Any, wanted: list[Need], present: set[str]) -> dict[tuple[str, str], frozenset[Operation]]:
    topics = sorted({need.name for need in wanted if need.kind == "topic"} & present)
    allowed = {("topic", name): operations for name, operations in (await _on_topics(admin, topics)).items()}
    for kind, name in {(need.kind, need.name) for need in wanted if need.kind != "topic"}:
        ask = _on_group if kind == "group" else _on_transactional_id
        allowed[kind, name] = await ask(admin, name)
    return allowed


async def _on_topics(admin: Any, names: list[str]) -> dict[str, frozenset[Operation]]:
    if not names:
        return {}
    response = await admin._send_request(_MetadataWithRights(names))
    return {topic["name"]: _operations(topic["operations"]) for topic in response.to_object()["topics"]}


async def _on_group(admin: Any, name: str) -> frozenset[Operation]:
    try:
        coordinator = await _coordinator(admin, name)
    except GroupAuthorizationFailedError:
        return frozenset()
    for _ in range(_COORDINATOR_TRIES):
        response = await admin._send_request(_GroupWithRights(name), coordinator)
        group = response.to_object()["groups"][0]
        if not for_code(group["error_code"]).retriable:
            break
        await asyncio.sleep(_COORDINATOR_PAUSE_S)  # the first group of a new cluster waits for the offsets topic
    return frozenset() if group["error_code"] else _operations(group["authorized_operations"])


async def _on_transactional_id(admin: Any, name: str) -> frozenset[Operation]:
    # Acquiring the id would fence a running redrive: only check whether it may be described.
    try:
        await _coordinator(admin, name, _TRANSACTION)
    except TransactionalIdAuthorizationFailed:
        return frozenset()
    return _ALL


async def _coordinator(admin: Any, name: str, kind: int = _GROUP) -> int:
    """Return the node of the coordinator. Retries, because a new broker has none for some seconds."""
    while True:
        try:
            coordinator: int = await admin.find_coordinator(name, kind)
        except KafkaError as error:
            if not error.retriable:
                raise
            await asyncio.sleep(_AGAIN_S)
        else:
            return coordinator


def _operations(bits: int) -> frozenset[Operation]:
    return frozenset(operation for operation, code in _CODES.items() if bits >> code & 1)


class _MetadataWithRightsResponse(Response):  # type: ignore[misc]
    API_KEY = 3
    API_VERSION = 8
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("brokers", Array(("id", Int32), ("host", String("utf-8")), ("port", Int32), ("rack", String("utf-8")))),
        ("cluster_id", String("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            Array(
                ("error_code", Int16),
                ("name", String("utf-8")),
                ("is_internal", Boolean),
                (
                    "partitions",
                    Array(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", Array(Int32)),
                        ("isr", Array(Int32)),
                        ("offline_replicas", Array(Int32)),
                    ),
                ),
                ("operations", Int32),
            ),
        ),
        ("cluster_operations", Int32),
    )


class _MetadataWithRights8(RequestStruct):  # type: ignore[misc]
    API_KEY = 3
    API_VERSION = 8
    RESPONSE_TYPE = _MetadataWithRightsResponse
    SCHEMA = Schema(
        ("topics", Array(String("utf-8"))),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_operations", Boolean),
        ("include_topic_operations", Boolean),
    )


class _MetadataWithRights(Request[_MetadataWithRights8]):  # type: ignore[misc]
    """Metadata version 8, the first with allowed operations; aiokafka has versions up to 5."""

    API_KEY = 3

    def __init__(self, topics: list[str]) -> None:
        self._topics = topics

    def build(self, request_struct_class: type[_MetadataWithRights8]) -> _MetadataWithRights8:
        return request_struct_class(self._topics, False, False, True)


class _GroupWithRights3(RequestStruct):  # type: ignore[misc]
    API_KEY = 15
    API_VERSION = 3
    RESPONSE_TYPE = DescribeGroupsResponse_v3
    SCHEMA = Schema(("groups", Array(String("utf-8"))), ("include_operations", Boolean))


class _GroupWithRights(Request[_GroupWithRights3]):  # type: ignore[misc]
    """DescribeGroups version 3; aiokafka parses its response as version 2, which lacks the allowed operations."""

    API_KEY = 15

    def __init__(self, group: str) -> None:
        self._group = group

    def build(self, request_struct_class: type[_GroupWithRights3]) -> _GroupWithRights3:
        return request_struct_class([self._group], True)
