"""Settings of the predictions that are sent to people for review."""

from typing import Annotated

from pydantic import Field

from .kafka import Section


class ReviewSettings(Section):
    """Which live predictions are sent to people for review."""

    per_minute: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Maximum number of doubtful ones per process; 0: none."""
    random_per_minute: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Average number per process that is drawn at random, whatever the answer; 0: none."""
    random_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """While an experiment runs: share of its units of which one answer is drawn, instead of `random_per_minute`; 0: none."""
    disagreements_per_minute: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 6.0
    """Maximum number per process of answers that a version which is only compared contradicts; 0: none."""
    margin: Annotated[float, Field(gt=0, le=1)] = 0.2
    """A prediction is doubtful when the scores of the two best labels differ by less."""
    out_of_scope_band: Annotated[float, Field(gt=0, le=1)] = 0.1
    """A prediction is doubtful when the out-of-scope score differs from its threshold by less."""

    @property
    def are_sent(self) -> bool:
        """Whether any prediction is sent for review."""
        return bool(self.per_minute or self.random_per_minute or self.random_share)
