"""Masked words: find tokens that were taken away from what stands around them.

Devlin et al. 2019 (BERT, arXiv 1810.04805): 15 % of the tokens, of which 80 % become the mask, 10 % another token, and 10 %
stay. Cui et al. 2019 (arXiv 1906.08101): the pieces of a word are taken together. Liu et al. 2019 (RoBERTa, arXiv
1907.11692): drawn anew each time a text is read. A word is what the tokenizer's pre-tokenizer makes one; BERT's makes each
Chinese character one, where Cui et al. cut words.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from ...recipe.keys.pretraining import MaskedWords as Settings
from ..encoded import NO_WORD, EncodedText
from .objective import Encode, Ids, Objective

if TYPE_CHECKING:
    from transformers import BertConfig
    from transformers.models.bert.modeling_bert import BertLMPredictionHead

MASKED: Final = 0.8
REPLACED: Final = 0.1
Chosen = NDArray[np.bool_]


class MaskedWords(Objective):
    """The head is transformers' own of BERT, its decoder the encoder's word table."""

    def __init__(
        self,
        settings: Settings,
        texts: Sequence[EncodedText],
        places: Sequence[str],
        *,
        config: "BertConfig",
        table: nn.Parameter,
        mask_id: int,
        words: NDArray[np.int32],
    ) -> None:
        """`table` are the vectors of the encoder's words, `words` the ids that may stand in for others [N]."""
        super().__init__()
        self.name, self.weight, self.share = "masked_words", settings.weight, settings.share
        self.head = make_masked_head(config, table)
        self._texts, self._places = texts, places
        self._mask_id, self._words = mask_id, words
        self.lengths = [len(text.ids) for text in texts]

    def loss(self, encode: Encode, rows: Sequence[int], draw: np.random.Generator) -> Tensor:
        texts = [self._texts[row] for row in rows]
        chosen = [choose_words(text.words, self.share, draw) for text in texts]
        shown = [
            hide(text.ids, taken, self._mask_id, self._words, draw) for text, taken in zip(texts, chosen, strict=True)
        ]
        states, _ = encode(shown)
        at = _padded(chosen, states.shape[1]).to(states.device)
        wanted = torch.from_numpy(
            np.concatenate([t.ids[c] for t, c in zip(texts, chosen, strict=True)]).astype(np.int64)
        )
        if not len(wanted):  # texts of unknown words only
            return states.sum() * 0.0
        logits = self.head(states[at])
        return F.cross_entropy(logits.float(), wanted.to(states.device))

    def place(self, row: int) -> str:
        return self._places[row]

    def describe(self) -> str:
        return f"{len(self._texts)} texts"


def make_masked_head(config: "BertConfig", table: nn.Parameter) -> "BertLMPredictionHead":
    """Return an untrained head whose decoder is `table` [V, H], the very parameter."""
    from transformers.models.bert.modeling_bert import BertLMPredictionHead  # noqa: PLC0415  (takes seconds)

    head = BertLMPredictionHead(config)
    nn.init.normal_(head.transform.dense.weight, std=config.initializer_range)
    nn.init.zeros_(head.transform.dense.bias)
    head.decoder.weight, head.decoder.bias = table, head.bias
    return head


def choose_words(words: NDArray[np.int32], share: float, draw: np.random.Generator) -> Chosen:
    """Choose whole words by chance until they are `share` of the text's tokens, at least one; True for their tokens [S]."""
    numbers = np.unique(words[words != NO_WORD])
    left = max(1, round(share * int((words != NO_WORD).sum())))
    chosen = np.zeros(len(words), bool)
    for number in draw.permutation(numbers):
        own = words == number
        size = int(own.sum())
        if size <= left:
            chosen |= own
            left -= size
        if not left:
            break
    if not chosen.any() and len(numbers):  # every word has more pieces than are to be chosen
        chosen = words == draw.choice(numbers)
    return chosen


def hide(ids: Ids, chosen: Chosen, mask_id: int, words: NDArray[np.int32], draw: np.random.Generator) -> Ids:
    """Return the ids with each chosen token masked, replaced by one of `words`, or as it was."""
    chance = draw.random(len(ids))
    others = draw.choice(words, len(ids))
    shown = np.where(chosen & (chance < MASKED), mask_id, ids)
    return np.where(chosen & (chance >= MASKED) & (chance < MASKED + REPLACED), others, shown).astype(ids.dtype)


def _padded(chosen: Sequence[Chosen], width: int) -> Tensor:
    made = np.zeros((len(chosen), width), bool)
    for at, each in enumerate(chosen):
        made[at, : len(each)] = each
    return torch.from_numpy(made)
