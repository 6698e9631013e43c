"""What a tokenizer itself says of its special tokens. Ids are asked of it: they differ between tokenizers."""

import json
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer

from ...runtime.errors import SetupError
from .encoder_files import TOKENIZER


@dataclass(frozen=True)
class SpecialTokens:
    """Ids of a tokenizer's tokens that are no words of a text."""

    unknown: int | None
    """Stands for a word that is not in the vocabulary; None where there is no such token (byte-level BPE)."""
    unknown_ids: frozenset[int]
    """What a text outside the vocabulary consists of: the unknown token, and single bytes where the model falls back to them."""
    kept: frozenset[int]
    """Never replaced by the unknown token: itself, padding, the mask, and what stands around a text."""


def read_special_tokens(tokenizer: Tokenizer, name: str = TOKENIZER) -> SpecialTokens:
    """Ask a tokenizer for its special tokens. SetupError, which begins with `name`, where it cannot encode every text."""
    around = tokenizer.encode("").ids
    if not around:
        raise SetupError(
            f"{name}: no token stands around a text, so an empty text has none; expected a post-processor that adds some, as "
            "BERT's adds [CLS] and [SEP]"
        )
    model = json.loads(tokenizer.to_str())["model"]
    unknown = _find_unknown(tokenizer, model, name)
    known = set() if unknown is None else {unknown}
    single_bytes = _byte_tokens(tokenizer) if model.get("byte_fallback") else set()
    marked = {number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    return SpecialTokens(unknown, frozenset(known | single_bytes), frozenset(known | marked | set(around)))


def _find_unknown(tokenizer: Tokenizer, model: dict[str, Any], name: str) -> int | None:
    if model["type"] == "Unigram":
        number: int | None = model.get("unk_id")
        if number is None and not model.get("byte_fallback"):
            raise SetupError(f"{name}: a Unigram model without unk_id cannot encode what it does not know")
        return number
    token = model.get("unk_token")
    if token is None:
        return None
    found: int | None = tokenizer.token_to_id(token)
    if found is None:
        raise SetupError(f"{name}: its unknown token {token!r} is not in its vocabulary")
    return found


def _byte_tokens(tokenizer: Tokenizer) -> set[int]:
    found = (tokenizer.token_to_id(f"<0x{byte:02X}>") for byte in range(256))
    return {number for number in found if number is not None}


def refuse_word_dropout(share: float, special: SpecialTokens) -> None:
    """Raise SetupError where words cannot be dropped: there is nothing to put in their place."""
    if share and special.unknown is None:
        raise SetupError(
            f"word_dropout {share:g}: the encoder's tokenizer has no unknown token to read words as; leave word_dropout out, "
            "or take another encoder"
        )
