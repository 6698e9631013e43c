"""Tokenises what tasks read: texts, texts in windows, and pairs of texts."""

from collections.abc import Callable, Sequence
from typing import Any, cast

from ...schemas.manifest import ModelManifest
from ...schemas.serving_event import RejectReason
from ..errors import ModelRefused
from .batch_rows import TextAndPair, Tokenised
from .inputs import Input, TextPair, first_text
from .texts.long_texts import Windows
from .texts.tokenizing import Encoded, TextEncoder, refuse_without_template
from .texts.windows import WindowedText, WindowEncoder


class InputEncoder:
    """Tokenises chunks of inputs for one model. Blocks, and may be called from any thread."""

    def __init__(
        self, tokenizer: Any, manifest: ModelManifest, *, offsets: bool, reads_pairs: bool, reads_turns: bool
    ) -> None:
        """`offsets`: whether a task reads tokens. `reads_turns`: only tasks that generate read two texts, and lines of the
        second one are dropped before one is cut. Raises ModelRefused for a tokenizer that has no template for two texts.
        """
        if reads_pairs:
            _check_pair_template(manifest, tokenizer)
        self._reads_pairs = reads_pairs
        self._encode = TextEncoder(tokenizer, manifest.limits.max_tokens, offsets=offsets)
        pairs: Callable[[Sequence[tuple[str, str]]], Sequence[Encoded]] = self._encode.encode_pairs
        self._encode_pairs = self._encode.encode_turns if reads_turns else pairs
        self._encode_windows = WindowEncoder(tokenizer, manifest.limits.max_tokens)

    def encode(self, given: Sequence[Input], windows: Sequence[Windows | None] | None = None) -> Sequence[Tokenised]:
        """Return the inputs tokenised, in order; with `windows` a single text above the limit is split into them."""
        if self._reads_pairs:
            return self._encode_inputs(given, windows)
        texts = cast(Sequence[str], given)
        return self._encode(texts) if windows is None else self._encode_in_windows(texts, windows)

    def _encode_in_windows(
        self, texts: Sequence[str], windows: Sequence[Windows | None]
    ) -> list[Encoded | WindowedText]:
        return [
            self._encode_windows(text, how) if how is not None and encoded.truncated else encoded
            for text, encoded, how in zip(texts, self._encode(texts), windows, strict=True)
        ]

    def _encode_inputs(self, given: Sequence[Input], windows: Sequence[Windows | None] | None) -> list[Tokenised]:
        pairs = {row: (each.text, each.second) for row, each in enumerate(given) if isinstance(each, TextPair)}
        alone = [row for row, each in enumerate(given) if isinstance(each, str) or each.alone]
        texts = [first_text(given[row]) for row in alone]
        encoded = (
            self._encode(texts) if windows is None else self._encode_in_windows(texts, [windows[r] for r in alone])
        )
        singles: dict[int, Encoded | WindowedText] = dict(zip(alone, encoded, strict=True))
        found: dict[int, Tokenised] = {**singles}
        for row, pair in zip(pairs, self._encode_pairs([*pairs.values()]), strict=True):
            text = singles.get(row)
            found[row] = pair if text is None else TextAndPair(text, pair)
        return [found[row] for row in range(len(given))]


def _check_pair_template(manifest: ModelManifest, tokenizer: Any) -> None:
    try:
        refuse_without_template(tokenizer)
    except ValueError as error:
        raise ModelRefused(f"model {manifest.name}: {error}", RejectReason.WRONG_SHAPE) from error
