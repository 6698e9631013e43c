"""Refuses a method that does not mix with what else a recipe says, before anything is read."""

from collections.abc import Iterator

from ....runtime.model.kinds.registry import KINDS
from ....runtime.settings.yaml_file import Place
from ....schemas.manifest import EncoderSpec
from ...recipe.keys.methods import MethodKeys, Prefix
from ...recipe.keys.optimiser import Freeze
from ...recipe.phase_recipe import never_trains_encoder
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
    if recipe.encoder.source == "scratch" and recipe.pretrain is None:
        yield (
            place,
            f"{name} keeps the encoder as it is, and `scratch` has no weights that could be found again; name an encoder, or train "
            "without it",
        )
    yield from _find_frozen(recipe, keys, name)
    if keys.one_phase and recipe.phases:
        yield ("phases",), f"{name} is trained as a whole and cannot go on in another phase; leave one out"
    if recipe.budget.steps is not None and recipe.budget.steps < keys.least_steps:
        yield ("budget", "steps"), f"{recipe.budget.steps}, but {name} takes {keys.least_steps} or more"
    if keys.one_task:
        yield from _find_other_tasks(recipe, name)


def _find_frozen(recipe: Recipe, keys: MethodKeys, name: str) -> Iterator[tuple[Place, str]]:
    """Yield what is frozen of a method: all of it in each phase, or some layers, which only some methods have parts in."""
    trains = f"{name} trains what lies around the encoder's layers"
    if recipe.freeze is not None and recipe.freeze.all:
        yield ("freeze",), f"{trains}, which `encoder` freezes; leave one out"
    if recipe.phases and never_trains_encoder(recipe):
        yield ("phases",), f"{trains}, which each phase freezes; leave one out"
    places: list[tuple[Place, Freeze | None]] = [(("freeze",), recipe.freeze)]
    places += [(("phases", at, "freeze"), phase.freeze) for at, phase in enumerate(recipe.phases)]
    for place, freeze in places:
        if freeze is not None and not freeze.all and not keys.of_encoder:
            yield place, f"{name} is trained as a whole, so that no layer can be frozen; leave one out"
        elif freeze == Freeze() and recipe.freeze in {None, freeze}:
            yield place, f"`embeddings` has no effect: {name} trains nothing of them; freeze layers, or leave it out"


def _find_other_tasks(recipe: Recipe, name: str) -> Iterator[tuple[Place, str]]:
    if len(recipe.tasks) > 1:
        yield (
            ("method",),
            f"{name} turns the encoder to one task, found {', '.join(recipe.tasks)}; keep one task, or use lora, dora, adalora, "
            "ia3 or bottleneck",
        )
    for task in recipe.tasks:
        if KINDS.get(recipe.tasks[task].kind).generates:
            yield ("method",), f"{name} is for tasks with labels, {task} writes replies; use lora"


def refuse_parts(recipe: Recipe, encoder: EncoderSpec) -> None:
    """Raise SetupError where a method meets an encoder whose graph has parts of an earlier one, or that is too small for it."""
    keys = recipe.around_encoder
    if keys is None or recipe.encoder.frozen:
        return
    if isinstance(keys, Prefix) and keys.tokens > encoder.max_positions:
        found = f"{keys.tokens}, but {encoder.source} reads {encoder.max_positions} tokens; expected at most as many"
        raise recipe.refusal(("method", "tokens"), found)
    if encoder.parts:
        parts = ", ".join(encoder.parts)
        raise recipe.refusal(
            ("encoder",),
            f"{encoder.source} has parts of another method ({parts}); {recipe.name_of_method} is put around a plain encoder, name its "
            "base, or train without a method",
        )


def refuse_steps(recipe: Recipe, steps: int) -> None:
    """Raise SetupError where a training has fewer steps than its method takes."""
    keys = recipe.around_encoder
    if keys is not None and not recipe.encoder.frozen and steps < keys.least_steps:
        found = (
            f"{recipe.name_of_method} takes {keys.least_steps} steps or more, there is {steps}; raise `budget.epochs`"
        )
        raise recipe.refusal(("budget",), found)
