"""Header names and the attributes that travel beside a value: CloudEvents 1.0 binary mode, W3C trace context and ours."""

from typing import Final

SPEC_VERSION: Final = "1.0"
CONTENT_TYPE: Final = "application/json"

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
"""RFC 3339 with a zone: past it the request is answered `expired`, without a prediction."""

# Of a record in the topic of retries: who is to answer it, when, after how many attempts, and where the original lay.
APP: Final = "murmura_app"
ONLY_AGENT: Final = "murmura_only_agent"
NOT_BEFORE: Final = "murmura_not_before"
"""RFC 3339 in UTC."""
ATTEMPTS: Final = "murmura_attempts"
"""How many attempts have been made before this one."""
ORIGINAL_TOPIC: Final = "murmura_original_topic"
ORIGINAL_PARTITION: Final = "murmura_original_partition"
ORIGINAL_OFFSET: Final = "murmura_original_offset"
ORIGINAL_TIMESTAMP: Final = "murmura_original_timestamp"
"""Milliseconds since 1970, as the broker has it."""
RETRY_HEADERS: Final = frozenset(
    {APP, ONLY_AGENT, NOT_BEFORE, ATTEMPTS, ORIGINAL_TOPIC, ORIGINAL_PARTITION, ORIGINAL_OFFSET, ORIGINAL_TIMESTAMP}
)

# The headers that are read as text; any other header is left alone, whatever it holds.
# Of `content-type` only its first bytes are looked at.
READ_HEADERS: Final = frozenset({CE_ID, CE_SOURCE, TRACEPARENT, REQUEST_ID, HOPS})
"""Of any record."""
REQUEST_HEADERS: Final = READ_HEADERS | {DEADLINE}
"""Of a request."""


def result_type(agent: str) -> str:
    """CloudEvents type of an agent's results."""
    return f"murmura.{agent}.result.v1"


def app_source(app: str) -> str:
    """CloudEvents source of everything that an app publishes."""
    return f"murmura/{app}"
