"""Texts become token ids and targets, some at a time, and what the tokenizer cannot do with them is counted."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from ....runtime.model.inputs import Input, TextPair
from ....runtime.model.texts.long_texts import drop_older_lines
from ...data.example import Example
from ...kinds.kind import Kind
from ...prepare.data_report import TokenReport
from .pooled_texts import PooledTexts
from .soft_targets import Held, TaughtRows

CHUNK: Final = 1000
"""Texts whose encodings are held at once: an encoding takes some hundred times the memory of its ids."""
MOSTLY: Final = 1 / 3
"""From this share of unknown tokens on a text is called mostly unknown: a third of the words is what a reader misses."""


@dataclass(frozen=True)
class Part:
    """Encoded examples: ids with special tokens, and what each should be answered."""

    ids: list[NDArray[np.int32]]
    targets: list[NDArray[Any]]
    held: dict[int, Held] = field(default_factory=dict)
    """By row: what the model answered when it began, for rows that are learned from that."""
    guessed: dict[int, Held] = field(default_factory=dict)
    """By row: the guess that self-training learns."""
    taught: TaughtRows | None = None
    """What a teacher answers, which is learned beside the targets."""
    pooled: PooledTexts | None = None
    """The rows as a frozen encoder pools them, where that is all that the head reads."""

    @cached_property
    def lengths(self) -> list[int]:
        """Tokens of each text."""
        return [len(ids) for ids in self.ids]


def encode(texts: Sequence[Input], tokenizer: Tokenizer) -> Iterator[Encoding]:
    """Tokenise as serving does (the tokenizer's truncation is set by the caller), a chunk at a time."""
    for start in range(0, len(texts), CHUNK):
        chunk = texts[start : start + CHUNK]
        yield from tokenizer.encode_batch([each if isinstance(each, str) else each[:2] for each in chunk])


def encode_turns(texts: Sequence[Input], tokenizer: Tokenizer) -> Iterator[Encoding]:
    """Tokenise acts and turns as serving does: older turns are dropped before one is cut."""
    for given, encoding in zip(texts, encode(texts, tokenizer), strict=True):
        if isinstance(given, TextPair) and encoding.overflowing:
            yield _drop_older_turns(given, tokenizer)
        else:
            yield encoding


def _drop_older_turns(given: TextPair, tokenizer: Tokenizer) -> Encoding:
    kept = drop_older_lines(given.second, lambda rest: not tokenizer.encode(given.text, rest).overflowing)
    return tokenizer.encode(given.text, kept)


def encode_ids(texts: Sequence[Input], tokenizer: Tokenizer) -> list[NDArray[np.int32]]:
    """Return the token ids of each text."""
    return [np.array(encoding.ids, np.int32) for encoding in encode(texts, tokenizer)]


def encode_part(examples: Sequence[Example], kind: Kind, labels: Sequence[str], tokenizer: Tokenizer) -> Part:
    """Encode examples with their targets."""
    part = Part([], [])
    tokenise = encode_turns if kind.generates else encode
    encodings = tokenise([example.given for example in examples], tokenizer)
    for encoding, target in kind.targets(examples, encodings, labels, tokenizer):
        part.ids.append(np.array(encoding.ids, np.int32))
        part.targets.append(target)
    return part


def number_texts(parts: Sequence[Part]) -> list[list[int]]:
    """Return a number for each row of each part: the same for texts of equal ids in other parts, the first with the first, the
    second with the second of a part that has them more than once.
    """
    found = []
    for part in parts:
        times = Counter[bytes]()
        numbers = []
        for ids in part.ids:
            text = ids.tobytes()
            numbers.append(int.from_bytes(blake2b(text, digest_size=8, salt=times[text].to_bytes(8)).digest()))
            times[text] += 1
        found.append(numbers)
    return found


def count_tokens(texts: Sequence[Input], tokenizer: Tokenizer, unknown_ids: frozenset[int]) -> TokenReport:
    """Count what the tokenizer, with its truncation, makes of the texts."""
    limit = (tokenizer.truncation or {}).get("max_length")
    around_text, around_pair = len(tokenizer.encode("").ids), len(tokenizer.encode("", "").ids)
    empty = cut = all_tokens = all_unknown = mostly = 0
    for given, encoding in zip(texts, encode(texts, tokenizer), strict=True):
        ids, around = encoding.ids, around_text if isinstance(given, str) else around_pair
        tokens, unknown = len(ids) - around, sum(token in unknown_ids for token in ids)
        empty += tokens == 0
        cut += len(ids) == limit and bool(encoding.overflowing)
        all_tokens += tokens
        all_unknown += unknown
        mostly += unknown > MOSTLY * tokens
    shares = (all_unknown / max(1, all_tokens), mostly / max(1, len(texts)))
    unknown_share, mostly_share = (round(share, 4) if unknown_ids else None for share in shares)
    return TokenReport(empty=empty, cut=cut, unknown=unknown_share, mostly_unknown=mostly_share)
