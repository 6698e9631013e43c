"""The texts without labels that self-training guesses."""

from collections.abc import Sequence
from pathlib import Path

from ..data.near_texts import near_form
from ..prepare.tasks import TaskData
from ..recipe.keys.self_training import SELF_TRAINING
from ..recipe.last_phase import find_task
from ..recipe.recipe import Recipe
from .texts import read_documents


def read_unlabelled(recipe: Recipe, tasks: Sequence[TaskData], folder: Path) -> list[str]:
    """Return the texts, each once; none that is a row of the task, of whatever part. SetupError where none is left."""
    if recipe.self_training is None:
        return []
    (data,) = (each for each in tasks if each.name == find_task(recipe))
    known = {near_form(example.given) for example in data.rows}
    texts: dict[bytes, str] = {}
    for document in read_documents(recipe.self_training.texts, folder, seed=recipe.data_seed):
        for text in document:
            texts.setdefault(near_form(text.text), text.text)
    found = [text for form, text in texts.items() if form not in known]
    if not found:
        raise recipe.refusal(
            (SELF_TRAINING, "texts"), f"all {len(texts)} texts are rows of {data.name}; name further ones"
        )
    return found
