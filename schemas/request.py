"""What a request's value may hold."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

MAX_METADATA = 16

TaskName = Annotated[str, StringConstraints(min_length=1)]


class Request(BaseModel):
    """A text to be answered. `{"text": "..."}` is enough; unknown fields are ignored and never echoed."""

    model_config = ConfigDict(frozen=True, strict=True)

    text: Annotated[str, StringConstraints(min_length=1)]
    tasks: list[TaskName] | None = None
    """Names of the tasks to answer; default: the tasks that the agent declares."""
    id: Annotated[str, StringConstraints(min_length=1)] | None = None
    metadata: dict[str, str] | None = Field(default=None, max_length=MAX_METADATA)
    """Handed through to the result as it came."""
