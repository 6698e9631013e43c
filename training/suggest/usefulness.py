"""How much a text would teach a model, by its answers; the greater the more useful. Pure.

Margin: Scheffer, Decomain, Wrobel 2001. Entropy: Settles, Craven 2008. Disagreement of dropout passes is BALD: Houlsby et al.
2011, with dropout as the posterior Gal, Islam, Ghahramani 2017.
"""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ...runtime.model.decoding import softmax

Array = NDArray[Any]
_LEAST: Final = 1e-12


def score_margin(scores: Array) -> Array:
    """Return 1 less the distance of the two best labels, for probabilities [..., C]; 0 where there is one label only."""
    if scores.shape[-1] < 2:
        return np.zeros(scores.shape[:-1])
    best = np.partition(scores, -2, axis=-1)
    return np.asarray(1.0 - (best[..., -1] - best[..., -2]))


def score_entropy(scores: Array) -> Array:
    """Return the entropy in nats of probabilities [..., C]."""
    return np.asarray(-(scores * np.log(np.maximum(scores, _LEAST))).sum(-1))


def score_flags_margin(scores: Array, thresholds: Array) -> Array:
    """Return 1 less the distance of the label nearest to its threshold [C], for scores [..., C] of labels that do not exclude
    each other.
    """
    return np.asarray(1.0 - np.abs(scores - thresholds).min(-1))


def score_flags_entropy(scores: Array) -> Array:
    """Return the sum of the entropies of labels that do not exclude each other, for scores [..., C]."""
    return np.asarray(score_entropy(np.stack([scores, 1.0 - scores], axis=-1)).sum(-1))


def score_disagreement(passes: Array, entropy: Callable[[Array], Array] = score_entropy) -> Array:
    """Return the mutual information of answer and weights: the entropy of the mean less the mean of the entropies.

    `passes` [T, ..., C] are the scores of T passes with dropout. 0 where they agree, however unsure each is.
    """
    return np.asarray(np.maximum(0.0, entropy(passes.mean(0)) - entropy(passes).mean(0)))


def score_tokens(by_token: Array, how: str) -> float:
    """Return one figure of those of a text's tokens [S]: the `least` sure one's, or the `mean`. 0 without tokens."""
    if not len(by_token):
        return 0.0
    return float(by_token.max() if how == "least" else by_token.mean())


def to_probabilities(logits: Array, temperature: float) -> Array:
    """Return calibrated probabilities of labels that exclude each other, for logits [..., C]."""
    return np.asarray(softmax(logits.astype(np.float64) / temperature))
