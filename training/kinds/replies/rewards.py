"""Rewards of single replies, 0 to 1, for training on what replies are scored by. Pure.

Sentence BLEU is smoothed by adding one to the counts of sequences of two words and more (Lin and Och 2004), as single replies
often have no sequence of four words in common.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from math import exp, log
from typing import Final

from ....schemas.acts import SLOT
from ...recipe.keys.objective import RewardName
from .scores import rouge_l, split_reply

_ORDERS: Final = 4


def compute_reward(reply: str, reference: str, names: Sequence[RewardName]) -> float:
    """Return the mean of the named rewards."""
    words, expected = ([word.lower() for word in split_reply(text)] for text in (reply, reference))
    return sum(_REWARDS[name](words, expected) for name in names) / len(names)


def sentence_bleu(words: Sequence[str], reference: Sequence[str]) -> float:
    """Return BLEU of one reply; 0 where no word is in common."""
    total = 0.0
    for order in range(1, _ORDERS + 1):
        said, wanted = (Counter(zip(*(part[at:] for at in range(order)), strict=False)) for part in (words, reference))
        added = order > 1
        hits, every = (said & wanted).total() + added, said.total() + added
        if not hits or not every:
            return 0.0
        total += log(hits / every)
    return exp(total / _ORDERS + min(0.0, 1 - len(reference) / len(words)))


def slot_f1(words: Sequence[str], reference: Sequence[str]) -> float:
    """Return F1 of the slots, 1 where there are none."""
    said, wanted = (Counter(word for word in part if SLOT.fullmatch(word)) for part in (words, reference))
    every = said.total() + wanted.total()
    return 2 * (said & wanted).total() / every if every else 1.0


def advantages(rewards: Sequence[float], samples: int) -> list[float]:
    """Return each reward less the mean of the other samples of its text; the samples of a text stand together.

    Self-critical training with the other samples as the baseline (Luo 2020, of Rennie et al. 2017).
    """
    found = []
    for start in range(0, len(rewards), samples):
        own = rewards[start : start + samples]
        found += [reward - (sum(own) - reward) / (samples - 1) for reward in own]
    return found


_REWARDS: Final[Mapping[str, Callable[[Sequence[str], Sequence[str]], float]]] = {
    "bleu": sentence_bleu,
    "rouge_l": rouge_l,
    "slots": slot_f1,
}
