"""The keys and values of the replies that are decoded together, a row each. Pure: arrays only."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

MASKED: Final = np.float32(-1e4)
"""Added to the scores of unused places and to the logits of forbidden pieces: exp() of it is exactly 0."""
_WIDTH_STEP: Final = 16
_LEAST_ROWS: Final = 2
"""A row alone takes another kernel, with other last bits, so that it is computed as two."""


class Sizes(NamedTuple):
    """The sizes of a decoder, and of its longest reply and text."""

    layers: int
    heads: int
    head_size: int
    pieces: int
    """V, the number of pieces; the start symbol is piece V."""
    reply: int
    """Maximum number of pieces of a reply."""
    source: int
    """Maximum number of tokens of a text."""

    def row_bytes(self) -> int:
        """Return the largest size of a row in bytes."""
        width = self.heads * self.head_size
        return 4 * (2 * self.layers * (self.reply + self.source) * width + self.pieces + self.reply + self.source)


class Memory(NamedTuple):
    """What cross attention reads of a text of t tokens: keys and values of all layers, [L, t, H]."""

    keys: Array
    values: Array


class SlotTable:
    """Rows `0` to `count - 1` are in use; a row that is released is filled by the last one.

    So the inputs of a step are contiguous parts of the buffers: nothing is gathered, and no row is computed in vain. Widths follow
    the longest reply and text in the table; results do not depend on them. Not for several threads.
    """

    def __init__(self, sizes: Sizes, max_rows: int) -> None:
        self.sizes, self.max_rows = sizes, max_rows
        self.count = 0
        rows = max(max_rows, _LEAST_ROWS)
        self._pieces, self._positions = np.zeros(rows, np.int64), np.zeros(rows, np.int64)
        self._source_lengths = np.zeros(rows, np.int64)
        self._forbidden = np.zeros((rows, sizes.pieces), np.float32)
        self._reply = _Keys(sizes, rows, sizes.reply)
        self._source = _Keys(sizes, rows, sizes.source)

    @property
    def places(self) -> Array:
        """Number of pieces that each reply has."""
        return self._positions[: self.count].copy()

    @property
    def max_bytes(self) -> int:
        """The memory that it takes at most, apart from a copy of one buffer while a width changes."""
        return max(self.max_rows, _LEAST_ROWS) * self.sizes.row_bytes()

    @property
    def bytes(self) -> int:
        """The size of its buffers now."""
        return self._reply.bytes + self._source.bytes + self._forbidden.nbytes

    def add(self, memory: Memory, forbidden: Array | None = None) -> int:
        """Begin a reply in a free row and return its number. `forbidden` [V] is added to its logits.

        Whatever it raises, the table is as before.
        """
        if self.count == self.max_rows:
            raise ValueError(f"all {self.max_rows} rows are in use")
        row, length = self.count, memory.keys.shape[1]
        self._reply.fit(self._longest_reply() + 1, row)
        self._source.fit(max(int(self._source_lengths[:row].max(initial=1)), length), row)
        self._forbidden[row] = 0 if forbidden is None else forbidden
        self._reply.clear(row)
        self._source.clear(row)
        self._source.fill(row, memory)
        self._pieces[row], self._positions[row], self._source_lengths[row] = self.sizes.pieces, 0, length
        self.count += 1
        return row

    def release(self, row: int) -> int | None:
        """Free a row. Returns the number of the row that has moved there, None if none had to."""
        last = self.count - 1
        for array in (self._pieces, self._positions, self._source_lengths, self._forbidden):
            array[row] = array[last]
            array[last] = 0
        self._reply.move(last, row)
        self._source.move(last, row)
        self.count = last
        with suppress(MemoryError):  # it only narrows; the next step tries again
            self._fit()
        return None if row == last else last

    def feeds(self) -> dict[str, Array]:
        """Return the inputs of a step for all rows. They are parts of the buffers: `write` changes them."""
        self._fit()
        return self._feeds(slice(0, max(self.count, _LEAST_ROWS)))

    def feeds_of(self, row: int) -> dict[str, Array]:
        """Return the inputs of a step for one row, which is there twice."""
        self._fit()
        return self._feeds([row] * _LEAST_ROWS)

    def write(self, row: int, outputs: Mapping[str, Array], at: int) -> None:
        """Add the piece that row `at` of a step's outputs chose to a reply."""
        position = int(self._positions[row])
        self._reply.write(row, position, outputs, at)
        self._pieces[row] = outputs["next"][at]
        self._positions[row] = position + 1

    def write_all(self, outputs: Mapping[str, Array]) -> None:
        """Add the pieces that a step of `feeds` chose to all replies."""
        rows = np.arange(self.count)
        self._reply.write(rows, self._positions[: self.count], outputs, rows)
        self._pieces[: self.count] = outputs["next"][: self.count]
        self._positions[: self.count] += 1

    def _feeds(self, rows: slice | list[int]) -> dict[str, Array]:
        inputs: dict[str, Array] = {
            "piece": self._pieces[rows],
            "position": self._positions[rows],
            "forbidden": self._forbidden[rows],
        }
        inputs |= {f"reply_{name}": array[rows] for name, array in self._reply.named()}
        return inputs | {f"source_{name}": array[rows] for name, array in self._source.named()}

    def _longest_reply(self) -> int:
        return int(self._positions[: self.count].max(initial=0))

    def _fit(self) -> None:
        """Fit the buffers to the next step: before it, so that nothing that a step has chosen is lost where there is no memory."""
        self._reply.fit(self._longest_reply() + 1, self.count)
        self._source.fit(int(self._source_lengths[: self.count].max(initial=1)), self.count)


