"""The head of a task with few rows is fitted once more on the trained encoder, and learns the rows that were held back.

Temperature and thresholds are chosen with a head that has not seen these rows; the head that ships is fitted in the same
way on them as well. They are a tenth of few rows, and worth more to the model than the choice of a checkpoint.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from ..model.network import logits_of, states_of
from .encoding import encode_part
from .regression import fit_regression
from .setup import Fitting

Heads = dict[int, tuple[NDArray[np.float32], NDArray[np.float32]]]
"""By the task's number: weights [C, H] and biases [C]."""


def refit_heads(run: Fitting) -> Heads:
    """Fit the heads of `run.few` on their training rows, and score them. Return them as fitted on the held-back rows, too.

    Rows of a validation part that the recipe names are not learned.
    """
    finished: Heads = {}
    for at, data in enumerate(run.tasks):
        if data.name not in run.few or data.task.validation is not None:
            continue
        tokenizer = run.checkpoint.tokenizer
        tokenizer.enable_truncation(run.recipe.max_tokens)
        held_back = encode_part(data.validation, data.kind, data.labels, tokenizer)
        tokenizer.no_truncation()
        states = states_of(run.model, at, run.train[at].ids, device=run.device, bf16=False)
        set_head(run, at, *_fit(run, at, states, run.train[at].targets))
        logits = logits_of(run.model, at, run.validation[at].ids, device=run.device, bf16=False)
        run.standing.scores[data.name] = data.kind.metrics(logits, run.validation[at].targets, data.spec)
        run.data[data.name] = run.data[data.name].model_copy(update={"learned_validation": len(data.validation)})
        finished[at] = _fit(
            run,
            at,
            np.concatenate([states, states_of(run.model, at, held_back.ids, device=run.device, bf16=False)]),
            [*run.train[at].targets, *held_back.targets],
        )
    return finished


def set_heads(run: Fitting, heads: Heads) -> None:
    """Put these heads into the network."""
    for at, (weight, bias) in heads.items():
        set_head(run, at, weight, bias)


def set_head(run: Fitting, task: int, weight: NDArray[np.float32], bias: NDArray[np.float32]) -> None:
    """Put one head into the network."""
    head = run.model.heads[task]
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(weight))
        head.bias.copy_(torch.from_numpy(bias))


def _fit(
    run: Fitting, task: int, states: NDArray[np.float32], targets: Sequence[NDArray[np.integer]]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Fit logistic regression. A label without rows keeps what it has."""
    weight, bias, labels = fit_regression(states, [int(target) for target in targets])
    head = run.model.heads[task]
    weights, biases = (parameter.detach().cpu().numpy().copy() for parameter in (head.weight, head.bias))
    weights[labels], biases[labels] = weight, bias
    return weights, biases
