"""Makes records of requests for review."""

from ...schemas.envelope import (
    CE_ID,
    CE_SOURCE,
    CE_SPECVERSION,
    CE_SUBJECT,
    CE_TIME,
    CE_TYPE,
    CONTENT_TYPE,
    CONTENT_TYPE_HEADER,
    SPEC_VERSION,
    app_source,
)
from ...schemas.review import REVIEW_TYPE, Review
from .message import Message


def to_message(review: Review, topic: str, app: str, request_id: str) -> Message:
    """Return the record of a review of a request's answer."""
    at = review.at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    headers = {
        CE_SPECVERSION: SPEC_VERSION,
        CE_TYPE: REVIEW_TYPE,
        CE_SOURCE: app_source(app),
        CE_ID: review.key,
        CE_SUBJECT: request_id,
        CE_TIME: at,
        CONTENT_TYPE_HEADER: CONTENT_TYPE,
    }
    encoded = [(name, value.encode()) for name, value in headers.items()]
    return Message(topic, review.model_dump_json().encode(), review.key.encode(), encoded)
