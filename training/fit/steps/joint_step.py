"""The joint step: the rows of all tasks through the encoder, and the weighted sum of the tasks' mean losses."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch
from torch import Tensor

from ...kinds.kind import EncodedTexts
from ...model.network import MultiTask
from ...model.special_tokens import SpecialTokens
from ...prepare.tasks import TaskData
from ...recipe.recipe import Hold, Recipe
from ..rows.batches import Batch, TaskBatch
from ..rows.soft_targets import LossOfLabels, SoftTargets, mixed_loss
from ..start.optimiser import drop_words
from .row_weights import row_weights


def loss_weights(recipe: Recipe, tasks: Sequence[TaskData]) -> list[float]:
    """Return alpha_i for each task: its `loss_weight`; with `normalise` divided by the log of the number of answers.

    That is what the loss is before anything is learned: log(C) for one of C labels, C * log(2) for any set of them.
    """
    weights = [data.task.loss_weight for data in tasks]
    if not recipe.normalise:
        return weights
    sizes = [data.kind.chance_loss(len(data.labels)) for data in tasks]
    return [weight / size for weight, size in zip(weights, sizes, strict=True)]


def task_losses(
    model: MultiTask,
    tasks: Sequence[TaskData],
    recipe: Recipe,
    batches: Sequence[Batch],
    special: SpecialTokens,
    autocast: Callable[[], AbstractContextManager[None]] = nullcontext,
    gold: Mapping[int, float] | None = None,
) -> dict[int, Tensor]:
    """Return the mean loss over its rows of each task of the batches, by the task's number. `gold` is by task how much of the
    target of rows with a teacher is their label.
    """
    found: list[tuple[TaskBatch, Tensor, EncodedTexts | None]] = []
    with autocast():
        for batch in batches:
            encoded: EncodedTexts | None = None
            for part in batch.tasks:
                if part.pooled is not None:
                    found.append((part, model.answer_pooled(part.task, part.pooled), None))
                    continue
                if encoded is None:
                    encoded = model.encode(drop_words(batch.ids, recipe.word_dropout, special), batch.mask)
                texts = encoded.choose(part.texts)
                found.append((part, model.answer(part.task, texts, part.target), texts))
    shares = gold or {}
    return {
        part.task: _loss(tasks[part.task], recipe, part, logits.float(), texts, shares.get(part.task, 1.0))
        for part, logits, texts in found
    }


def _loss(
    data: TaskData, recipe: Recipe, part: TaskBatch, logits: Tensor, texts: EncodedTexts | None, gold: float
) -> Tensor:
    """Return gold * the loss of the labels + (1 - gold) * the distance from the teacher's answers (Clark et al. 2019)."""
    of_labels = partial(_loss_of_labels, data, recipe)
    if part.guessed is not None:
        return _loss_with_guesses(data, recipe, part, part.guessed, logits, texts)
    if part.soft is not None:
        return mixed_loss(data.kind, logits, part.target, part.soft, recipe.hold, of_labels, texts)
    if part.taught is None or recipe.teachers is None or gold == 1:
        return of_labels(logits, part.target, texts)
    temperature = Hold(temperature=recipe.teachers.temperature)
    distance = mixed_loss(data.kind, logits, part.target, part.taught, temperature, of_labels)
    return distance if gold == 0 else gold * of_labels(logits, part.target, texts) + (1 - gold) * distance


def _loss_with_guesses(
    data: TaskData, recipe: Recipe, part: TaskBatch, guessed: SoftTargets, logits: Tensor, texts: EncodedTexts | None
) -> Tensor:
    """Return the mean loss of a batch with texts of self-training, which count by its weight; the others as without."""
    assert recipe.self_training is not None, "it has made the guesses"
    of_others: LossOfLabels = partial(_loss_of_labels, data, recipe)
    if part.soft is not None:
        soft, of_labels = part.soft.among(~guessed.rows), of_others

        def of_others(logits: Tensor, target: Tensor, texts: EncodedTexts | None) -> Tensor:
            return mixed_loss(data.kind, logits, target, soft, recipe.hold, of_labels, texts)

    weight = Hold(weight=recipe.self_training.weight, temperature=1.0)
    return mixed_loss(data.kind, logits, part.target, guessed, weight, of_others, texts)


def _loss_of_labels(
    data: TaskData, recipe: Recipe, logits: Tensor, target: Tensor, texts: EncodedTexts | None
) -> Tensor:
    smoothing = recipe.label_smoothing if data.task.label_smoothing is None else data.task.label_smoothing
    if data.class_weights is None and data.task.focal is None:
        return data.kind.loss(logits, target, smoothing, texts)
    counts = row_weights(logits, target, data.class_weights, data.task.focal)
    return (counts * data.kind.loss_by_row(logits, target, smoothing)).mean()


def weighted_sum(losses: dict[int, Tensor], weights: Sequence[float] | Mapping[int, float]) -> Tensor:
    """Return sum(alpha_i * loss_i), what a step minimises."""
    return torch.stack([weights[task] * loss for task, loss in losses.items()]).sum()
