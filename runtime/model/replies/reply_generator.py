"""Decodes replies together: they join, take steps and leave. The same for one text and for a stream of them."""

from collections.abc import Hashable
from itertools import islice
from typing import Any, Generic, TypeVar

import numpy.typing as npt

from ...errors import DeviceFailed, ModelFailed
from ..device_faults import model_error
from ..generated import Generated
from .reply_decoder import ChosenPiece, ReplyDecoder
from .slot_table import Memory, SlotTable

K = TypeVar("K", bound=Hashable)
Array = npt.NDArray[Any]


class ReplyGenerator(Generic[K]):
    """The replies of one decoder. They join at any step, first come, first served, and leave when they have ended.

    Greedy: a reply is the same, bit for bit, alone and in any batch. Not for several threads.
    """

    def __init__(self, decoder: ReplyDecoder, *, max_rows: int = 16) -> None:
        if max_rows < 1:
            raise ValueError(f"expected a row or more, found {max_rows}")
        self.decoder = decoder
        self.table = SlotTable(decoder.sizes, max_rows)
        self.joined: tuple[K, ...] = ()
        """The replies that began with the last step."""
        self._waiting: dict[K, tuple[Memory, Array | None]] = {}
        self._rows: list[K] = []
        """The reply of each row of the table."""
        self._pieces: dict[K, list[ChosenPiece]] = {}
        self._failed: list[tuple[K, ModelFailed]] = []
        """Replies that could not begin; the next step that succeeds returns them."""

    @property
    def keys(self) -> list[K]:
        """All replies, those with a row first."""
        return [*self._rows, *self._waiting]

    @property
    def waiting(self) -> int:
        """Number of replies without a row."""
        return len(self._waiting)

    @property
    def live(self) -> int:
        """Number of replies with a row."""
        return len(self._rows)

    @property
    def idle(self) -> bool:
        return not self._rows and not self._waiting and not self._failed

    def add(self, key: K, memory: Memory, forbidden: Array | None = None) -> None:
        """Let a reply wait for a row; it begins at one of the next steps. See `forbid_slots` for `forbidden`."""
        if key in self._waiting or key in self._pieces:
            raise ValueError(f"reply {key!r} is there already")
        self._waiting[key] = memory, forbidden

    def cancel(self, key: K) -> None:
        """Forget a reply that nobody waits for any more, and free its row; one that is not known is ignored."""
        self._waiting.pop(key, None)
        if self._pieces.pop(key, None) is not None:
            row = self._rows.index(key)
            last = self._rows.pop()
            if last != key:
                self._rows[row] = last
            self.table.release(row)

    def step(self, *, apart: bool = False) -> list[tuple[K, Generated | ModelFailed]]:
        """Add a piece to each reply; returns those that have ended or failed. Raises DeviceFailed; then no reply has changed.

        `apart`: see `ReplyDecoder.step`.
        """
        self._admit(apart)
        self.joined = ()
        chosen = self.decoder.step(self.table, apart=apart) if self._rows else []
        self.joined = tuple(key for key in self._rows if not self._pieces[key])
        ended = [
            (key, result) for key, piece in zip(self._rows, chosen, strict=True) if (result := self._take(key, piece))
        ]
        for key, _ in ended:
            self.cancel(key)
        failed, self._failed = self._failed, []
        return [*failed, *ended]

    def _admit(self, apart: bool) -> None:
        for key in [*islice(self._waiting, self.table.max_rows - len(self._rows))]:
            try:
                self.table.add(*self._waiting[key])
            except Exception as error:  # noqa: BLE001 - a bug concerns no other reply either
                failed = model_error(error, "a reply could not begin")
                if isinstance(failed, DeviceFailed) and (failed.lost or not apart):
                    raise failed  # noqa: B904 - it has its cause
                self._failed.append((key, failed))
                del self._waiting[key]
                continue
            del self._waiting[key]
            self._rows.append(key)
            self._pieces[key] = []

    def _take(self, key: K, piece: ChosenPiece | ModelFailed) -> Generated | ModelFailed | None:
        if isinstance(piece, ModelFailed):
            return piece
        pieces = self._pieces[key]
        pieces.append(piece)
        if piece.number and len(pieces) < self.decoder.sizes.reply:
            return None
        try:
            return self.decoder.finish(pieces)
        except Exception as error:  # noqa: BLE001 - it concerns this reply alone
            return model_error(error, "a reply could not be put together")
