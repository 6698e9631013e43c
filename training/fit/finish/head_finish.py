"""The head of a task with few rows is fitted once more on the trained encoder, and learns the rows that were held back.

They are a tenth of few rows, and worth more to the model than the choice of a checkpoint. So that they still choose
calibration and thresholds, each is also scored by a head that has not seen it: fitted in the same way on all the others.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import log
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from ...compute.failures import memory_of
from ...data.example import Example
from ...data.near_texts import near_form
from ...kinds.distance_head import DistanceHead
from ...model.network import states_of
from ...prepare.label_names import name_rows
from ...prepare.tasks import TaskData, originals
from ..few_labels.centres import FLAGGED, choose_limits, find_centres, find_nearest, set_outside
from ..few_labels.cross_validation import cross_validate
from ..probe.regression import fit_regression
from ..rows.encoding import encode_part
from ..setup import Fitting
from ..start.few_rows import refit_names

FOLDS: Final = 5
Array = NDArray[Any]
Head = tuple[Array, Array]
"""Weights [C, H] and biases [C]."""


@dataclass(frozen=True)
class Distance:
    """What a head by distance knows of its labels: centres [C, W], and scale and limit."""

    centres: Array
    limits: tuple[float, float]


@dataclass(frozen=True)
class Refit:
    """By the task's number: the head that learned all rows, and the logits [C] of each held-back row without it."""

    heads: dict[int, Head] = field(default_factory=dict)
    out_of_fold: dict[int, list[Array]] = field(default_factory=dict)
    distances: dict[int, Distance] = field(default_factory=dict)
    """Of the heads by distance, whether they have few rows or not."""

    @property
    def has_changed(self) -> bool:
        """Whether the network is another one than the best checkpoint."""
        return bool(self.heads or self.distances)


@dataclass(frozen=True)
class _Rows:
    """What regression learns from: states [N, H], numbers of labels and weights [N]."""

    states: Array
    labels: list[int]
    weights: Array

    def __add__(self, other: "_Rows") -> "_Rows":
        pairs = ((self.states, other.states), (self.weights, other.weights))
        states, weights = (np.concatenate(pair) for pair in pairs)
        return _Rows(states, self.labels + other.labels, weights)

    def choose(self, rows: Sequence[int]) -> "_Rows":
        return _Rows(self.states[rows], [self.labels[row] for row in rows], self.weights[rows])

    def centres(self, labels: int) -> Array:
        """Return the centres [C, W] of so many labels."""
        return find_centres(self.states, self.labels, labels)

    def fit(self, labels: int) -> Head:
        """Return the head of a task with so many labels.

        A label without rows gets the mean of the other rows of the head, and a bias lower by log(N): it is never the most
        likely one, on the scale of the others.
        """
        weight, bias, found = fit_regression(self.states, self.labels, self.weights)
        weights = np.tile(weight.mean(0), (labels, 1))
        biases = np.full(labels, bias.mean() - log(len(self.labels)), np.float32)
        weights[found], biases[found] = weight, bias
        return weights, biases


@memory_of("refit of heads", "lower max_tokens, or set `few_rows: 0`")
def refit_heads(run: Fitting) -> Refit:
    """Fit the heads of `run.few` on all their rows, and score the held-back ones without each; where the encoder is frozen all
    rows, which are held back from the head alone. Heads by distance get centres and limits, those of other tasks, too.

    Rows of a validation part that the recipe names are not learned.
    """
    refit = Refit()
    for at, data in enumerate(run.tasks):
        if is_refit(run, data):
            _refit_head(run, at, data, refit)
        elif isinstance(run.model.heads[at], DistanceHead):
            _refit_distance(run, at, data, refit)
    return refit


def is_refit(run: Fitting, data: TaskData) -> bool:
    """Return whether the head of a task is fitted once more."""
    return data.name in refit_names([data], run.few)


def scored_rows(run: Fitting, data: TaskData) -> list[Example]:
    """Return the rows that a head which is fitted once more is scored on, each by a head without it: those held back, where the
    encoder is frozen all.
    """
    return [*originals(data.train), *data.validation] if run.model.has_frozen_encoder else data.validation


def _refit_head(run: Fitting, at: int, data: TaskData, refit: Refit) -> None:
    scored = scored_rows(run, data)
    if run.model.has_frozen_encoder:
        taught = _rows_of(run, at, data, name_rows(data))
        run.tasks[at] = replace(data, validation=scored)  # they choose the temperature, too
    else:
        taught = _taught_rows(run, at, data)
    held_back, head, count = _rows_of(run, at, data, scored), run.model.heads[at], len(data.labels)
    refit.heads[at] = (taught + held_back).fit(count)
    folds = [*_folds(scored, run.recipe.data_seed)]
    logits = score_out_of_fold(taught, held_back, count, folds)
    report: dict[str, Any] = {"learned_validation": len(data.validation)}
    if isinstance(head, DistanceHead):
        nearest = _nearest_out_of_fold(taught, held_back, count, folds)
        limits = choose_limits(nearest, _flagged(data))
        refit.distances[at] = Distance((taught + held_back).centres(count), limits)
        logits = [*set_outside(np.stack(logits), nearest, limits, head.outside)]
    refit.out_of_fold[at] = logits
    report["cross_validated"] = cross_validate(np.stack(logits), held_back.labels, data.labels, data.spec.out_of_scope)
    targets = [np.array(label) for label in held_back.labels]
    run.standing.scores[data.name] = data.kind.metrics(logits, targets, data.spec)
    run.data[data.name] = run.data[data.name].model_copy(update=report)


