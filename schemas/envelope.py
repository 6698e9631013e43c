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

# The headers that a request may carry and that are read; any other header is left alone.
READ_HEADERS: Final = frozenset(
    {CE_SPECVERSION, CE_ID, CE_SOURCE, CE_TYPE, CE_TIME, CONTENT_TYPE_HEADER, TRACEPARENT, REQUEST_ID, CAUSE, HOPS}
)


def result_type(agent: str) -> str:
    """CloudEvents type of an agent's results."""
    return f"murmura.{agent}.result.v1"


def app_source(app: str) -> str:
    """CloudEvents source of everything that an app publishes."""
    return f"murmura/{app}"
