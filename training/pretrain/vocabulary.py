"""A vocabulary that gets words of the texts which it splits into many pieces; the vector of each begins as the mean of its pieces'.

The mean as Gee et al. 2022 take it (Fast Vocabulary Transfer, EMNLP industry track).
"""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

import numpy as np
from tokenizers import Tokenizer

from ...runtime.errors import SetupError
from ..model.encoder_files import plain_tokenizer
from ..model.encoders import Checkpoint
from ..model.special_tokens import read_special_tokens
from ..recipe.keys.pretraining import NewWords

WORDS: Final = "embeddings.word_embeddings.weight"


def extend_vocabulary(checkpoint: Checkpoint, texts: Iterable[str], rule: NewWords) -> tuple[Checkpoint, list[str]]:
    """Return a checkpoint that has the new words, and these words. SetupError for a tokenizer that is no WordPiece."""
    words = find_new_words(checkpoint.tokenizer, texts, rule)
    if not words:
        return checkpoint, []
    pieces = [_ids(checkpoint.tokenizer, word) for word in words]
    tokenizer = add_words(checkpoint.tokenizer, words)
    table = checkpoint.weights[WORDS]
    rows = np.stack([table[ids].mean(0) for ids in pieces])
    weights = {**checkpoint.weights, WORDS: np.concatenate([table, rows.astype(table.dtype)])}
    spec = checkpoint.spec.model_copy(update={"vocab_size": len(table) + len(words)})
    special = read_special_tokens(tokenizer)
    return replace(checkpoint, spec=spec, weights=weights, tokenizer=tokenizer, special=special), words


def find_new_words(tokenizer: Tokenizer, texts: Iterable[str], rule: NewWords) -> list[str]:
    """Return the words that save the most pieces: how often they occur times the pieces less one. Numbers are none."""
    if json.loads(tokenizer.to_str())["model"]["type"] != "WordPiece":
        raise SetupError(
            "new_words: the encoder's tokenizer is no WordPiece; leave new_words out, or take another encoder"
        )
    counts: Counter[str] = Counter()
    for text in texts:
        normal = tokenizer.normalizer.normalize_str(text) if tokenizer.normalizer else text
        counts.update(word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normal))
    unknown = read_special_tokens(tokenizer).unknown
    saved: dict[str, int] = {}
    for word, count in counts.items():
        if count >= rule.least_count and any(map(str.isalpha, word)):
            ids = _ids(tokenizer, word)
            if len(ids) >= rule.least_pieces or unknown in ids:
                saved[word] = count * max(1, len(ids) - 1)
    return sorted(saved, key=lambda word: (-saved[word], word))[: rule.most]


def add_words(tokenizer: Tokenizer, words: Iterable[str]) -> Tokenizer:
    """Return a tokenizer whose WordPiece model has the words behind its own: the ids of all others stay."""
    document = json.loads(tokenizer.to_str())
    vocabulary = document["model"]["vocab"]
    first = tokenizer.get_vocab_size()
    vocabulary.update({word: first + at for at, word in enumerate(words)})
    return plain_tokenizer(Tokenizer.from_str(json.dumps(document)))


def _ids(tokenizer: Tokenizer, word: str) -> list[int]:
    return [token.id for token in tokenizer.model.tokenize(word)]