class _Keys:
    """Keys [rows, A, D, W] and values [rows, A, W, D] of all layers, and the bias [rows, 1, 1, W] of their places."""

    def __init__(self, sizes: Sizes, rows: int, longest: int) -> None:
        self._sizes, self._rows, self._longest = sizes, rows, longest
        self._allocate(min(_WIDTH_STEP, longest))

    @property
    def bytes(self) -> int:
        return sum(array.nbytes for array in self._arrays())

    def named(self) -> Iterator[tuple[str, Array]]:
        yield "bias", self._bias
        for number, (keys, values) in enumerate(zip(self._keys, self._values, strict=True)):
            yield f"keys_{number}", keys
            yield f"values_{number}", values

    def fit(self, longest: int, count: int) -> None:
        """Widen the rows for `longest` places, or narrow those more than twice as wide as needed."""
        needed = min(-(-longest // _WIDTH_STEP) * _WIDTH_STEP, self._longest)
        if needed <= self._width <= 2 * needed:
            return
        keys, values, bias, both = self._keys, self._values, self._bias, min(self._width, needed)
        self._allocate(needed)
        for old, new in zip(keys, self._keys, strict=True):
            new[:count, ..., :both] = old[:count, ..., :both]
        for old, new in zip(values, self._values, strict=True):
            new[:count, :, :both] = old[:count, :, :both]
        self._bias[:count, ..., :both] = bias[:count, ..., :both]

    def clear(self, row: int) -> None:
        """Leave nothing of an earlier reply: a NaN would survive being multiplied by 0."""
        for array in (*self._keys, *self._values):
            array[row] = 0
        self._bias[row] = MASKED

    def fill(self, row: int, memory: Memory) -> None:
        """Write the keys and values of a text into a cleared row."""
        heads, size, length = self._sizes.heads, self._sizes.head_size, memory.keys.shape[1]
        for number in range(self._sizes.layers):
            keys, values = (part[number].reshape(length, heads, size) for part in memory)
            self._keys[number][row, :, :, :length] = keys.transpose(1, 2, 0)
            self._values[number][row, :, :length] = values.transpose(1, 0, 2)
        self._bias[row, ..., :length] = 0

    def write(self, row: Any, place: Any, outputs: Mapping[str, Array], at: Any) -> None:
        """Write the new key and value of a step into one place of one row, or of several."""
        shape = (-1, self._sizes.heads, self._sizes.head_size)
        for number in range(self._sizes.layers):
            self._keys[number][row, :, :, place] = outputs[f"new_key_{number}"].reshape(shape)[at]
            self._values[number][row, :, place] = outputs[f"new_value_{number}"].reshape(shape)[at]
        self._bias[row, 0, 0, place] = 0

    def move(self, source: int, target: int) -> None:
        if source != target:
            for array in self._arrays():
                array[target] = array[source]

    def _arrays(self) -> list[Array]:
        return [*self._keys, *self._values, self._bias]

    def _allocate(self, width: int) -> None:
        rows, heads, size = self._rows, self._sizes.heads, self._sizes.head_size
        layers = range(self._sizes.layers)
        keys = [np.zeros((rows, heads, size, width), np.float32) for _ in layers]
        values = [np.zeros((rows, heads, width, size), np.float32) for _ in layers]
        bias = np.full((rows, 1, 1, width), MASKED, np.float32)
        self._width, self._keys, self._values, self._bias = width, keys, values, bias
