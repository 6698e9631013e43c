"""Self-training as the last phase of a recipe."""

from typing import Final

from ...runtime.model.kinds.forms import AnswerForm, Reads
from ...runtime.model.kinds.kind import Kind
from ...runtime.model.kinds.registry import KINDS
from .keys.phases import Phase
from .keys.self_training import SELF_TRAINING
from .recipe import Recipe

LABELLED: Final = "labelled"
"""The name of the phase before, where the recipe has no phases."""


def with_self_training(recipe: Recipe) -> Recipe:
    """Return the recipe with self-training as its last phase, where it has some. SetupError where it cannot be."""
    settings = recipe.self_training
    if settings is None:
        return recipe
    if any(phase.name == SELF_TRAINING for phase in recipe.phases):
        raise recipe.refusal(
            ("phases",), f"{SELF_TRAINING!r} is the name of the phase that the key makes; rename the other one"
        )
    if recipe.encoder.frozen:
        raise recipe.refusal(
            (SELF_TRAINING,),
            "the encoder is frozen, and reads the rows once, before any guess; `freeze: encoder` lets the head alone learn from the "
            "texts, or leave one of them out",
        )
    name = find_task(recipe)
    if writing := [other for other, task in recipe.tasks.items() if other != name and KINDS.get(task.kind).generates]:
        raise recipe.refusal((SELF_TRAINING,), f"{writing[0]} writes replies, to which it cannot be held meanwhile")
    phases = recipe.phases or (Phase(name=LABELLED),)
    last = Phase(name=SELF_TRAINING, tasks=[name], epochs=settings.epochs)
    return recipe.model_copy(update={"phases": (*phases, last)})


def find_task(recipe: Recipe) -> str:
    """Return the name of the classification that is meant. SetupError for none, and where one of several has to be named."""
    asked = recipe.self_training.task if recipe.self_training else None
    known = [name for name, task in recipe.tasks.items() if _has_one_label(KINDS.get(task.kind))]
    found = ", ".join(known) or "none"
    if asked is not None and asked not in known:
        raise recipe.refusal((SELF_TRAINING, "task"), f"no classification {asked!r}; the recipe has {found}")
    if asked is None and len(known) != 1:
        raise recipe.refusal((SELF_TRAINING,), f"expected one classification, or `task`; the recipe has {found}")
    return asked or known[0]


def _has_one_label(kind: Kind) -> bool:
    """Whether a row is one text with one label."""
    return kind.form is AnswerForm.LABEL and kind.reads is Reads.TEXT
