"""Header names and attributes of records: CloudEvents 1.0 binary mode, W3C trace context and Murmura's."""

from typing import Final

SPEC_VERSION: Final = "1.0"
CONTENT_TYPE: Final = "application/json"

REQUEST_TYPE: Final = "application/vnd.murmura.request+json"
"""Content type of a request that was handed on: its fields lie at the top, whatever the settings say of its topic."""

CE_SPECVERSION: Final = "ce_specversion"
CE_ID: Final = "ce_id"
CE_SOURCE: Final = "ce_source"
CE_TYPE: Final = "ce_type"
CE_TIME: Final = "ce_time"
CE_SUBJECT: Final = "ce_subject"
CONTENT_TYPE_HEADER: Final = "content-type"
TRACEPARENT: Final = "traceparent"

REQUEST_ID: Final = "murmura_request_id"
CAUSE: Final = "murmura_cause"
HOPS: Final = "murmura_hops"
DEADLINE: Final = "murmura_deadline"
"""RFC 3339 with a zone: after that time the request is answered `expired`, without a prediction."""

# Headers of a record in the topic of retries: agent, due time, number of attempts, and coordinates of the original.
APP: Final = "murmura_app"
ONLY_AGENT: Final = "murmura_only_agent"
NOT_BEFORE: Final = "murmura_not_before"
"""RFC 3339 in UTC."""
ATTEMPTS: Final = "murmura_attempts"
"""Number of attempts before this one."""
ORIGINAL_TOPIC: Final = "murmura_original_topic"
ORIGINAL_PARTITION: Final = "murmura_original_partition"
ORIGINAL_OFFSET: Final = "murmura_original_offset"
ORIGINAL_TIMESTAMP: Final = "murmura_original_timestamp"
"""Milliseconds since 1970, as on the broker."""
RETRY_HEADERS: Final = frozenset(
    {APP, ONLY_AGENT, NOT_BEFORE, ATTEMPTS, ORIGINAL_TOPIC, ORIGINAL_PARTITION, ORIGINAL_OFFSET, ORIGINAL_TIMESTAMP}
)

# The headers that are read as text; other headers are ignored, with any content.
# Only the first bytes of `content-type` are read.
READ_HEADERS: Final = frozenset({CE_ID, CE_SOURCE, TRACEPARENT, REQUEST_ID, HOPS})
"""Of any record."""
REQUEST_HEADERS: Final = READ_HEADERS | {DEADLINE}
"""Of a request."""


def result_type(agent: str) -> str:
    """Return the CloudEvents type of an agent's results."""
    return f"murmura.{agent}.result.v1"


def app_source(app: str) -> str:
    """Return the CloudEvents source of everything that an app publishes."""
    return f"murmura/{app}"
