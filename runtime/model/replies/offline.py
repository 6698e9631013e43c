"""Decodes the replies to a list of texts, without time and without other work in between."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from ...errors import ModelFailed
from ..batch_rows import Logits
from ..inputs import Input
from .pieces import forbid_slots
from .reply_decoder import ChosenPiece, Generated, ReplyDecoder
from .reply_generator import ReplyGenerator
from .slot_table import Memory, SlotTable

Array = npt.NDArray[Any]

MAX_ROWS: Final = 16
"""Rows of a step where nobody says how many: on a CPU more of them gain little."""


class Encoding(Protocol):
    """What encodes texts: a model."""

    def batches(self, texts: Sequence[Input], /) -> Iterable[tuple[Any, Sequence[Input]]]: ...

    def run(self, texts: Any, /) -> Logits: ...


def generate_replies(
    model: Encoding,
    decoder: ReplyDecoder,
    pairs: Sequence[Input],
    slots: Sequence[Collection[str] | None] | None,
    max_rows: int,
) -> list[Generated]:
    """Return the replies to pairs of texts, in order; see `Model.generate`. Raises ModelFailed of the first that failed."""
    allowed = [None] * len(pairs) if slots is None else slots
    if len(allowed) != len(pairs):
        raise ValueError(f"expected the slots of {len(pairs)} replies, found {len(allowed)}")
    return _reply_to(decoder, _remember(model, decoder, pairs), allowed, max_rows)


def reply_to_rows(decoder: ReplyDecoder, logits: Logits, texts: Sequence[int]) -> list[Generated]:
    """Return the replies to some texts of a batch, of a text with several rows to the last: there are both texts of a pair."""
    assert logits.hidden is not None
    rows = texts if logits.bounds is None else [int(logits.bounds[text + 1]) - 1 for text in texts]
    ranges = [slice(int(logits.starts[row]), int(logits.starts[row + 1])) for row in rows]
    hidden = np.concatenate([logits.hidden[each] for each in ranges])
    starts = np.concatenate([[0], np.cumsum([each.stop - each.start for each in ranges])])
    return _reply_to(decoder, decoder.remember(hidden, starts), [None] * len(rows), min(len(rows), MAX_ROWS))


def _reply_to(
    decoder: ReplyDecoder, memories: Iterable[Memory], slots: Sequence[Collection[str] | None], max_rows: int
) -> list[Generated]:
    generator = ReplyGenerator[int](decoder, max_rows=max_rows)
    found: dict[int, Generated | ModelFailed] = {}
    for number, memory in enumerate(memories):
        names = slots[number]
        generator.add(number, memory, None if names is None else forbid_slots(decoder.task.labels, names))
        # Memories of more texts than there are rows would only take memory.
        while generator.policy.waiting > max_rows:
            found |= generator.step()
    while not generator.idle:
        found |= generator.step()
    return [_result(found[number]) for number in range(len(slots))]


def _remember(model: Encoding, decoder: ReplyDecoder, pairs: Sequence[Input]) -> Iterator[Memory]:
    for batch, _ in model.batches(pairs):
        logits = model.run(batch)
        assert logits.hidden is not None
        yield from decoder.remember(logits.hidden, logits.starts)


def _result(found: Generated | ModelFailed) -> Generated:
    if isinstance(found, ModelFailed):
        raise found
    return found


def decode_rows(decoder: ReplyDecoder, logits: Logits) -> list[Array]:
    """Return the replies to all rows of a batch, each as [pieces, 2]: number and log-probability. Its end is a piece, too."""
    assert logits.hidden is not None
    return [_decode_alone(decoder, memory) for memory in decoder.remember(logits.hidden, logits.starts)]


def _decode_alone(decoder: ReplyDecoder, memory: Memory) -> Array:
    table = SlotTable(decoder.sizes, 1)
    table.add(memory)
    pieces: list[ChosenPiece] = []
    while len(pieces) < decoder.sizes.reply and not (pieces and pieces[-1].number == 0):
        chosen = decoder.step(table)[0]
        if isinstance(chosen, ModelFailed):
            raise chosen
        pieces.append(chosen)
    return np.array(pieces, np.float64)
