"""Dead letters: the original record byte for byte, and headers with the reason of the failure."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Final, Self

from pydantic import AfterValidator, BaseModel, ConfigDict

from .result import UtcTime


class DeadLetterReason(StrEnum):
    """The closed list of reasons in `murmura_dl_reason`."""

    NOT_JSON = "not_json"
    NOT_UTF8 = "not_utf8"
    NO_VALUE = "no_value"
    INVALID = "invalid"
    UNKNOWN_TASK = "unknown_task"
    TOO_LARGE = "too_large"
    BAD_HEADER = "bad_header"
    AGENT_FAILED = "agent_failed"
    MODEL_FAILED = "model_failed"
    EXPIRED_RETRIES = "expired_retries"
    HOP_LIMIT = "hop_limit"
    UNREADABLE = "unreadable"
    SET_ASIDE = "set_aside"


PREFIX: Final = "murmura_dl_"
CUT: Final = "murmura_dl_cut"
SHA256: Final = "murmura_dl_sha256"
BYTES: Final = "murmura_dl_bytes"
REDRIVEN: Final = "murmura_dl_redriven"
"""Header of a marker, a record without a value in the dead-letter topic: the coordinates (`topic/partition/offset`) of a
dead letter that was sent again."""
CUT_BYTES: Final = 65_536
MESSAGE_CHARACTERS: Final = 300


def _header_name(field: str) -> str:
    return PREFIX + field


def _short(message: str) -> str:
    return message if len(message) <= MESSAGE_CHARACTERS else message[: MESSAGE_CHARACTERS - 1] + "…"


class DeadLetter(BaseModel):
    """The headers that a dead letter adds to the original's own; key and value are the original's, byte for byte."""

    model_config = ConfigDict(
        frozen=True,
        use_attribute_docstrings=True,
        alias_generator=_header_name,
        validate_by_name=True,
        validate_by_alias=True,
    )

    reason: DeadLetterReason
    message: Annotated[str, AfterValidator(_short)]
    """Cut at 300 characters, never a part of the payload."""
    agent: str | None = None
    topic: str
    partition: int
    offset: int
    timestamp: int
    attempts: int = 1
    time: UtcTime
    version: int = 1
    """Version of these headers."""
    app: str | None = None
    """The app that wrote the dead letter; None in dead letters older than this field."""

    @classmethod
    def from_headers(cls, headers: Iterable[tuple[str, bytes | None]]) -> Self:
        """Read a dead letter's headers back; other headers are left alone, and the last of a name counts.

        ValueError where one of ours is missing, null, not UTF-8 or of the wrong form.
        """
        known = {field.alias for field in cls.model_fields.values()}
        found = {name: raw for name, raw in headers if name in known}
        if missing := [name for name, raw in found.items() if raw is None]:
            raise ValueError(f"header {missing[0]} is null")
        decoded = {}
        for name, raw in found.items():
            try:
                decoded[name] = (raw or b"").decode()
            except UnicodeDecodeError:
                raise ValueError(f"header {name} is not UTF-8") from None
        return cls.model_validate(decoded)

    def headers(self) -> list[tuple[str, bytes]]:
        """Return the headers to append to the original's own."""
        fields = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        return [(name, str(value).encode()) for name, value in fields.items()]
