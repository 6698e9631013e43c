"""Tokenises texts in chunks, up to the model's limit and in time bounded by it."""

import os
from collections.abc import Iterator, Sequence
from typing import Final

from tokenizers import Encoding, Tokenizer

from ....schemas.manifest import ModelManifest, WordRule
from ...errors import ModelRefused
from .long_texts import drop_older_lines
from .words import align_words

# The library tokenises a whole text before it truncates: 2.5 s for a megabyte of which 128 tokens are kept. So only the
# beginning of a long text is tokenised first, by this number of characters per token; if that does not fill the limit (long
# runs of blanks, very long words), a beginning that is `_SECOND_TRY` times as long. Text has 4 to 6 characters per token.
_CHARACTERS_PER_TOKEN: Final = 24
_LEAST_CHARACTERS: Final = 256
_SECOND_TRY: Final = 8


class Encoded:
    """A tokenised text: `ids` with the special tokens, their number, and whether the text was truncated to the limit.

    `cut`: whether more than whole turns is missing (see `encode_turns`).
    """

    __slots__ = ("cut", "encoding", "ids", "tokens", "truncated")

    def __init__(self, encoding: Encoding, truncated: bool, cut: bool | None = None) -> None:
        """`cut`: by default as `truncated`."""
        self.encoding = encoding
        self.cut = truncated if cut is None else cut
        self.ids: list[int] = encoding.ids
        self.tokens = len(self.ids)
        self.truncated = truncated

    @property
    def rows(self) -> tuple["Encoded", ...]:
        """The rows of a batch that it takes: itself."""
        return (self,)


class TextEncoder:
    """A tokenizer with a model's limits: no padding, texts truncated to `max_tokens`. May be used from any thread."""

    def __init__(self, tokenizer: Tokenizer, max_tokens: int, *, offsets: bool = True) -> None:
        """Without `offsets` encodings have no offsets of tokens in the text, which takes a sixth less time."""
        tokenizer.no_padding()
        tokenizer.enable_truncation(max_length=max_tokens)
        self._tokenizer, self._limit = tokenizer, max_tokens
        self._long = max_tokens * _CHARACTERS_PER_TOKEN + _LEAST_CHARACTERS
        self._longest = self._long * _SECOND_TRY
        self._encode_batch = tokenizer.encode_batch if offsets else tokenizer.encode_batch_fast

    def __call__(self, texts: Sequence[str]) -> list[Encoded]:
        """Tokenise a chunk; the GIL is released meanwhile. Raises ValueError with the index of a text with a surrogate.

        At most 192 characters per token of the limit, plus 2,048, are read of a text. A longer text is `truncated`, even if
        its beginning has few tokens.
        """
        limit, longest = self._limit, self._long
        long = {row: self._encode_long(row, text) for row, text in enumerate(texts) if len(text) > longest}
        short = [text for text in texts if len(text) <= longest] if long else list(texts)
        try:
            encodings: list[Encoding] = self._encode_batch(short)
        except TypeError:
            for row, text in enumerate(texts):
                _refuse_surrogate(row, text)
            raise
        # `overflowing` copies all truncated tokens, so it is read only where the limit is reached.
        encoded = [Encoded(e, len(e) == limit and bool(e.overflowing)) for e in encodings]
        if not long:
            return encoded
        rest = iter(encoded)
        return [long[row] if row in long else next(rest) for row in range(len(texts))]

    def encode_turns(self, pairs: Sequence[tuple[str, str]]) -> list[Encoded]:
        """Tokenise two texts like `encode_pairs`, the second one of a turn a line: older turns are dropped before one is cut."""
        return [
            self._drop_older_turns(*pair) if encoded.truncated else encoded
            for pair, encoded in zip(pairs, self.encode_pairs(pairs), strict=True)
        ]

    def _drop_older_turns(self, text: str, turns: str) -> Encoded:
        kept = drop_older_lines(turns, lambda rest: not self.encode_pairs([(text, rest)])[0].truncated)
        (encoded,) = self.encode_pairs([(text, kept)])
        return Encoded(encoded.encoding, truncated=True, cut=encoded.truncated)

    def encode_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[Encoded]:
        """Tokenise each two texts together, by the tokenizer's template; the longer one is cut first, to the model's limit.

        At most as many characters of each text are read as of a text alone. Raises ValueError for a surrogate.
        """
        cut = [tuple(self._beginning(row, text) for text in pair) for row, pair in enumerate(pairs)]
        shorter = [one != other for one, other in zip(cut, pairs, strict=True)]
        return [
            Encoded(encoding, less or bool(encoding.overflowing))
            for encoding, less in zip(self._encode_batch(cut), shorter, strict=True)
        ]

    def _beginning(self, row: int, text: str) -> str:
        """Return as much of a text as can hold the tokens that are kept."""
        _refuse_surrogate(row, text)
        for size in (self._long, self._longest):
            if len(text) <= size or _is_settled(self._tokenizer.encode_batch([text[:size]])[0]):
                return text[:size]
        return text[: self._longest]

    def _encode_long(self, row: int, text: str) -> Encoded:
        """Tokenise the beginning of a text, and a longer one if that does not fill the limit."""
        _refuse_surrogate(row, text)
        for size in (self._long, self._longest):
            encoding = self._tokenizer.encode_batch([text[:size]])[0]
            if _is_settled(encoding) or size >= len(text):
                return Encoded(encoding, bool(encoding.overflowing))
        return Encoded(encoding, truncated=True)


