"""Redrives dead letters, each once: reads markers first, and writes records and markers together."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import Final

from ..errors import MurmuraError
from ..kafka.sending.transactional_sender import BatchRefused, Sender
from ..wire.dead_letter_records import Letter, Selection, marker
from ..wire.message import Message
from .dead_letter_reader import LetterScan
from .rules import Redrive, Refusal, Tally

BATCH_RECORDS: Final = 500
BATCH_BYTES: Final = 4 * 1024 * 1024
"""Limit on the values of a batch; a batch of one record may be larger."""

Place = tuple[int, int]
"""Partition and offset of a dead letter in the dead-letter topic."""


class Stopped(MurmuraError):
    """The caller asked it to stop. All records that were sent are marked."""


async def count(scan: LetterScan, selection: Selection, redrive: Redrive) -> Tally:
    """Return the tally that `send_again` would have now."""
    tally = Tally()

    async def handle(letters: Sequence[Letter]) -> None:
        for letter in letters:
            _select(letter, redrive, tally)

    await scan.read_markers()
    await scan.read(selection, handle)
    return tally


async def send_again(
    scan: LetterScan,
    selection: Selection,
    redrive: Redrive,
    make_sender: Callable[[], Sender],
    *,
    stop: asyncio.Event,
    rate: float | None = None,
    clock: Callable[[], float],
    batch_records: int = BATCH_RECORDS,
    on_sent: Callable[[int], None] = lambda records: None,
    on_pass: Callable[[], None] = lambda: None,
) -> Tally:
    """Redrive the selected letters, at most `rate` per second, and return their tally.

    Starts the sender before reading the markers: that fences an earlier sender with the same id, so that the markers of
    all letters it sent are visible. A batch that the broker refuses is tried record by record with a new sender.
    Raises Stopped, Fenced, SetupError.
    """
    work = _Work(redrive, stop, rate, clock, batch_records, on_sent)
    while True:
        sender = make_sender()
        await sender.start()
        try:
            await scan.read_markers()
            work.begin(sender)
            on_pass()
            await scan.read(selection, work.handle)
            return work.tally
        except BatchRefused as refused:
            if not work.isolate(refused):
                raise
        finally:
            await sender.stop()


class _Work:
    """One redrive over all passes. `sent` counts over all of them, the other fields are those of the last pass."""

    def __init__(
        self,
        redrive: Redrive,
        stop: asyncio.Event,
        rate: float | None,
        clock: Callable[[], float],
        batch_records: int,
        on_sent: Callable[[int], None],
    ) -> None:
        self._redrive, self._stop, self._rate, self._clock, self._on_sent = redrive, stop, rate, clock, on_sent
        self._batch_records = batch_records if rate is None else max(1, min(batch_records, int(rate)))
        self._alone: set[Place] = set()
        self._too_large: set[Place] = set()
        self._batch: list[Letter] = []
        self._sender: Sender | None = None
        self._sent = 0
        self.tally = Tally()

    def begin(self, sender: Sender) -> None:
        self._sender = sender
        # Letters sent in an earlier pass of this redrive are marked by now: do not count them as redriven before.
        self.tally = Tally(sent=self._sent, before=-self._sent)

    def isolate(self, refused: BatchRefused) -> bool:
        """Prepare to find the cause of a refused batch; False when a retry cannot help."""
        places = [_place(letter) for letter in self._batch]
        if len(places) > 1:
            self._alone.update(places)
            return True
        if refused.too_large:
            self._too_large.update(places)
        return refused.too_large

    async def handle(self, letters: Sequence[Letter]) -> None:
        """Send the allowed ones of some letters, in batches."""
        self._batch, size = [], 0
        for letter in letters:
            if not _select(letter, self._redrive, self.tally, self._too_large):
                continue
            alone = _place(letter) in self._alone
            length = len(letter.record.value or b"")
            full = len(self._batch) >= self._batch_records or size + length > BATCH_BYTES
            if self._batch and (alone or full or _place(self._batch[-1]) in self._alone):
                await self._send()
                size = 0
            self._batch.append(letter)
            size += length
        if self._batch:
            await self._send()

    async def _send(self) -> None:
        if self._stop.is_set():
            raise Stopped(f"stopped: {self._sent:,} were sent and are marked; start it again for the rest")
        began, messages = self._clock(), self._messages()
        assert self._sender is not None
        await self._sender.send(messages)
        self._sent += len(self._batch)
        self.tally.sent = self._sent
        self._on_sent(len(self._batch))
        if self._rate is not None:
            await _pause(self._stop, began + len(self._batch) / self._rate - self._clock())
        self._batch = []

    def _messages(self) -> list[Message]:
        now = self._clock()
        records = [self._redrive.message(letter, now) for letter in self._batch]
        return records + [marker(letter.record) for letter in self._batch]


def _select(letter: Letter, redrive: Redrive, tally: Tally, too_large: Collection[Place] = ()) -> bool:
    """Count a selected letter; True when it must be sent."""
    tally.chosen += 1
    if letter.redriven:
        tally.before += 1
        return False
    why = Refusal.TOO_LARGE if _place(letter) in too_large else redrive.refusal(letter)
    if why is not None:
        tally.refused[why] += 1
    return why is None


def _place(letter: Letter) -> Place:
    return letter.record.partition, letter.record.offset


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    if seconds > 0:
        try:
            async with asyncio.timeout(seconds):
                await stop.wait()
        except TimeoutError:
            return
