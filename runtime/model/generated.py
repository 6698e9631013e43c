"""A reply that a decoder has worded. Pure."""

from typing import Literal, NamedTuple

Finish = Literal["end", "length"]


class Generated(NamedTuple):
    """A reply as its decoder worded it, with slots as `{NAME}`."""

    text: str
    tokens: tuple[int, ...]
    """Its pieces by their numbers, without the end."""
    score: float
    """The geometric mean of the probabilities of its pieces and its end, among those that were not forbidden."""
    finish: Finish
    """`length`: it was cut at the maximum number of pieces."""
    truncated: bool = False
    """Whether the texts were longer than the model's limit: then older turns were dropped, and the newest cut if need be."""
    cut: bool = False
    """Whether the newest turn itself, or the acts beside it, was cut."""
    model: tuple[str, int] | None = None
    """Name and version of the model that worded it, where an engine says so."""
    variant: Literal["current", "candidate"] = "current"
    """As what it did."""
