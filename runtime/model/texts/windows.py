"""Splits long texts into overlapping windows, and merges the answers of the windows.

A window has at most the model's limit of tokens. An answer does not depend on the other rows of its batch, so windows may
run in any batch.
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

# As in `tokenizing`: maximum number of characters to read per token.
_CHARACTERS_PER_TOKEN: Final = 24


class WindowedText:
    """A text split into windows. `tokens` is the sum over all windows."""

    __slots__ = ("merge", "tokens", "truncated", "windows")

    def __init__(self, windows: tuple[Encoded, ...], truncated: bool, merge: Merge) -> None:
        self.windows = windows
        self.tokens = sum(window.tokens for window in windows)
        self.truncated = truncated
        self.merge = merge

    @property
    def rows(self) -> tuple[Encoded, ...]:
        """The rows of a batch that it takes."""
        return self.windows


class WindowEncoder:
    """Splits texts above the model's limit. Usable from any thread; keeps one tokenizer per size and overlap."""

    def __init__(self, tokenizer: Tokenizer, max_tokens: int) -> None:
        self._tokenizer, self._limit = tokenizer, max_tokens
        self._special = tokenizer.num_special_tokens_to_add(False)
        self._cutters: dict[tuple[int, int], Tokenizer] = {}

    def __call__(self, text: str, windows: Windows) -> WindowedText:
        """Tokenise one long text. Raises ValueError for a text with a lone surrogate."""
        tokens = max(min(windows.tokens or self._limit, self._limit), self._special + 1)
        room = tokens - self._special
        overlap = min(tokens // 4 if windows.overlap is None else windows.overlap, room // 2)
        # One window more than is kept shows whether the text was truncated.
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

    `mean` averages. `max` takes each label's highest score and divides by the sum, so that one certain window outweighs any
    number of others. The out-of-scope label takes its lowest score: a text is out of scope only if all its windows are.
    """
    if merge == "mean":
        return np.asarray(scores.mean(axis=0))
    merged = scores.max(axis=0)
    if out_of_scope is not None:
        merged[out_of_scope] = scores[:, out_of_scope].min()
    return np.asarray(merged / merged.sum())


def merge_spans(found: Sequence[Sequence[Output]], windows: Sequence[Encoding]) -> list[Output]:
    """Merge the spans of a text's windows: each span is taken from the window in which it is farthest from an edge.

    `found[w]` are the spans of window w, with offsets of the whole text. The start of the first window and the end of the
    last are not edges. Near an edge of a window, its spans are ignored in favour of the adjacent window, even if that one
    has none there.
    """
    ranges = [_read_range(window) for window in windows]
    kept: list[tuple[float, Output]] = []
    for number, spans in enumerate(found):
        # From window to window the distance rises and falls once, so only adjacent windows can have a larger one.
        first = max(number - 1, 0)
        neighbours = range(first, min(number + 2, len(ranges)))
        for span in spans:
            distances = [_edge_distance(span, ranges, other) for other in neighbours]
            if distances.index(max(distances)) == number - first:
                kept.append((distances[number - first], span))
    kept.sort(key=lambda pair: -pair[0])
    return _drop_overlaps([span for _, span in kept])


def _drop_overlaps(spans: Sequence[Output]) -> list[Output]:
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


def _read_range(window: Encoding) -> tuple[int, int]:
    """Return the range of characters, end exclusive, that a window reads."""
    places = [
        offsets for offsets, special in zip(window.offsets, window.special_tokens_mask, strict=True) if not special
    ]
    return (places[0][0], places[-1][1]) if places else (0, 0)


def _edge_distance(span: Output, ranges: Sequence[tuple[int, int]], number: int) -> float:
    """Return the number of characters between a span and the nearer edge of a window; negative outside of it."""
    start, end = ranges[number]
    before = float("inf") if number == 0 else float(span["start"] - start)
    behind = float("inf") if number == len(ranges) - 1 else float(end - span["end"])
    return min(before, behind)
