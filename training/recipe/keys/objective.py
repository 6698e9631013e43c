"""What a recipe says of the second stage of a task that generates: training on what its replies are scored by."""

from typing import Annotated, Literal

from pydantic import Field

from .reading import Count, Frozen, Positive

RewardName = Literal["bleu", "rouge_l", "slots"]


class Objective(Frozen):
    """Off unless a task has it. What it brings is kept only where validation allows it."""

    reward: Annotated[tuple[RewardName, ...], Field(min_length=1)] = ("bleu", "rouge_l")
    """Their mean is the reward of a reply."""
    samples: Annotated[int, Field(ge=2, le=64)] = 4
    """Replies drawn for each text."""
    steps: Count = 200
    lr: Positive = 5e-5
    """Of the decoder; the encoder is not trained."""
    cross_entropy: Annotated[float, Field(ge=0)] = 0.03
    """How much the cross entropy of the rows' own replies counts beside the rewards."""
    least_distinct: Annotated[float, Field(ge=0, le=1)] = 0.8
    """Different replies on validation, as a share of those before, that have to remain."""
