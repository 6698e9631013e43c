"""Refuses a method that does not mix with what else a recipe says, before anything is read."""

from collections.abc import Iterator

from ....runtime.settings.yaml_file import Place
from ...recipe.recipe import Recipe


def refuse_methods(recipe: Recipe) -> None:
    """Raise SetupError for the first thing that the method around the encoder does not mix with."""
    for place, message in _find_problems(recipe):
        raise recipe.refusal(place, message)


def _find_problems(recipe: Recipe) -> Iterator[tuple[Place, str]]:
    keys = recipe.around_encoder
    if keys is None or recipe.encoder.frozen:
        return
    name = recipe.name_of_method
    place: Place = ("lora",) if recipe.lora else ("method",)
    if recipe.encoder.source == "scratch":
        yield (
            place,
            f"{name} keeps the encoder as it is, and `scratch` has no weights that could be found again; name an encoder, or train "
            "without it",
        )
    if recipe.freeze is not None and recipe.freeze.all:
        yield (
            ("freeze",),
            f"{name} trains what lies around the encoder's layers, which `encoder` freezes; leave one out",
        )
    if keys.one_phase and recipe.phases:
        yield ("phases",), f"{name} has one schedule for the whole training, it cannot have phases; leave one out"
    if not keys.of_encoder and recipe.freeze is not None:
        yield ("freeze",), f"{name} divides its rank among all layers, so that none can be frozen; leave one out"
