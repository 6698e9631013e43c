"""The head of a task with few rows is fitted once more on the trained encoder, and learns the rows that were held back.

They are a tenth of few rows, and worth more to the model than the choice of a checkpoint. So that they still choose
temperature and thresholds, each is also scored by a head that has not seen it: fitted in the same way on all the others.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import log
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from ..data.example import Example
from ..data.near_texts import near_form
from ..model.network import states_of
from ..prepare.tasks import TaskData, originals
from .encoding import encode_part
from .regression import fit_regression
from .setup import Fitting

FOLDS: Final = 5
Array = NDArray[Any]
Head = tuple[Array, Array]
"""Weights [C, H] and biases [C]."""


@dataclass(frozen=True)
class Refit:
    """By the task's number: the head that learned all rows, and the logits [C] of each held-back row without it."""

    heads: dict[int, Head] = field(default_factory=dict)
    out_of_fold: dict[int, list[Array]] = field(default_factory=dict)


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


def refit_heads(run: Fitting) -> Refit:
    """Fit the heads of `run.few` on all their rows, and score the held-back ones without each.

    Rows of a validation part that the recipe names are not learned.
    """
    refit = Refit()
    for at, data in enumerate(run.tasks):
        if data.name not in run.few or data.task.validation is not None:
            continue
        taught, held_back = _taught_rows(run, at, data), _held_back_rows(run, at, data)
        refit.heads[at] = (taught + held_back).fit(len(data.labels))
        logits = refit.out_of_fold[at] = score_out_of_fold(
            taught, held_back, len(data.labels), [*_folds(data.validation, run.recipe.data_seed)]
        )
        targets = [np.array(label) for label in held_back.labels]
        run.standing.scores[data.name] = data.kind.metrics(logits, targets, data.spec)
        run.data[data.name] = run.data[data.name].model_copy(update={"learned_validation": len(data.validation)})
    return refit


def score_out_of_fold(taught: _Rows, held_back: _Rows, labels: int, folds: Sequence[Sequence[int]]) -> list[Array]:
    """Return the logits [C] of each held-back row, from a head fitted on all rows but those of its fold."""
    logits = np.zeros((len(held_back.labels), labels), np.float32)
    for fold in folds:
        others = sorted(set(range(len(logits))) - set(fold))
        weight, bias = (taught + held_back.choose(others)).fit(labels)
        logits[list(fold)] = held_back.states[list(fold)] @ weight.T + bias
    return [*logits]


def set_heads(run: Fitting, heads: dict[int, Head]) -> None:
    """Put these heads into the network."""
    for at, (weight, bias) in heads.items():
        head = run.model.heads[at]
        with torch.no_grad():
            head.weight.copy_(torch.from_numpy(weight))
            head.bias.copy_(torch.from_numpy(bias))


def _folds(examples: Sequence[Example], seed: int) -> Iterator[list[int]]:
    """Yield the rows of each fold; rows with nearly the same text lie in one."""
    by_text: dict[bytes, list[int]] = defaultdict(list)
    for row, example in enumerate(examples):
        by_text[near_form(example.given)].append(row)
    groups = [*by_text.values()]
    random.Random(seed).shuffle(groups)
    for first in range(min(FOLDS, len(groups))):
        yield [row for group in groups[first::FOLDS] for row in group]


def _taught_rows(run: Fitting, task: int, data: TaskData) -> _Rows:
    part = run.train[task]
    states = states_of(run.model, task, part.ids, device=run.device, bf16=False)
    return _Rows(states, [int(target) for target in part.targets], np.full(len(states), 1 / _copies(data)))


def _held_back_rows(run: Fitting, task: int, data: TaskData) -> _Rows:
    """A held-back row weighs as much as one of the same file that is repeated in training."""
    tokenizer = run.checkpoint.tokenizer
    tokenizer.enable_truncation(run.recipe.max_tokens)
    part = encode_part(data.validation, data.kind, data.labels, tokenizer)
    tokenizer.no_truncation()
    states = states_of(run.model, task, part.ids, device=run.device, bf16=False)
    copies, mean = _copies_by_file(data), _copies(data)
    weights = np.array([copies.get(_file_of(example), mean) / mean for example in data.validation])
    return _Rows(states, [int(target) for target in part.targets], weights)


def _copies(data: TaskData) -> float:
    """Return how often a training row is seen in an epoch, on average."""
    return len(data.train) / len(originals(data.train))


def _copies_by_file(data: TaskData) -> dict[str, float]:
    rows = Counter(_file_of(example) for example in data.train)
    distinct = Counter(_file_of(example) for example in originals(data.train))
    return {file: rows[file] / count for file, count in distinct.items()}


def _file_of(example: Example) -> str:
    return example.place.rpartition(":")[0]
