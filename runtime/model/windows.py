"""Long texts in overlapping windows: how they are cut, and how the answers of windows become the answer of the text.

A window is what the model reads at once. One forward pass answers all windows of a text together with other texts, and
an answer does not depend on its neighbours, so the windows of a text may be run in any batch.
"""

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding, Tokenizer

from .long_texts import Merge, Windows
from .tokenizing import Encoded

Floats = npt.NDArray[np.floating[Any]]
Output = dict[str, Any]

# As in `tokenizing`: so many characters a token are read before the rest of a text is left out.
_CHARACTERS_PER_TOKEN: Final = 24
_LEAST_SCORE: Final = 1e-12


class WindowedText:
    """A text in windows. `tokens` counts those of all windows: that is what it costs."""

    __slots__ = ("merge", "tokens", "truncated", "windows")

    def __init__(self, windows: tuple[Encoded, ...], truncated: bool, merge: Merge) -> None:
        self.windows = windows
        self.tokens = sum(window.tokens for window in windows)
        self.truncated = truncated
        self.merge = merge


class WindowEncoder:
    """Cuts texts that are longer than the model's limit. Any thread; a tokenizer of its own for each size and overlap."""

    def __init__(self, tokenizer: Tokenizer, max_tokens: int) -> None:
        self._tokenizer, self._limit = tokenizer, max_tokens
        self._special = tokenizer.num_special_tokens_to_add(False)
        self._cutters: dict[tuple[int, int], Tokenizer] = {}

    def __call__(self, text: str, windows: Windows) -> WindowedText:
        """Tokenise one long text; ValueError for a text with a lone surrogate."""
        tokens = max(min(windows.tokens or self._limit, self._limit), self._special + 1)
        room = tokens - self._special
        overlap = min(tokens // 4 if windows.overlap is None else windows.overlap, room // 2)
        # Reading one window more than are kept tells whether something was left out.
        longest = (windows.most + 1) * room * _CHARACTERS_PER_TOKEN
        encoding: Encoding = self._cutter(tokens, overlap).encode_batch([text[:longest]])[0]
        parts = [encoding, *encoding.overflowing]
        truncated = len(text) > longest or len(parts) > windows.most
        return WindowedText(tuple(Encoded(part, False) for part in parts[: windows.most]), truncated, windows.merge)

    def _cutter(self, tokens: int, overlap: int) -> Tokenizer:
        found = self._cutters.get((tokens, overlap))
        if found is None:
            found = Tokenizer.from_str(self._tokenizer.to_str())
            found.no_padding()
            found.enable_truncation(max_length=tokens, stride=overlap)
            self._cutters[tokens, overlap] = found
        return found


def merge_labels(scores: Floats, merge: Merge, out_of_scope: int | None = None) -> Floats:
    """Return one row [C] of probabilities for the rows [W, C] of a text's windows.

    `mean` averages. `max` takes each label's highest score and divides by the sum, so that one window that is sure
    outweighs any number that hold nothing; a text is out of scope only as far as each of its windows is, so that label
    takes its lowest score.
    """
    if merge == "mean":
        return np.asarray(scores.mean(axis=0))
    merged = scores.max(axis=0)
    if out_of_scope is not None:
        merged[out_of_scope] = scores[:, out_of_scope].min()
    return np.asarray(merged / merged.sum())


def as_logits(scores: Floats, temperature: float) -> Floats:
    """Return logits whose softmax at `temperature` gives `scores`."""
    return np.asarray(np.log(np.maximum(scores, _LEAST_SCORE)) * temperature)


def as_binary_logits(scores: Floats, temperature: float) -> Floats:
    """Return logits whose sigmoid at `temperature` gives `scores`."""
    bounded = np.clip(scores, _LEAST_SCORE, 1.0 - _LEAST_SCORE)
    return np.asarray((np.log(bounded) - np.log1p(-bounded)) * temperature)


def merge_spans(found: Sequence[Sequence[Output]], windows: Sequence[Encoding]) -> list[Output]:
    """Return the spans of a text from those of its windows, each from the window where it lies farthest from an edge.

    `found[w]` are the spans of window w, with offsets of the whole text. The beginning of the first window and the end
    of the last are the text's own and no edges. A window that sees a span only near its edge is not asked about it,
    whether it found something there or not.
    """
    extents = [_extent(window) for window in windows]
    kept: list[tuple[float, Output]] = []
    for number, spans in enumerate(found):
        # The distance rises and falls once from window to window, so that no others than the neighbours can be farther.
        first = max(number - 1, 0)
        neighbours = range(first, min(number + 2, len(extents)))
        for span in spans:
            distances = [_distance(span, extents, other) for other in neighbours]
            if distances.index(max(distances)) == number - first:
                kept.append((distances[number - first], span))
    kept.sort(key=lambda pair: -pair[0])
    return _without_overlaps([span for _, span in kept])


def _without_overlaps(spans: Sequence[Output]) -> list[Output]:
    """Return spans in the order of the text; of two that overlap, the one that comes first in `spans`."""
    starts: list[int] = []
    chosen: list[Output] = []
    for span in spans:
        place = bisect_right(starts, span["start"])
        if place and chosen[place - 1]["end"] > span["start"]:
            continue
        if place < len(chosen) and chosen[place]["start"] < span["end"]:
            continue
        starts.insert(place, span["start"])
        chosen.insert(place, span)
    return chosen


def _extent(window: Encoding) -> tuple[int, int]:
    """Return the first and the last character (exclusive) of the text that a window reads."""
    places = [
        offsets for offsets, special in zip(window.offsets, window.special_tokens_mask, strict=True) if not special
    ]
    return (places[0][0], places[-1][1]) if places else (0, 0)


def _distance(span: Output, extents: Sequence[tuple[int, int]], number: int) -> float:
    """Return how many characters lie between a span and the nearer edge of a window; below 0 outside of it."""
    start, end = extents[number]
    before = float("inf") if number == 0 else float(span["start"] - start)
    behind = float("inf") if number == len(extents) - 1 else float(end - span["end"])
    return min(before, behind)
