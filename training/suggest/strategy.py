"""How texts to label next are chosen: names for the command line, which loads nothing else for them."""

from enum import StrEnum


class Strategy(StrEnum):
    """How texts are chosen."""

    MARGIN = "margin"
    ENTROPY = "entropy"
    K_CENTRE = "k-centre"
    DISAGREEMENT = "disagreement"
    RANDOM = "random"


class Tokens(StrEnum):
    """Which figure of a text's tokens counts, for tagging."""

    LEAST = "least"
    MEAN = "mean"
