"""Sentence embedding: a text lies near itself under another dropout (or near a text that means the same), far from others.

SimCSE, Gao et al. 2021 (arXiv 2104.08821): the batch's other texts are the negatives, temperature 0.05; with pairs, also
their hard negatives. The vector of a text is the mean of its states, as the heads of tasks read it, without the paper's
further layer.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ...recipe.keys.pretraining import SentenceEmbedding as Settings
from .objective import Encode, Ids, Objective, mean_state

Views = tuple[Ids, Ids, Ids | None]
"""A text, another view of it (the same ids, or a text that means the same), and one that does not mean the same."""


class SentenceEmbedding(Objective):
    """Of texts alone both views are the same ids, read under two dropouts."""

    def __init__(self, settings: Settings, views: Sequence[Views], places: Sequence[str]) -> None:
        super().__init__()
        self.name, self.weight, self.temperature = "sentence_embedding", settings.weight, settings.temperature
        self._views, self._places, self._has_pairs = views, places, bool(settings.pairs)
        self.lengths = [len(text) for text, _, _ in views]

    def loss(self, encode: Encode, rows: Sequence[int], draw: np.random.Generator) -> Tensor:
        views = [self._views[row] for row in rows]
        candidates = [other for _, other, _ in views] + [negative for _, _, negative in views if negative is not None]
        states, mask = encode([text for text, _, _ in views] + candidates)
        vectors = mean_state(states, mask)
        same = equal_texts([text for text, _, _ in views], candidates).to(vectors.device)
        return contrast(vectors[: len(views)], vectors[len(views) :], self.temperature, same)

    def place(self, row: int) -> str:
        return self._places[row]

    def describe(self) -> str:
        return f"{len(self._views)} {'pairs' if self._has_pairs else 'texts'}"


def contrast(texts: Tensor, candidates: Tensor, temperature: float, ignored: Tensor | None = None) -> Tensor:
    """Return the mean cross entropy [] of finding for text i, of [B, H], candidate i among [C, H], C >= B, by the cosine.

    `ignored` [B, C]: candidates that are no negatives of a text; its own is never one of them.
    """
    cosine = F.normalize(texts.float(), dim=-1) @ F.normalize(candidates.float(), dim=-1).T / temperature
    if ignored is not None:
        own = torch.eye(*cosine.shape, dtype=torch.bool, device=cosine.device)
        cosine = cosine.masked_fill(ignored & ~own, float("-inf"))
    return F.cross_entropy(cosine, torch.arange(len(texts), device=cosine.device))


def equal_texts(texts: Sequence[Ids], candidates: Sequence[Ids]) -> Tensor:
    """Return where a candidate has the tokens of a text, or of this text's own other view [B, C]."""
    keys, others = ([each.tobytes() for each in side] for side in (texts, candidates))
    return torch.tensor([[other in {key, others[at]} for other in others] for at, key in enumerate(keys)])
