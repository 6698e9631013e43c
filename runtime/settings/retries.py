"""Settings of retries: by agent, and of the topic of retries for long pauses."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from .kafka import Positive, Seconds, Section
from .retry_policy import IN_MEMORY_S, STEPS_S, RetryPolicy


class AgentRetrySettings(Section):
    """The retry policy of an agent."""

    attempts: Positive = 5
    """Maximum number of attempts, the first one included."""
    first_pause_s: Seconds = 1.0
    """Upper bound of the first pause; the pause is random between 0 and the bound, which grows."""
    factor: Annotated[float, Field(ge=1, le=1000)] = 4.0
    longest_pause_s: Seconds = 3600.0
    deadline_s: Seconds = 86_400.0
    """No attempt starts when the record is older."""

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
    """Pause of each partition of the topic of retries. Must be the same in all processes of a prefix."""

    in_memory_s: Annotated[float, Field(gt=0, le=600)] = IN_MEMORY_S
    """Maximum pause that waits in the process; longer ones wait in the topic."""

    @model_validator(mode="after")
    def _steps_grow(self) -> Self:
        if list(self.steps_s) != sorted(set(self.steps_s)):
            raise ValueError(f"steps_s must grow, found {self.steps_s}")
        return self
