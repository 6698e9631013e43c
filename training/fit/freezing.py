"""Weights of the encoder that a recipe or a phase leaves as they are."""

from collections.abc import Collection

from ...runtime.errors import SetupError
from ..model.network import MultiTask
from ..recipe.optimiser import Freeze
from .optimiser import encoder_parts


def freeze(model: MultiTask, asked: Freeze | None, trained: Collection[str]) -> None:
    """Train the parameters named in `trained`, but those that are to stay as they are. SetupError for layers that are not there."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trained)
    if asked is None:
        return
    parts = encoder_parts(model)
    if asked.layers >= len(parts):
        raise SetupError(
            f"freeze: {asked.layers} layers, the encoder has {len(parts) - 1}; `encoder` freezes all of it"
        )
    for part in parts if asked.all else parts[: asked.layers + 1]:
        for parameter in part:
            parameter.requires_grad_(False)


def trained_names(model: MultiTask) -> frozenset[str]:
    """Return the names of the parameters that are trained now."""
    return frozenset(name for name, parameter in model.named_parameters() if parameter.requires_grad)
