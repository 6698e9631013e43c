"""What a recipe says of the head of a task."""

from typing import Any, Literal, Self

from pydantic import model_validator

from ....schemas.manifest import HeadForm
from .reading import Count, Frozen


class Head(Frozen):
    """What a head reads of the encoder, and its layers."""

    layers: Literal["last", "mix", "concat"] | None = None
    """Of the outputs of the embeddings and of all layers: `mix` is a learned mix, `concat` one behind the other; without it
    the last layer."""
    pooling: Literal["mean", "mean_max", "mask"] | None = None
    """How the tokens of a text become one vector; without it their mean. `mask`: by the template that the encoder has."""
    hidden: Count | None = None
    """Width of a hidden layer before the logits; without it there is none."""
    layer_norm: bool | None = None
    """Whether what the hidden layer gives is normalised; without it it is not."""

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.form == HeadForm():
            raise ValueError(
                "a linear head on the mean of the last layer is what a task has without `head`: leave it out"
            )
        return self

    @property
    def form(self) -> HeadForm:
        """The form as it stands in a manifest."""
        return HeadForm.model_validate(self.model_dump(exclude_none=True))


def describe_head(form: HeadForm) -> dict[str, Any]:
    """Return the keys of a recipe by which a head gets this form."""
    return {"head": form.untrained.model_dump(exclude_defaults=True)}
