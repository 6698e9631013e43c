"""Next sentence or next turn: does the second text follow the first one.

Devlin et al. 2019 (BERT, arXiv 1810.04805): half of the pairs are true. A false one is drawn from another document, or, as
Lan et al. 2020 (ALBERT, arXiv 1909.11942) found that topics alone would do, from the same one: a text that does not follow.
Pairs are read as tasks of two texts read them: the tokenizer's own template, the mean of all tokens.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F

from ...recipe.keys.pretraining import NextText as Settings
from ..texts import Document
from .objective import Encode, Objective, mean_state

TRIES: Final = 10
"""Other documents that are looked at for a negative."""


class NextText(Objective):
    """A row is a text that another one follows."""

    def __init__(self, settings: Settings, documents: Sequence[Document], tokenizer: Tokenizer, width: int) -> None:
        """`tokenizer` cuts pairs by its own truncation; `width` is H."""
        super().__init__()
        self.name, self.weight, self.hard_negatives = "next_text", settings.weight, settings.hard_negatives
        self.head = nn.Linear(width, 1)
        self._documents, self._tokenizer = [each for each in documents if len(each) > 1], tokenizer
        self._rows = [(at, place) for at, each in enumerate(self._documents) for place in range(len(each) - 1)]
        self._followers: defaultdict[str, set[str]] = defaultdict(set)
        for row in range(len(self._rows)):
            text, follower = self.true_pair(row)
            self._followers[text] |= {text, follower}
        self.lengths = [len(self._text(at, place)) + len(self._text(at, place + 1)) for at, place in self._rows]

    def loss(self, encode: Encode, rows: Sequence[int], draw: np.random.Generator) -> Tensor:
        follows = draw.random(len(rows)) < 0.5
        pairs = [
            self.true_pair(row) if true else self.false_pair(row, draw) for row, true in zip(rows, follows, strict=True)
        ]
        states, mask = encode([np.array(each.ids, np.int32) for each in self._tokenizer.encode_batch(pairs)])
        logits = self.head(mean_state(states, mask).float()).squeeze(-1)
        return F.binary_cross_entropy_with_logits(logits, torch.from_numpy(follows).to(logits))

    def true_pair(self, row: int) -> tuple[str, str]:
        """Return a row's text and the one that follows."""
        document, place = self._rows[row]
        return self._text(document, place), self._text(document, place + 1)

    def false_pair(self, row: int, draw: np.random.Generator) -> tuple[str, str]:
        """Return a row's text and one that follows it nowhere; the text itself where there is no such one."""
        document, place = self._rows[row]
        text = self._text(document, place)
        own, count = self._documents[document], len(self._documents)
        tries = [own] if draw.random() < self.hard_negatives else []
        if count > 1:
            tries += [self._documents[(document + int(step)) % count] for step in draw.integers(1, count, TRIES)]
        for each in (*tries, own):
            if found := [other.text for other in each if other.text not in self._followers[text]]:
                return text, found[draw.integers(len(found))]
        return text, text

    def place(self, row: int) -> str:
        document, place = self._rows[row]
        return self._documents[document][place].place

    def describe(self) -> str:
        return f"{len(self._rows)} texts that another one follows"

    def _text(self, document: int, place: int) -> str:
        return self._documents[document][place].text
