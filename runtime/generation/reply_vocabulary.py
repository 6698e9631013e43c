"""The pieces that replies are made of: the labels of a task that generates. Pure.

A piece is what stands in the reply, in its letter case and with the blank before it: ` Would`, `ing`, ` {date}`. So the pieces of
a reply, one behind the other, are the reply. The text of a reply counts as if a blank stood before it, so that a word at its
beginning is the piece that it is elsewhere.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import takewhile
from string import ascii_letters, digits, punctuation
from typing import Final

from tokenizers import Tokenizer

from ..model.kinds.generation import END
from ..model.replies.pieces import SLOT_PIECE, find_slots, join_pieces
from .input_format import to_words

_ASCII: Final = ascii_letters + digits + punctuation


class ReplyVocabulary:
    """The pieces of one task; `labels[i]` is the piece of logit i. May be used from any thread."""

    def __init__(self, labels: Sequence[str], tokenizer: Tokenizer | None = None) -> None:
        """The tokenizer cuts replies into pieces; decoding needs none. ValueError for labels that do not begin with the end."""
        if not labels or labels[0] != END:
            raise ValueError(
                f"the first label of a task that generates is {END!r}, found {labels[0] if labels else 'none'!r}"
            )
        self.labels = tuple(labels)
        self.index: Mapping[str, int] = {label: number for number, label in enumerate(labels) if number}
        self.slots: Mapping[int, str] = dict(find_slots(self.labels))
        """The name of the slot by the number of its piece; most have two, with a blank and without."""
        self._cutter = None if tokenizer is None else ReplyCutter(tokenizer, set(self.slots.values()))

    @property
    def size(self) -> int:
        """V, the number of pieces with the end."""
        return len(self.labels)

    def encode(self, reply: str) -> list[int]:
        """Return the pieces of a reply, without the end. What no piece can spell is left out: see `find_unknown`."""
        if self._cutter is None:
            raise ValueError("a vocabulary without a tokenizer only decodes")
        return [number for piece in self._cutter.cut(reply) for number in self._spell(piece)]

    def find_unknown(self, reply: str) -> str | None:
        """Return the first character of a reply that no piece can spell."""
        return next((character for character in reply if character not in self.index), None)

    def decode(self, pieces: Iterable[int]) -> str:
        """Return the reply of these pieces, up to the end if it is among them."""
        return join_pieces(self.labels[number] for number in takewhile(bool, pieces))

    def lower_ids(self, tokenizer: Tokenizer) -> list[list[int]]:
        """Return for each piece the words of the encoder that mean it; the mean of their embeddings begins its own.

        Never empty: a piece that the encoder has no words for gets its unknown word, the end what ends a text.
        """
        cut = copy_tokenizer(tokenizer)
        prefix = json.loads(cut.to_str())["model"].get("continuing_subword_prefix") or ""
        ends = cut.encode("").ids[-1:]
        return [ends, *(self._ids_of(number, cut, prefix) or ends for number in range(1, self.size))]

    def _ids_of(self, number: int, tokenizer: Tokenizer, prefix: str) -> list[int]:
        if number in self.slots:
            return _encode(tokenizer, to_words(self.slots[number]))
        label = self.labels[number]
        if prefix and label[0].isalnum():
            word = _encode(tokenizer, f"a{label}")
            # Whatever the tokenizer makes of letters (lower case, no accents), it makes of this one.
            continued = tokenizer.token_to_id(f"{prefix}{_normalise(tokenizer, label)}")
            return [continued] if continued is not None else word[1:]
        return _encode(tokenizer, label.strip())

    def _spell(self, piece: str) -> Iterator[int]:
        if (number := self.index.get(piece)) is not None:
            yield number
            return
        first = piece[:2] if piece[0] == " " and piece[:2] in self.index else piece[:1]
        for character in (first, *piece[len(first) :]):
            if character in self.index:
                yield self.index[character]


class ReplyCutter:
    """Cuts replies into pieces: slots first, then where the tokenizer cuts."""

    def __init__(self, tokenizer: Tokenizer, slots: Iterable[str]) -> None:
        self._tokenizer = copy_tokenizer(tokenizer)
        self._slots = frozenset(slots)

    def cut(self, reply: str) -> list[str]:
        """Return the pieces of a reply, one blank before it; joined they are both."""
        if not reply:
            return []
        text, at, pieces = f" {reply}", 0, []
        for found in SLOT_PIECE.finditer(text):
            if found[1] in self._slots:
                pieces += [*self._cut_words(text[at : found.start()]), found[0]]
                at = found.end()
        return [*pieces, *self._cut_words(text[at:])]

    def _cut_words(self, text: str) -> Iterator[str]:
        at = 0
        for first, last in self._tokenizer.encode(text, add_special_tokens=False).offsets if text else ():
            # Tokenizers differ in whether a blank belongs to a token, and may give one character to several tokens.
            start, end = _without_blanks(text, max(first, at), last)
            if start < end:
                begin = start - 1 if start > at and text[start - 1] == " " else start
                yield from text[at:begin]
                yield text[begin:end]
                at = end
        yield from text[at:]


def build_labels(
    replies: Iterable[str], tokenizer: Tokenizer, slots: Iterable[str], most: int | None = None
) -> list[str]:
    """Return the labels for these replies: the end, slots, single characters, and the most common pieces, at most `most` in all.

    Characters are those of the replies and of ASCII, so that every such reply can be spelt. ValueError for a slot of the name
    of the end, and where `most` leaves no room for pieces.
    """
    slots = sorted(set(slots))
    if END in (f"{{{slot}}}" for slot in slots):
        raise ValueError(f"a slot cannot be called {END[1:-1]!r}: {END} ends a reply; rename it")
    cutter, counts, characters = ReplyCutter(tokenizer, slots), Counter[str](), set(_ASCII)
    for reply in replies:
        counts.update(cutter.cut(reply))
        characters.update(reply)
    needed = dict.fromkeys(
        [END, *_with_blank(f"{{{slot}}}" for slot in slots), " ", *_with_blank(sorted(characters - {" "}))]
    )
    common = [piece for piece, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])) if piece not in needed]
    if most is not None and most <= len(needed):
        raise ValueError(f"{most} pieces are too few: slots and single characters alone are {len(needed)}")
    return [*needed, *common][:most]


def copy_tokenizer(tokenizer: Tokenizer) -> Tokenizer:
    """Return the tokenizer without limits; those of the given one stay as they are."""
    copied = Tokenizer.from_str(tokenizer.to_str())
    copied.no_padding()
    copied.no_truncation()
    return copied


def _with_blank(pieces: Iterable[str]) -> Iterator[str]:
    """Yield each piece, and with a blank before it unless it is white space itself."""
    for piece in pieces:
        yield piece
        if not piece.isspace():
            yield f" {piece}"


def list_slots(reply: str) -> list[str]:
    """Return what a reply has in the form of slots, in its order."""
    return [found[1] for found in SLOT_PIECE.finditer(reply)]


def _without_blanks(text: str, start: int, end: int) -> tuple[int, int]:
    """Return the stretch without white space at its ends."""
    while start < end and text[start].isspace():
        start += 1
    while start < end and text[end - 1].isspace():
        end -= 1
    return start, end


def _encode(tokenizer: Tokenizer, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids


def _normalise(tokenizer: Tokenizer, text: str) -> str:
    normalised: str = text if tokenizer.normalizer is None else tokenizer.normalizer.normalize_str(text)
    return normalised
