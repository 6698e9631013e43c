"""The value of a request."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

MAX_METADATA = 16
TRIED = {"sent_by": "murmura console"}
"""Metadata of a request that somebody tried in the console."""
MAX_ID_BYTES = 512
"""Bytes of UTF-8."""


def _not_blank(text: str) -> str:
    if text.isspace():
        raise ValueError("the text is blank")
    return text


def _not_too_long(request_id: str) -> str:
    if len(request_id.encode()) > MAX_ID_BYTES:
        raise ValueError(f"the id has more than {MAX_ID_BYTES} bytes of UTF-8")
    return request_id


TaskName = Annotated[str, StringConstraints(min_length=1)]


class Request(BaseModel):
    """A text to be answered. `{"text": "..."}` is enough; unknown fields are ignored and never echoed."""

    model_config = ConfigDict(frozen=True, strict=True, use_attribute_docstrings=True)

    text: Annotated[str, StringConstraints(min_length=1), AfterValidator(_not_blank)]
    tasks: Annotated[list[TaskName], Field(min_length=1)] | None = None
    """Names of the tasks to answer; default: the tasks that the agent declares."""
    id: Annotated[str, StringConstraints(min_length=1), AfterValidator(_not_too_long)] | None = None
    """Names the request in its results; at most 512 bytes of UTF-8."""
    metadata: dict[str, str] | None = Field(default=None, max_length=MAX_METADATA)
    """Copied to the result."""
    text_pair: Annotated[str, StringConstraints(min_length=1), AfterValidator(_not_blank)] | None = None
    """A second text, for tasks that read two: does it follow from `text`, say. Refused by a model without such a task."""


def is_tried(metadata: Mapping[str, str]) -> bool:
    """Return whether somebody tried a text in the console, so that no customer had part in it."""
    return TRIED.items() <= metadata.items()
