"""Decodes the replies to a list of texts, without time and without other work in between."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from ...errors import ModelFailed
from ..batch_rows import Logits
from ..generated import Generated
from ..inputs import Input
from ..texts.tokenizing import Encoded
from .reply_decoder import ChosenPiece, ReplyDecoder
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
    is_forbidden: Callable[[str], bool] | None = None,
) -> list[Generated]:
    """Return the replies to pairs of texts, in order; see `Model.generate`. Raises ModelFailed of the first that failed."""
    allowed = [None] * len(pairs) if slots is None else slots
    _check_arguments(decoder, pairs, allowed)
    read: list[Encoded] = []

    def remember() -> Iterator[Memory]:
        for batch, _ in model.batches(pairs):
            read.extend(text.rows[-1] for text in batch)
            yield from remember_texts(decoder, model.run(batch), range(len(batch)))

    forbidden = [decoder.forbid(names, is_forbidden) for names in allowed]
    replies = _reply_to(decoder, remember(), forbidden, max_rows)
    return [reply._replace(truncated=row.truncated, cut=row.cut) for reply, row in zip(replies, read, strict=True)]


def reply_to_rows(decoder: ReplyDecoder, logits: Logits, texts: Sequence[int]) -> list[Generated]:
    """Return the replies to some texts of a batch, of a text with several rows to the last: there are both texts of a pair."""
    return _reply_to(decoder, remember_texts(decoder, logits, texts), [None] * len(texts), min(len(texts), MAX_ROWS))


def _reply_to(
    decoder: ReplyDecoder, memories: Iterable[Memory], forbidden: Sequence[Array | None], max_rows: int
) -> list[Generated]:
    generator = ReplyGenerator[int](decoder, max_rows=max_rows)
    found: dict[int, Generated | ModelFailed] = {}
    for number, memory in enumerate(memories):
        generator.add(number, memory, forbidden[number])
        # Memories of more texts than there are rows would only take memory.
        while generator.waiting > max_rows:
            found |= generator.step()
    while not generator.idle:
        found |= generator.step()
    return [_result(found[number]) for number in range(len(forbidden))]


def _check_arguments(decoder: ReplyDecoder, pairs: Sequence[Input], slots: Sequence[Collection[str] | None]) -> None:
    task = decoder.task
    assert task.generation is not None
    if any(isinstance(each, str) for each in pairs):
        raise ValueError(f"task {task.name} reads two texts; expected a TextPair, found one text")
    if len(slots) != len(pairs):
        raise ValueError(f"expected the slots of {len(pairs)} replies, found {len(slots)}")
    if any(isinstance(names, str) for names in slots):
        raise ValueError("expected the names of slots for each reply, found a text")
    known = task.generation.slots
    if unknown := {name for names in slots if names is not None for name in names}.difference(known):
        raise ValueError(f"task {task.name} has no slot {min(unknown)!r}; its slots are {', '.join(known) or 'none'}")


def remember_texts(decoder: ReplyDecoder, logits: Logits, texts: Sequence[int]) -> list[Memory]:
    """Return what some texts of a batch are remembered by; of a text with several rows the last one."""
    assert logits.hidden is not None
    rows = texts if logits.bounds is None else [int(logits.bounds[text + 1]) - 1 for text in texts]
    ranges = [slice(int(logits.starts[row]), int(logits.starts[row + 1])) for row in rows]
    hidden = np.concatenate([logits.hidden[each] for each in ranges])
    return decoder.remember(hidden, np.cumsum([0, *(each.stop - each.start for each in ranges)]))


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
