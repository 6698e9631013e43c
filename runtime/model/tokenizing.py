"""Texts to tokens, a chunk at a time, within the model's limit and in time bounded by it."""

import os
from collections.abc import Sequence
from typing import Final

from tokenizers import Encoding, Tokenizer

from ...schemas.manifest import ModelManifest
from ..errors import ModelRefused

# The library reads all of a text before it cuts the tokens: 2.5 s for a megabyte of which 128 tokens are kept. So a long
# text is first tried on its beginning, so many characters per token; and if that does not fill the limit (long runs of
# blanks, words without end), on one so many times as long. Nothing behind that is read: text has 4 to 6 characters a token.
_CHARACTERS_PER_TOKEN: Final = 24
_LEAST_CHARACTERS: Final = 256
_SECOND_TRY: Final = 8


class Encoded:
    """A tokenised text: `ids` with the special tokens, how many, and whether the text was cut to the model's limit."""

    __slots__ = ("encoding", "ids", "tokens", "truncated")

    def __init__(self, encoding: Encoding, truncated: bool) -> None:
        self.encoding = encoding
        self.ids: list[int] = encoding.ids
        self.tokens = len(self.ids)
        self.truncated = truncated


class TextEncoder:
    """A tokenizer set to a model's limits: no padding, texts cut to `max_tokens`. May be used from any thread."""

    def __init__(self, tokenizer: Tokenizer, max_tokens: int, *, offsets: bool = True) -> None:
        """Without `offsets` encodings do not say where in the text a token stands, which takes a sixth less time."""
        tokenizer.no_padding()
        tokenizer.enable_truncation(max_length=max_tokens)
        self._tokenizer, self._limit = tokenizer, max_tokens
        self._long = max_tokens * _CHARACTERS_PER_TOKEN + _LEAST_CHARACTERS
        self._longest = self._long * _SECOND_TRY
        self._encode_batch = tokenizer.encode_batch if offsets else tokenizer.encode_batch_fast

    def __call__(self, texts: Sequence[str]) -> list[Encoded]:
        """Tokenise a chunk at once; the GIL is free meanwhile. ValueError names the index of a text with a surrogate.

        At most 192 characters for each token of the limit, and 2,048 more, are read of a text. One that goes on behind
        that is `truncated`, however few tokens its beginning gave.
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
        # `overflowing` copies everything that was cut off, so it is only asked where something can have been.
        encoded = [Encoded(e, len(e) == limit and bool(e.overflowing)) for e in encodings]
        if not long:
            return encoded
        rest = iter(encoded)
        return [long[row] if row in long else next(rest) for row in range(len(texts))]

    def _encode_long(self, row: int, text: str) -> Encoded:
        """Tokenise the beginning of a text, and more of it where that did not fill the limit."""
        _refuse_surrogate(row, text)
        for size in (self._long, self._longest):
            encoding = self._tokenizer.encode_batch([text[:size]])[0]
            if _is_settled(encoding) or size >= len(text):
                return Encoded(encoding, bool(encoding.overflowing))
        return Encoded(encoding, truncated=True)


def _is_settled(encoding: Encoding) -> bool:
    """Whether the kept tokens would be the same if the text went on: another word has begun behind their last one."""
    last = max((word for word in encoding.word_ids if word is not None), default=None)
    if last is None or not encoding.overflowing:
        return False
    return any(word is not None and word > last for word in encoding.overflowing[-1].word_ids)


def _refuse_surrogate(index: int, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"text {index} holds a lone surrogate, which is no character") from None


def read_tokenizer(manifest: ModelManifest, data: bytes) -> Tokenizer:
    """Read `tokenizer.json`; ModelRefused when it is none or does not go with the manifest's encoder."""
    # One tokeniser thread per process is the design; a pool of the library's own would take the cores of inference.
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
