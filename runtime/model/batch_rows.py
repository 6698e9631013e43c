"""The rows of a batch: which of them belong to a text, and which of these a task reads."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt

from .decoding import MergedRows, Rows
from .inputs import Input, first_text
from .kinds.forms import Reads
from .kinds.kind import Kind
from .texts.tokenizing import Encoded
from .texts.windows import WindowedText


class TextAndPair:
    """A tokenised text, and the same text with a second one. `tokens` is the sum of both."""

    __slots__ = ("pair", "text", "tokens", "truncated")

    def __init__(self, text: Encoded | WindowedText, pair: Encoded) -> None:
        self.text, self.pair = text, pair
        self.tokens = text.tokens + pair.tokens
        self.truncated = text.truncated or pair.truncated

    @property
    def rows(self) -> tuple[Encoded, ...]:
        """The rows of the text, then that of both texts."""
        return (*self.text.rows, self.pair)


Array = npt.NDArray[Any]
Tokenised = Encoded | WindowedText | TextAndPair
"""A tokenised text; it takes one row of a batch or several."""

_PASS_TOKENS: Final = 4096
"""Maximum tokens of a pass with windows: the attention of 64 windows of 512 tokens would need gigabytes at once."""


@dataclass(frozen=True, slots=True)
class Logits:
    """The result of a run. `values[task]` is [B, C], or [T, C] by token: row b is `[starts[b] : starts[b + 1]]`."""

    values: dict[str, Array]
    starts: npt.NDArray[np.int64]
    """[B + 1], the last one T."""
    bounds: npt.NDArray[np.int64] | None = None
    """For a batch in which a text has several rows: text b has the rows `[bounds[b] : bounds[b + 1]]`."""
    hidden: Array | None = None
    """The states [T, H] that decoders read, where a task generates."""
    vectors: npt.NDArray[np.float32] | None = None
    """[B, H], a unit vector a row, where the model has the pooled output."""


def group_rows_by_task(wanted: Sequence[tuple[str, ...]]) -> dict[str, list[int]]:
    """Return the texts for each task. Usually all texts of a batch have the same tasks."""
    if len(set(wanted)) == 1:
        every = list(range(len(wanted)))
        return dict.fromkeys(wanted[0], every)
    rows: dict[str, list[int]] = {}
    for row, names in enumerate(wanted):
        for name in names:
            rows.setdefault(name, []).append(row)
    return rows


def flatten_rows(texts: Sequence[Tokenised]) -> tuple[Sequence[Encoded], npt.NDArray[np.int64] | None]:
    """Return the rows of a pass, and the bounds of each text's rows (None where each text has one)."""
    if all(isinstance(text, Encoded) for text in texts):
        return cast(Sequence[Encoded], texts), None
    parts = [text.rows for text in texts]
    bounds = np.zeros(len(texts) + 1, np.int64)
    np.cumsum([len(part) for part in parts], out=bounds[1:])
    return [*chain.from_iterable(parts)], bounds


def has_windows(texts: Sequence[Tokenised]) -> bool:
    """Return whether a text of a batch is split into windows."""
    return any(isinstance(text.text if isinstance(text, TextAndPair) else text, WindowedText) for text in texts)


def split_passes(rows: Sequence[Encoded]) -> Iterator[Sequence[Encoded]]:
    """Yield rows in parts of at most `_PASS_TOKENS`, or a single row."""
    begin = tokens = 0
    for end, row in enumerate(rows):
        if end > begin and tokens + row.tokens > _PASS_TOKENS:
            yield rows[begin:end]
            begin, tokens = end, 0
        tokens += row.tokens
    yield rows[begin:]


def select_rows(
    kind: Kind,
    values: Array,
    logits: Logits,
    batch: Sequence[Tokenised],
    texts: Sequence[Input],
    chosen: list[int],
) -> Rows:
    """Return the rows that a task reads of the chosen texts: all windows of a text, or the one of two texts."""
    starts = logits.starts
    if logits.bounds is None:
        rows, parts, merged = chosen, cast(Sequence[Encoded], batch), None
        owners = chosen
    else:
        parts, _ = flatten_rows(batch)
        ranges = [_range_of(kind, batch[b], int(logits.bounds[b]), int(logits.bounds[b + 1])) for b in chosen]
        rows = [row for each in ranges for row in each]
        owners = [b for b, each in zip(chosen, ranges, strict=True) for _ in each]
        merged = _merge_ranges(ranges, [batch[b] for b in chosen])
    if len(rows) < len(parts):
        values, starts = kind.select_rows(values, starts, rows)
    encodings = [parts[row].encoding for row in rows]
    return Rows(values, starts, encodings, [first_text(texts[b]) for b in owners], merged)


def _range_of(kind: Kind, text: Tokenised, begin: int, end: int) -> range:
    if not isinstance(text, TextAndPair):
        return range(begin, end)
    return range(end - 1, end) if kind.reads is Reads.PAIR else range(begin, end - 1)


def _merge_ranges(ranges: Sequence[range], batch: Sequence[Tokenised]) -> MergedRows | None:
    """Return how the rows of each text are merged; None where a task reads one row of each."""
    counts = [len(each) for each in ranges]
    if max(counts, default=1) == 1:
        return None
    alone = [text.text if isinstance(text, TextAndPair) else text for text in batch]
    merges = [text.merge if isinstance(text, WindowedText) else "max" for text in alone]
    return MergedRows(np.concatenate([[0], np.cumsum(counts)]), merges)
