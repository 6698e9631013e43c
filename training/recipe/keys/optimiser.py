"""What a recipe says of the optimiser, and of which weights it leaves alone."""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from .reading import Frozen, Positive, Share


class Optimiser(Frozen):
    method: Literal["adamw", "adafactor", "sgd"] = "adamw"
    """torch's own; SGD has a momentum of 0.9."""
    encoder_lr: Positive | None = None
    """Without it 2e-4; with LoRA or from scratch 7e-4; where all tasks have few rows 5e-5 (see `few_rows`)."""
    head_lr: Positive = 1e-3
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Each layer of the encoder learns at the rate of the layer above it times this, and the embeddings below the first."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """L2 of SGD, decoupled in the others; not on biases and LayerNorm."""
    warmup: Share = 0.06
    clip: Positive = 1.0
    schedule: Literal["linear", "constant"] = "linear"

    @model_validator(mode="after")
    def _rates_fit_the_method(self) -> Self:
        if self.method != "adamw" and self.encoder_lr is None:
            raise ValueError(f"{self.method} needs rates of its own: set `encoder_lr` and `head_lr`")
        return self

    def override(self, other: "Optimiser | None") -> "Optimiser":
        """Return these settings with those that the other one sets."""
        return (
            self
            if other is None
            else Optimiser.model_validate({**self.model_dump(), **other.model_dump(exclude_unset=True)})
        )


class Freeze(Frozen):
    """Weights of the encoder that stay as they are."""

    layers: Annotated[int, Field(ge=0)] = 0
    """The embeddings and so many layers from the first on."""
    all: bool = False
    """The whole encoder: only heads are trained."""


def _as_freeze(value: object) -> object:
    """Read `embeddings`, `encoder` and a number of layers as a mapping."""
    if isinstance(value, int) and not isinstance(value, bool):
        return {"layers": value}
    named: dict[object, object] = {"embeddings": {"layers": 0}, "encoder": {"all": True}}
    if not isinstance(value, dict | Freeze | None) and (not isinstance(value, str) or value not in named):
        raise ValueError(f"expected `embeddings`, `encoder` or a number of layers, found {value!r}")
    return named[value] if isinstance(value, str) else value


FreezeKey = Annotated[Freeze | None, BeforeValidator(_as_freeze)]
