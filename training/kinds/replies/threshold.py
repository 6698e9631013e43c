"""The score below which a reply is not sent, chosen on the replies to validation rows, decoded as in service. Pure.

Right is a reply that has ended, names the slots of its row, and is worded as its acts are: among the training replies that have most
words in common with it are some to the row's own acts. The threshold is the highest score that withholds at most a share of the right
replies: what scores lower is less sure than nearly everything that is known to be right. Wrong replies do not choose it: validation
rows are like the training rows, so few are wrong there, and those are no measure of what other conversations bring.
"""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from math import floor, isfinite
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ....runtime.generation.facts import is_fact_piece
from ....runtime.generation.reply_vocabulary import list_slots
from ....runtime.model.replies.pieces import forbid_pieces, forbid_slots
from ....schemas.acts import Act
from ....schemas.manifest import ThresholdRows, Thresholds
from ...data.example import Example
from ..kind import Chosen, ScoredReply
from .scores import split_reply

MAX_FLAGGED: Final = 0.02
"""The most right replies that are withheld, where the recipe names no share."""
_STEPS: Final = 1000
"""Thresholds are rounded down to one of so many: a delta's weights are rounded, and its scores move a little."""
Words = frozenset[str]


def choose_accept(
    replies: Sequence[tuple[Example, ScoredReply]], training: Sequence[Example], max_flagged: float
) -> Chosen:
    """Return the threshold as `accept`, and on how many replies it was chosen; nothing without rows.

    Where no reply is right it is 1, and so none is sent.
    """
    if not replies:
        return Chosen()
    known = KnownReplies(training)
    right = [isfinite(reply.score) and is_right(reply, row, known) for row, reply in replies]
    scores = sorted(reply.score for (_, reply), is_one in zip(replies, right, strict=True) if is_one)
    withheld = min(int(max_flagged * len(scores) + 1e-9), len(scores) - 1)
    accept = floor(scores[withheld] * _STEPS) / _STEPS if scores else 1.0
    passed = sum(reply.score >= accept for _, reply in replies)
    rows = ThresholdRows(genuine=len(scores), others=len(replies) - len(scores), passed=passed)
    return Chosen(thresholds=Thresholds(accept=accept), threshold_rows=rows)


def is_right(reply: ScoredReply, row: Example, known: "KnownReplies") -> bool:
    """Return whether a reply has ended, names the slots of its row, and is worded as the row's acts are in training."""
    named = Counter(list_slots(reply.text)) == Counter(list_slots(row.reply or ""))
    return reply.has_ended and named and known.is_nearest(reply.text, row.acts)


def forbid_as_served(labels: Sequence[str], rows: Iterable[Example]) -> list[NDArray[np.float32]]:
    """Return for each row what is added to the logits [V] of its reply, as the dialogue agent asks for it: it names no slots but
    those of its template, for which the row's reply stands here, and no piece states a fact.
    """
    facts = forbid_pieces(labels, is_fact_piece)
    return [np.minimum(facts, forbid_slots(labels, list_slots(row.reply or ""))) for row in rows]


class KnownReplies:
    """The training replies by their words, each with its acts."""

    def __init__(self, examples: Iterable[Example]) -> None:
        self._numbers: dict[Hashable, int] = {}
        pairs = dict.fromkeys((_words_of(each.reply or ""), self._number_of(each.acts)) for each in examples)
        self._sizes = np.array([len(words) for words, _ in pairs])
        self._acts = np.array([number for _, number in pairs])
        places = defaultdict[str, list[int]](list)
        for place, (words, _) in enumerate(pairs):
            for word in words:
                places[word].append(place)
        self._places = {word: np.array(each) for word, each in places.items()}
        self._nearest: dict[Words, frozenset[int]] = {}

    def is_nearest(self, reply: str, acts: Sequence[Act]) -> bool:
        """Return whether no reply to other acts has more in common with this one than those to these acts have.

        True for acts that no training row has: nothing is known of how they are worded.
        """
        number = self._numbers.get(_key_of(acts))
        return number is None or number in self._acts_nearest_to(_words_of(reply))

    def _number_of(self, acts: Sequence[Act]) -> int:
        return self._numbers.setdefault(_key_of(acts), len(self._numbers))

    def _acts_nearest_to(self, words: Words) -> frozenset[int]:
        """Return the acts of the replies that are nearest by the Dice coefficient of their words."""
        if words not in self._nearest:
            places = [self._places[word] for word in words if word in self._places]
            common = np.bincount(np.concatenate(places), minlength=len(self._sizes)) if places else 0 * self._sizes
            likeness = 2 * common / np.maximum(1, self._sizes + len(words))
            self._nearest[words] = frozenset(self._acts[likeness == likeness.max(initial=0)].tolist())
        return self._nearest[words]


def _words_of(reply: str) -> Words:
    return frozenset(word.lower() for word in split_reply(reply))


def _key_of(acts: Sequence[Act]) -> Hashable:
    """Return what acts in any order have in common."""
    return frozenset(Counter(acts).items())
