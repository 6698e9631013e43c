"""Makes the records of `murmura.shadow`."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import msgspec

from ...schemas.envelope import (
    CE_ID,
    CE_SOURCE,
    CE_SPECVERSION,
    CE_TIME,
    CE_TYPE,
    CONTENT_TYPE,
    CONTENT_TYPE_HEADER,
    SPEC_VERSION,
    app_source,
)
from ...schemas.ids import prediction_id
from ...schemas.shadow import SHADOW_TYPE
from ..wire.message import Message
from .comparing import Compared
from .rows import Row, Versions

_encode = msgspec.json.Encoder().encode


class ShadowMessages:
    """Builds messages for one topic. A test compares them with `schemas.shadow`."""

    def __init__(self, topic: str, app: str, instance: str) -> None:
        """`instance`: the unique name of the process."""
        self.topic = topic
        self._instance = instance
        self._headers = [
            (CE_SPECVERSION, SPEC_VERSION.encode()),
            (CE_TYPE, SHADOW_TYPE.encode()),
            (CE_SOURCE, app_source(app).encode()),
            (CONTENT_TYPE_HEADER, CONTENT_TYPE.encode()),
        ]

    def difference(self, row: Row, compared: Compared, now: datetime) -> Message:
        """Return the record of a request that was answered differently."""
        asked = row.request
        value = {
            "kind": "difference",
            "model": row.versions._asdict(),
            "request_id": asked.request_id,
            "predictions": {name: prediction_id(name, asked.source, asked.request_id) for name in asked.agents},
            "source": {
                "topic": asked.topic,
                "partition": asked.partition,
                "offset": asked.offset,
                "timestamp": asked.timestamp,
            },
            "tasks": compared.tasks,
            "time": _format(now),
        }
        return self._make(asked.request_id, value, now)

    def counts(self, versions: Versions, fields: Mapping[str, Any], since: datetime, now: datetime) -> Message:
        """Return the record of what was compared between two times."""
        value = {
            "kind": "counts",
            "model": versions._asdict(),
            "instance": self._instance,
            "since": _format(since),
            "until": _format(now),
            **fields,
        }
        return self._make(versions.name, value, now)

    def _make(self, key: str, value: Mapping[str, Any], now: datetime) -> Message:
        headers = [*self._headers, (CE_ID, uuid4().hex.encode()), (CE_TIME, _format(now).encode())]
        return Message(self.topic, _encode(value), key.encode("utf-8", "surrogatepass"), headers)


def _format(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
