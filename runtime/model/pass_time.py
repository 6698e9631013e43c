"""What the passes of a model take on this device."""

from typing import NamedTuple


class PassTime(NamedTuple):
    """A pass of a warm model over n tokens takes `overhead_s` + n * `token_s` seconds of device time."""

    overhead_s: float
    token_s: float
    slowest_token_s: float
    """Seconds per token of a first pass over few tokens, its overhead included: for deadlines, which must not be short."""