def _refit_distance(run: Fitting, at: int, data: TaskData, refit: Refit) -> None:
    """Centres are those of the training rows, the limit is chosen on the rows that validate."""
    part, count = run.train[at], len(data.labels)
    rows = [row for row, example in enumerate(data.train) if not example.soft] or [*range(len(data.train))]
    states = states_of(run.model, at, [part.ids[row] for row in rows], device=run.device, bf16=False)
    centres = find_centres(states, [int(part.targets[row]) for row in rows], count)
    nearest = find_nearest(_rows_of(run, at, data, data.calibrating).states, centres)
    refit.distances[at] = Distance(centres, choose_limits(nearest, _flagged(data)))


def _flagged(data: TaskData) -> float:
    asked = data.task.thresholds.max_flagged
    return FLAGGED if asked is None else asked


def score_out_of_fold(taught: _Rows, held_back: _Rows, labels: int, folds: Sequence[Sequence[int]]) -> list[Array]:
    """Return the logits [C] of each held-back row, from a head fitted on all rows but those of its fold."""
    logits = np.zeros((len(held_back.labels), labels), np.float32)
    for fold, others in _apart(held_back, folds):
        weight, bias = (taught + others).fit(labels)
        logits[fold] = held_back.states[fold] @ weight.T + bias
    return [*logits]


def _nearest_out_of_fold(taught: _Rows, held_back: _Rows, labels: int, folds: Sequence[Sequence[int]]) -> Array:
    nearest = np.zeros(len(held_back.labels))
    for fold, others in _apart(held_back, folds):
        nearest[fold] = find_nearest(held_back.states[fold], (taught + others).centres(labels))
    return nearest


def _apart(rows: _Rows, folds: Sequence[Sequence[int]]) -> Iterator[tuple[list[int], _Rows]]:
    for fold in folds:
        yield list(fold), rows.choose(sorted(set(range(len(rows.labels))) - set(fold)))


def set_heads(run: Fitting, refit: Refit) -> None:
    """Put what was fitted into the network."""
    with torch.no_grad():
        for at, (weight, bias) in refit.heads.items():
            run.model.heads[at].weight.copy_(torch.from_numpy(weight))
            run.model.heads[at].bias.copy_(torch.from_numpy(bias))
        for at, distance in refit.distances.items():
            run.model.heads[at].centres.copy_(torch.from_numpy(distance.centres))
            run.model.heads[at].limits.copy_(torch.tensor(distance.limits))


def _folds(examples: Sequence[Example], seed: int) -> Iterator[list[int]]:
    """Yield the rows of each fold, of each label as many; rows with nearly the same text lie in one."""
    by_text: dict[bytes, list[int]] = defaultdict(list)
    for row, example in enumerate(examples):
        by_text[near_form(example.given)].append(row)
    groups = [*by_text.values()]
    random.Random(seed).shuffle(groups)
    groups.sort(key=lambda group: examples[group[0]].labels[0])
    for first in range(min(FOLDS, len(groups))):
        yield [row for group in groups[first::FOLDS] for row in group]


def _taught_rows(run: Fitting, task: int, data: TaskData) -> _Rows:
    part = run.train[task]
    states = states_of(run.model, task, part.ids, device=run.device, bf16=False)
    labels = [int(target) for target in part.targets]
    return _Rows(states, labels, _weights_by_label(data, labels) / _copies(data))


def _rows_of(run: Fitting, task: int, data: TaskData, examples: Sequence[Example]) -> _Rows:
    """Each weighs as much as a row of its label and the same file that is repeated in training; one of no file as one that is not."""
    if not examples:
        return _Rows(np.zeros((0, run.model.heads[task].in_features), np.float32), [], np.zeros(0))
    tokenizer = run.checkpoint.tokenizer
    tokenizer.enable_truncation(run.recipe.max_tokens)
    part = encode_part(examples, data.kind, data.labels, tokenizer)
    tokenizer.no_truncation()
    states = states_of(run.model, task, part.ids, device=run.device, bf16=False)
    copies, mean = _copies_by_file(data) | {"": 1.0}, _copies(data)
    weights = np.array([copies.get(_file_of(example), mean) / mean for example in examples])
    labels = [int(target) for target in part.targets]
    return _Rows(states, labels, weights * _weights_by_label(data, labels))


def _weights_by_label(data: TaskData, labels: list[int]) -> Array:
    """Return how much each row [N] counts by its label, as in the loss."""
    return np.ones(len(labels)) if data.class_weights is None else np.array(data.class_weights)[labels]


def _copies(data: TaskData) -> float:
    """Return how often a training row is seen in an epoch, on average."""
    return len(data.train) / len(originals(data.train))


def _copies_by_file(data: TaskData) -> dict[str, float]:
    rows = Counter(_file_of(example) for example in data.train)
    distinct = Counter(_file_of(example) for example in originals(data.train))
    return {file: rows[file] / count for file, count in distinct.items()}


def _file_of(example: Example) -> str:
    return example.place.rpartition(":")[0]
