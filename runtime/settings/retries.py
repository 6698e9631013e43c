"""Settings of retries: by agent, and of the topic in which long pauses are waited for."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from .kafka import Positive, Seconds, Section
from .retry_policy import IN_MEMORY_S, STEPS_S, RetryPolicy


class AgentRetrySettings(Section):
    """How often a record is tried for which an agent asks for another attempt, and how long apart."""

    attempts: Positive = 5
    """In all, the first one among them."""
    first_pause_s: Seconds = 1.0
    """The pause is drawn evenly between 0 and this, which grows."""
    factor: Annotated[float, Field(ge=1, le=1000)] = 4.0
    longest_pause_s: Seconds = 3600.0
    deadline_s: Seconds = 86_400.0
    """No attempt begins when the record is older."""

    @model_validator(mode="after")
    def _pauses_grow(self) -> Self:
        if self.first_pause_s > self.longest_pause_s:
            raise ValueError(f"first_pause_s {self.first_pause_s} is above longest_pause_s {self.longest_pause_s}")
        return self

    @property
    def policy(self) -> RetryPolicy:
        return RetryPolicy(**self.model_dump())


class RetrySettings(Section):
    steps_s: Annotated[tuple[Seconds, ...], Field(min_length=1, max_length=16)] = STEPS_S
    """How long records wait in each partition of the topic of retries. All processes of a prefix need the same."""

    in_memory_s: Annotated[float, Field(gt=0, le=600)] = IN_MEMORY_S
    """Pauses up to here wait in the process; longer ones in the topic."""

    @model_validator(mode="after")
    def _steps_grow(self) -> Self:
        if list(self.steps_s) != sorted(set(self.steps_s)):
            raise ValueError(f"steps_s must grow, found {self.steps_s}")
        return self
