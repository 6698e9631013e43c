"""Dead letters: the original record byte for byte, and headers that say why it could not be answered."""

from enum import StrEnum
from typing import Final

from pydantic import BaseModel, ConfigDict


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


PREFIX: Final = "murmura_dl_"
CUT: Final = "murmura_dl_cut"
SHA256: Final = "murmura_dl_sha256"
BYTES: Final = "murmura_dl_bytes"
CUT_BYTES: Final = 65_536


class DeadLetter(BaseModel):
    """The `murmura_dl_*` headers of a dead letter, without their prefix; the value is the original's."""

    model_config = ConfigDict(frozen=True)

    reason: DeadLetterReason
    message: str
    """Short, never a part of the payload."""
    agent: str | None = None
    topic: str
    partition: int
    offset: int
    timestamp: int
    attempts: int = 1
    time: str
    version: int = 1

    def headers(self) -> list[tuple[str, bytes]]:
        """Return the headers to append to the original's own."""
        return [(PREFIX + key, str(value).encode()) for key, value in self.model_dump(exclude_none=True).items()]
