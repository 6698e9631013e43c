"""Settings of a version that is only compared."""

from typing import Annotated

from pydantic import Field

from .kafka import Section


class ShadowSettings(Section):
    """The bounds of a version that is compared on live records, per process."""

    max_pass_ms: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)] = 5.0
    """Calibrated device time of one of its passes, at most; a record that alone needs more is not compared."""
    max_waiting_bytes: Annotated[int, Field(ge=1)] = 16 * 1024 * 1024
    """Records that wait for an idle device; above it the oldest are dropped."""
    max_unsent_bytes: Annotated[int, Field(ge=1)] = 4 * 1024 * 1024
    """Differences that wait to be sent; above it the oldest are dropped."""
