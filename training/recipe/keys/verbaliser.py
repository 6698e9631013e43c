"""What a recipe says of prompt learning with a verbaliser: a template around the text, and a word for each label."""

from typing import Annotated, Final, Self

from pydantic import Field, model_validator

from .reading import Frozen, Label

TEXT: Final = "{text}"
MASK: Final = "{mask}"
Words = Annotated[dict[Label, Annotated[str, Field(min_length=1)]], Field(min_length=1)]


class Verbaliser(Frozen):
    """Pattern-exploiting training with one pattern (Schick and Schütze 2021): a label is as likely as its word at the mask."""

    template: str
    """What the encoder reads, `It is about {mask}: {text}`; the text comes last, so that a long one cuts nothing else."""
    words: Words
    """By label the word that stands for it, one token of the encoder's vocabulary."""

    @model_validator(mode="after")
    def _has_one_mask_before_one_text(self) -> Self:
        template = self.template.rstrip()
        if template.count(MASK) != 1 or template.count(TEXT) != 1 or not template.endswith(TEXT):
            raise ValueError(f"expected a template with one {MASK}, and one {TEXT} at its end, found {template[:60]!r}")
        return self

    @property
    def before(self) -> str:
        """What stands before the text."""
        return self.template.rstrip().removesuffix(TEXT)
