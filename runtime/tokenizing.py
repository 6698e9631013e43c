"""Texts to tokens, a chunk at a time, within the model's limit and in time bounded by it."""

import os
from collections.abc import Sequence
from typing import Final

from tokenizers import Encoding, Tokenizer

from ..schemas.manifest import ModelManifest
from .errors import ModelRefused

# The library reads all of a text before it cuts the tokens: 2.5 s for a megabyte of which 128 tokens are kept. So a long
# text is first tried on its beginning, so many characters per token.
_CHARACTERS_PER_TOKEN: Final = 24
_LEAST_CHARACTERS: Final = 256


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

    def __init__(self, tokenizer: Tokenizer, max_tokens: int) -> None:
        tokenizer.no_padding()
        tokenizer.enable_truncation(max_length=max_tokens)
        self._tokenizer, self._limit = tokenizer, max_tokens
        self._long = max_tokens * _CHARACTERS_PER_TOKEN + _LEAST_CHARACTERS

    def __call__(self, texts: Sequence[str]) -> list[Encoded]:
        """Tokenise a chunk at once; the GIL is free meanwhile. ValueError names the index of a text with a surrogate."""
        encodings = self._encode_chunk(texts)
        limit = self._limit
        # `overflowing` copies everything that was cut off, so it is only asked where something can have been.
        return [Encoded(e, len(e) == limit and bool(e.overflowing)) for e in encodings]

    def _encode_chunk(self, texts: Sequence[str]) -> list[Encoding]:
        long = [i for i, text in enumerate(texts) if len(text) > self._long]
        chunk = list(texts)
        for i in long:
            _refuse_surrogate(i, texts[i])
            chunk[i] = texts[i][: self._long]
        try:
            encodings: list[Encoding] = self._tokenizer.encode_batch(chunk)
        except TypeError:
            for i, text in enumerate(chunk):
                _refuse_surrogate(i, text)
            raise
        for i in long:
            if not _is_settled(encodings[i]):
                encodings[i] = self._encode_long(texts[i])
        return encodings

    def _encode_long(self, text: str) -> Encoding:
        """Tokenise a text whose beginning did not fill the limit (long runs of blanks, words without end)."""
        size = self._long
        while size < len(text):
            size *= 8
            encoding = self._tokenizer.encode_batch([text[:size]])[0]
            if size < len(text) and _is_settled(encoding):
                return encoding
        return encoding


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
