"""Decodes replies together: they join, take steps and leave. The same for one text and for a stream of them."""

from collections.abc import Hashable
from typing import Any, Generic, TypeVar

import numpy.typing as npt

from ...errors import ModelFailed
from .decode_policy import STEPS_BETWEEN_PASSES, DecodePolicy
from .reply_decoder import ChosenPiece, Generated, ReplyDecoder
from .slot_table import Memory, SlotTable

K = TypeVar("K", bound=Hashable)
Array = npt.NDArray[Any]


class ReplyGenerator(Generic[K]):
    """The replies of one decoder. Greedy: a reply is the same, bit for bit, alone and in any batch. Not for several threads."""

    def __init__(
        self, decoder: ReplyDecoder, *, max_rows: int = 16, steps_between_passes: int = STEPS_BETWEEN_PASSES
    ) -> None:
        self.decoder = decoder
        self.policy = DecodePolicy[K](max_rows=max_rows, steps_between_passes=steps_between_passes)
        self.table = SlotTable(decoder.sizes, max_rows)
        self._memories: dict[K, tuple[Memory, Array | None]] = {}
        self._rows: list[K] = []
        """The reply of each row of the table."""
        self._pieces: dict[K, list[ChosenPiece]] = {}

    @property
    def idle(self) -> bool:
        return not self._rows and not self._memories

    def add(self, key: K, memory: Memory, forbidden: Array | None = None, deadline: float | None = None) -> None:
        """Let a reply wait for a row; it begins at one of the next steps. See `forbid_slots` for `forbidden`."""
        self.policy.add(key, deadline)
        self._memories[key] = memory, forbidden

    def cancel(self, key: K) -> None:
        """Free the row of a reply that nobody waits for any more."""
        self.policy.retire(key)
        self._forget(key)

    def drop_late(self, now: float) -> list[K]:
        """Free the rows of replies whose deadline has passed, and return these."""
        late = self.policy.drop_late(now)
        for key in late:
            self._forget(key)
        return late

    def step(self) -> list[tuple[K, Generated | ModelFailed]]:
        """Add a piece to each reply; returns those that have ended or failed. Raises DeviceFailed; then none has changed."""
        for key in self.policy.admit():
            self.table.add(*self._memories.pop(key))
            self._rows.append(key)
            self._pieces[key] = []
        if not self._rows:
            return []
        chosen = self.decoder.step(self.table)
        ended = [
            (key, result) for key, piece in zip(self._rows, chosen, strict=True) if (result := self._take(key, piece))
        ]
        for key, _ in ended:
            self.cancel(key)
        return ended

    def _take(self, key: K, piece: ChosenPiece | ModelFailed) -> Generated | ModelFailed | None:
        if isinstance(piece, ModelFailed):
            return piece
        pieces = self._pieces[key]
        pieces.append(piece)
        if piece.number and len(pieces) < self.decoder.sizes.reply:
            return None
        return self.decoder.finish(pieces)

    def _forget(self, key: K) -> None:
        self._memories.pop(key, None)
        if self._pieces.pop(key, None) is not None:
            row = self._rows.index(key)
            self.table.release(row)
            last = self._rows.pop()
            if last != key:
                self._rows[row] = last
