"""Prompt learning with a verbaliser: the template's tokens become a part of the encoder, the label words a head.

Schick and Schütze 2021 (arXiv 2001.07676): a text in a template with a mask is classified by the logits that the head of masked
words gives the label words there; encoder and head are trained on by cross entropy over the labels. Here one template, no
ensemble, and no further texts (`self_training` has those). The rows of the label words are trained apart from the word table.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from ...runtime.settings.yaml_file import Place
from ...schemas.manifest import EncoderSpec, HeadForm
from ..kinds.heads import FormedHead
from ..recipe.keys.verbaliser import MASK, Verbaliser
from ..recipe.recipe import Recipe
from .encoders import Checkpoint, locate
from .masked_head import find_mask, read_masked_head

_TRANSFORM: Final = {
    "transform.dense.weight": "hidden.weight",
    "transform.dense.bias": "hidden.bias",
    "transform.LayerNorm.weight": "hidden_norm.weight",
    "transform.LayerNorm.bias": "hidden_norm.bias",
}
"""Names of tensors in BERT's head of masked words, and in ours."""
_WORDS: Final = "embeddings.word_embeddings.weight"


def find_verbaliser(recipe: Recipe) -> tuple[str, Verbaliser] | None:
    """Return the task with a verbaliser, and that; None where there is none."""
    return next(((name, task.verbaliser) for name, task in recipe.tasks.items() if task.verbaliser), None)


def refuse_verbaliser(recipe: Recipe) -> None:
    """Raise SetupError for what a verbaliser does not mix with, before anything is read."""
    if (found := find_verbaliser(recipe)) is None:
        return
    name, place = found[0], ("tasks", found[0], "verbaliser")
    if len(recipe.tasks) > 1:
        listed = ", ".join(recipe.tasks)
        raise recipe.refusal(place, f"its template is read before every text, found {listed}; keep {name} alone")
    if recipe.encoder.frozen:
        raise recipe.refusal(place, "the encoder is frozen, and would have to read a template; leave one of them out")
    if recipe.encoder.source == "scratch" and recipe.pretrain is None:
        raise recipe.refusal(place, "an encoder from scratch knows no word; name one, or `pretrain` it")
    if recipe.around_encoder is not None and recipe.around_encoder.one_task:
        known = "lora, dora, adalora, ia3 or bottleneck"
        raise recipe.refusal(place, f"{recipe.name_of_method} puts tokens of its own before a text; use {known}")


def refuse_words(recipe: Recipe, labels: Mapping[str, Sequence[str]], checkpoint: Checkpoint) -> None:
    """Raise SetupError where template and words are not those of the encoder's vocabulary, and of the labels of the task, by
    name.
    """
    if (found := find_verbaliser(recipe)) is None or found[0] not in labels:
        return
    place = ("tasks", found[0], "verbaliser")
    for more, problem in _find_problems(recipe, found[1], labels[found[0]], checkpoint):
        raise recipe.refusal((*place, *more), problem)


def refuse_mask(recipe: Recipe, encoder: EncoderSpec) -> None:
    """Raise SetupError for a head that reads the mask of an encoder without a template."""
    for name, task in recipe.tasks.items():
        if encoder.masked_at is None and task.head is not None and task.head.pooling == "mask":
            problem = f"{encoder.source} has no template; set `verbaliser` instead of `head`"
            raise recipe.refusal(("tasks", name, "head", "pooling"), problem)


