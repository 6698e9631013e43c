"""What a kind reads of a text, and what its answers look like to those who do not know the kind. Imports nothing."""

from enum import Enum
from typing import Final

TEXT_KEYS: Final = frozenset({"label", "label_separator", "one_of", "typo_copies"})
"""Keys of a recipe for labels of whole texts."""


KEYS_OF_HEADS: Final = frozenset({"head.hidden", "head.layer_norm", "head.layers"})
"""Keys of a recipe for the form of a head."""
HEADS_OF_TEXTS: Final = KEYS_OF_HEADS | {"head.pooling"}


class Reads(Enum):
    """The states that a head reads."""

    TEXT = "text"
    """The mean of a text's tokens; logits [B, C]."""
    TOKENS = "tokens"
    """Each token; logits [T, C] for the T tokens of a batch, one text after the other."""
    PAIR = "pair"
    """The mean of the tokens of two texts that are encoded together; logits [B, C]. All tokens have segment 0."""


class AnswerForm(Enum):
    """The fields of an answer that routing, reviews, feedback and dialogues may rely on. A kind may add others."""

    LABEL = "label"
    """As `schemas.result.ClassificationOutput`: `label`, `score`, `alternatives`, `abstained`, `reason`. A correction is a label."""
    LABELS = "labels"
    """As `schemas.result.MultiLabelOutput`: `labels`, each with `label` and `score`. A correction is a list of labels."""
    SPANS = "spans"
    """As `schemas.result.TaggingOutput`: `spans`. A correction is a list of spans."""
    OTHER = "other"
    """None of these: only the kind's own methods read it."""