def refuse_without_template(tokenizer: Tokenizer) -> None:
    """Raise ValueError for a tokenizer that puts nothing between two texts."""
    if tokenizer.num_special_tokens_to_add(True) <= tokenizer.num_special_tokens_to_add(False):
        raise ValueError("the tokenizer has no template for two texts: it would put nothing between them")


def _is_settled(encoding: Encoding) -> bool:
    """Return whether more text cannot change the kept tokens: another word starts after their last one."""
    last = max((word for word in encoding.word_ids if word is not None), default=None)
    if last is None or not encoding.overflowing:
        return False
    return any(word is not None and word > last for word in encoding.overflowing[-1].word_ids)


def _refuse_surrogate(index: int, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"text {index} has a lone surrogate, which is not a character") from None


def read_words(rule: WordRule, text: str, encoding: Encoding) -> list[tuple[int, int, int]]:
    """Return (index of the first sub-token, start, end) of each word in code points, by a task's word rule."""
    return align_words(text, encoding.offsets) if rule == "text" else list(word_spans(encoding))


def word_spans(encoding: Encoding) -> Iterator[tuple[int, int, int]]:
    """Yield (index of the first sub-token, start, end) of each of the tokenizer's words, in code points.

    Words are those of the pre-tokenizer (for BERT split at whitespace and punctuation): the word rule `tokenizer`.
    """
    offsets = encoding.offsets
    first = current = None
    end = 0
    for i, word in enumerate(encoding.word_ids):
        if word != current:
            if first is not None:
                yield first, offsets[first][0], end
            first, current = (None if word is None else i), word
        if word is not None:
            end = offsets[i][1]
    if first is not None:
        yield first, offsets[first][0], end


def read_tokenizer(manifest: ModelManifest, data: bytes) -> Tokenizer:
    """Read `tokenizer.json`. Raises ModelRefused when it is unreadable or does not fit the manifest's encoder."""
    # The process has one tokeniser thread; a thread pool of the library would take cores from inference.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    encoder, limit = manifest.encoder, manifest.limits.max_tokens
    if limit > encoder.max_positions:
        raise ModelRefused(
            f"model {manifest.name}: limits.max_tokens {limit} is more than the encoder's {encoder.max_positions} positions"
        )
    try:
        tokenizer = Tokenizer.from_buffer(data)
    except Exception as error:  # the library raises bare Exception
        raise ModelRefused(f"model {manifest.name}: tokenizer.json cannot be read: {str(error)[:200]}") from error
    if tokenizer.get_vocab_size() > encoder.vocab_size:
        raise ModelRefused(
            f"model {manifest.name}: the tokenizer has {tokenizer.get_vocab_size()} tokens, the encoder "
            f"{encoder.vocab_size}; they do not belong together"
        )
    return tokenizer
