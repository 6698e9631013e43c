"""The headers of the events that the dialogue agent publishes."""

from datetime import UTC, datetime

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

Headers = tuple[tuple[str, bytes], ...]


def event_headers(app: str, type_: str, event_id: str, subject: str, at: datetime | None = None) -> Headers:
    """Return the headers of a CloudEvent; `at`: its time, else now. All others are the same when it is sent again."""
    time = (at or datetime.now(UTC)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return (
        (CE_SPECVERSION, SPEC_VERSION.encode()),
        (CE_TYPE, type_.encode()),
        (CE_SOURCE, app_source(app).encode()),
        (CE_ID, event_id.encode()),
        (CE_SUBJECT, subject.encode()),
        (CE_TIME, time.encode()),
        (CONTENT_TYPE_HEADER, CONTENT_TYPE.encode()),
    )