def _find_problems(
    recipe: Recipe, asked: Verbaliser, labels: Sequence[str], checkpoint: Checkpoint
) -> Iterator[tuple[Place, str]]:
    if parts := ", ".join(checkpoint.spec.parts):
        problem = f"{checkpoint.spec.source} has parts of another training ({parts}); name a plain encoder"
        yield (), f"{problem}, or train on without a verbaliser"
        return
    if (mask := find_mask(checkpoint.tokenizer)) is None:
        yield ("template",), "the encoder's tokenizer has no mask token; take another encoder"
        return
    template = _ids_of(asked.before.replace(MASK, mask[0]), checkpoint)
    if not checkpoint.special.unknown_ids.isdisjoint(template):
        yield ("template",), f"{asked.before.strip()!r} has words that are unknown to the encoder; choose others"
    size, limit = len(template), checkpoint.spec.max_positions
    if recipe.max_tokens + size > limit:
        problem = (
            f"{size} tokens before max_tokens {recipe.max_tokens} are more than the encoder's max_positions {limit}"
        )
        yield ("template",), f"{problem}; lower max_tokens, or shorten it"
    if missing := [label for label in labels if label not in asked.words]:
        yield ("words",), f"no word for label {missing[0]!r}; expected one for each of {len(labels)} labels"
    if unknown := [label for label in asked.words if label not in labels]:
        yield ("words",), f"no label {unknown[0]!r}; expected words for {len(labels)} labels: {', '.join(labels[:10])}"
    taken: dict[int, str] = {}
    for label, word in asked.words.items():
        ids = _ids_of(word, checkpoint)
        if len(ids) != 1 or ids[0] in checkpoint.special.unknown_ids:
            pieces = ", ".join(str(checkpoint.tokenizer.id_to_token(number)) for number in ids)
            yield ("words", label), f"{word!r} is no single token of the encoder, it is {pieces}; choose another word"
        elif ids[0] in taken:
            yield ("words", label), f"{word!r} stands for {taken[ids[0]]!r}, too; choose another word for one of them"
        else:
            taken[ids[0]] = label


def _ids_of(text: str, checkpoint: Checkpoint) -> list[int]:
    ids: list[int] = checkpoint.tokenizer.encode(text, add_special_tokens=False).ids
    return ids


def with_template(recipe: Recipe, checkpoint: Checkpoint) -> Checkpoint:
    """Return the encoder with the template's tokens before those of a text; as it is where the recipe has no verbaliser."""
    if (found := find_verbaliser(recipe)) is None:
        return checkpoint
    mask = find_mask(checkpoint.tokenizer)
    assert mask is not None, "refused before"
    ids = _ids_of(found[1].before.replace(MASK, mask[0]), checkpoint)
    spec = checkpoint.spec.model_copy(update={"virtual_tokens": len(ids), "masked_at": ids.index(mask[1])})
    weights = {**checkpoint.weights, "embeddings.virtual": checkpoint.weights[_WORDS][ids]}
    return replace(checkpoint, spec=spec, weights=weights, plain=checkpoint)


def form_of_words(recipe: Recipe, checkpoint: Checkpoint) -> HeadForm | None:
    """Return the form of the head: with the layer before the word table where the checkpoint has one. None without a verbaliser."""
    if find_verbaliser(recipe) is None:
        return None
    hidden = checkpoint.spec.hidden_size if _transform_of(recipe) else None
    return HeadForm(pooling="mask", hidden=hidden, layer_norm=hidden is not None)


def begin_from_words(recipe: Recipe, head: FormedHead, labels: Sequence[str], checkpoint: Checkpoint) -> None:
    """Set a head to that of masked words, with the rows of the label words; without one in the checkpoint to the vectors of
    these words, which it is tied to in BERT.
    """
    if (found := find_verbaliser(recipe)) is None:
        return
    ids = [_ids_of(found[1].words[label], checkpoint)[0] for label in labels]
    before = read_masked_head(locate(recipe.encoder.source)) if head.hidden is not None else {}
    begins: dict[str, NDArray[Any]] = {ours: before[name] for name, ours in _TRANSFORM.items() if name in before}
    begins["weight"] = checkpoint.weights[_WORDS][ids]
    begins["bias"] = before["bias"][ids] if "bias" in before else np.zeros(len(ids), np.float32)
    own = dict(head.named_parameters())
    with torch.no_grad():
        for name, array in begins.items():
            own[name].copy_(torch.from_numpy(array))


def _transform_of(recipe: Recipe) -> bool:
    return set(_TRANSFORM) <= set(read_masked_head(locate(recipe.encoder.source)))
