"""Texts as token ids with the number of the word that each token belongs to."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from ..model.special_tokens import SpecialTokens

NO_WORD: Final = -1
CHUNK: Final = 1000
"""Texts whose encodings are held at once: an encoding takes some hundred times the memory of its ids."""


@dataclass(frozen=True, slots=True)
class EncodedText:
    """Both arrays [S]; the word of special and unknown tokens is NO_WORD."""

    ids: NDArray[np.int32]
    words: NDArray[np.int32]


def encode_texts(texts: Sequence[str], tokenizer: Tokenizer, special: SpecialTokens) -> list[EncodedText]:
    """Encode with the truncation that the tokenizer has."""
    found: list[EncodedText] = []
    for start in range(0, len(texts), CHUNK):
        found += [_encoded(each, special) for each in tokenizer.encode_batch(list(texts[start : start + CHUNK]))]
    return found


def _encoded(encoding: Encoding, special: SpecialTokens) -> EncodedText:
    numbers: list[Any] = encoding.word_ids
    words = [
        NO_WORD if word is None or token in special.kept else word
        for word, token in zip(numbers, encoding.ids, strict=True)
    ]
    return EncodedText(np.array(encoding.ids, np.int32), np.array(words, np.int32))
