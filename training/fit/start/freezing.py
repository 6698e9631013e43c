"""Weights of the encoder that a recipe or a phase leaves as they are."""

from collections.abc import Collection

from ...model.network import MultiTask
from ...recipe.keys.optimiser import Freeze
from ...run_folders.run_folder import TrainedCount
from .optimiser import encoder_parts


def freeze(model: MultiTask, asked: Freeze | None, trained: Collection[str]) -> None:
    """Train the parameters named in `trained`, but those that are to stay as they are."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trained)
    if asked is None:
        return
    parts = encoder_parts(model)
    for part in parts if asked.all else parts[: asked.layers + 1]:
        for parameter in part:
            parameter.requires_grad_(False)


def trained_names(model: MultiTask) -> frozenset[str]:
    """Return the names of the parameters that are trained now."""
    return frozenset(name for name, parameter in model.named_parameters() if parameter.requires_grad)


def count_trained(model: MultiTask) -> TrainedCount:
    """Return how many numbers are trained now: of words those that the rows have."""
    encoder, heads = (
        sum(each.numel() for each in part.parameters() if each.requires_grad) for part in (model.encoder, model.heads)
    )
    return TrainedCount(encoder=encoder, heads=heads)
