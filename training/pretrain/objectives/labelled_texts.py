"""Labelled texts: texts of one label lie near each other, far from those of other labels.

Supervised contrastive learning, Khosla et al. 2020 (arXiv 2004.11362), L_out; of sentences before a logistic regression as in
SetFit (Tunstall et al. 2022, arXiv 2209.11055), which learns pairs one by one. Each row brings another one of its label, drawn anew.
"""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ...recipe.keys.pretraining import LabelledTexts as Settings
from .objective import Encode, Ids, Objective, mean_state

TOGETHER: Final = 16
"""So many texts of like length are padded together: partners that are drawn differ in length."""


class LabelledTexts(Objective):
    """`tasks` and `labels` are those of each text: texts of different tasks say nothing of each other."""

    def __init__(
        self,
        settings: Settings,
        texts: Sequence[Ids],
        tasks: Sequence[int],
        labels: Sequence[Hashable],
        places: Sequence[str],
    ) -> None:
        super().__init__()
        self.name, self.weight, self.temperature = "labelled_texts", settings.weight, settings.temperature
        self._texts, self._places = texts, places
        numbers: dict[Hashable, int] = {}
        self._labels = np.array([numbers.setdefault(key, len(numbers)) for key in zip(tasks, labels, strict=True)])
        self._tasks = np.array(tasks)
        self._rows: dict[int, list[int]] = defaultdict(list)
        for row, label in enumerate(self._labels):
            self._rows[int(label)].append(row)
        self.lengths = [len(text) for text in texts]

    def loss(self, encode: Encode, rows: Sequence[int], draw: np.random.Generator) -> Tensor:
        chosen = [*rows, *(self._partner(row, draw) for row in rows)]
        vectors = self._encode(encode, chosen)
        labels, tasks = torch.from_numpy(self._labels[chosen]), torch.from_numpy(self._tasks[chosen])
        alike = (tasks[:, None] == tasks[None]).to(vectors.device)
        return contrast_labels(vectors, labels.to(vectors.device), self.temperature, alike)

    def _partner(self, row: int, draw: np.random.Generator) -> int:
        """Return another row of the label; of a label with one row the row itself, which is read under another dropout."""
        others = [each for each in self._rows[int(self._labels[row])] if each != row]
        return others[draw.integers(len(others))] if others else row

    def _encode(self, encode: Encode, rows: Sequence[int]) -> Tensor:
        order = sorted(range(len(rows)), key=lambda at: self.lengths[rows[at]])
        parts = [order[first : first + TOGETHER] for first in range(0, len(order), TOGETHER)]
        vectors = torch.cat([mean_state(*encode([self._texts[rows[at]] for at in part])) for part in parts])
        return vectors[torch.from_numpy(np.argsort(order)).to(vectors.device)]

    def place(self, row: int) -> str:
        return self._places[row]

    def describe(self) -> str:
        return f"{len(self._texts)} texts of {len(self._rows)} labels"


def contrast_labels(vectors: Tensor, labels: Tensor, temperature: float, compared: Tensor) -> Tensor:
    """Return the mean over texts [] of -log p(text of the same label), by the cosine of vectors [B, H] over `temperature`.

    labels [B]; p is among the other texts that `compared` [B, B] names. A text without another one of its label counts nothing.
    """
    cosine = F.normalize(vectors.float(), dim=-1)
    own = torch.eye(len(vectors), dtype=torch.bool, device=vectors.device)
    among = compared & ~own
    share = torch.log_softmax((cosine @ cosine.T / temperature).masked_fill(~among, float("-inf")), -1)
    same = (labels[:, None] == labels[None]) & among
    counts = same.sum(1)
    found = -(share.masked_fill(~same, 0.0).sum(1) / counts.clamp_min(1))
    return found[counts > 0].mean() if bool((counts > 0).any()) else vectors.sum() * 0.0
