"""Replies without a trained decoder, which generated ones are held against. Pure."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ....schemas.acts import Act, ActName
from ...data.example import Example
from .scores import split_reply

NEAREST: Final = 15
_AT_ONCE: Final = 256
Array = NDArray[Any]


class Contexts(NamedTuple):
    """Training rows with the vectors [N, H] of what their task reads, and those [M, H] of the rows to answer."""

    train: Sequence[Example]
    vectors: Array
    given: Array


def answer_baselines(
    train: Sequence[Example], rows: Sequence[Example], *, acts: bool, contexts: Contexts | None = None
) -> dict[str, list[str]]:
    """Return the replies of each baseline by name: `consensus` where vectors are given, `template` where acts are read."""
    found = {"most_common": [most_common_reply(train)] * len(rows)}
    if contexts is not None:
        found["consensus"] = consensus_replies(*contexts)
    if acts:
        found["template"] = template_replies(train, rows)
    return found


def most_common_reply(train: Sequence[Example]) -> str:
    """Return the most common reply; of equally common ones the first."""
    return _most_common(_reply_of(example) for example in train)


def template_replies(train: Sequence[Example], rows: Sequence[Example]) -> list[str]:
    """Return for each row the most common reply to its acts.

    To acts that training lacks, the most common one to acts of the same names, then the most common of all.
    """
    by_acts: dict[frozenset[Act], list[str]] = defaultdict(list)
    by_names: dict[frozenset[ActName], list[str]] = defaultdict(list)
    for example in train:
        by_acts[frozenset(example.acts)].append(_reply_of(example))
        by_names[_names(example)].append(_reply_of(example))
    chosen = {acts: _most_common(replies) for acts, replies in by_acts.items()}
    nearly = {names: _most_common(replies) for names, replies in by_names.items()}
    rest = most_common_reply(train)
    return [chosen.get(frozenset(row.acts)) or nearly.get(_names(row)) or rest for row in rows]


def consensus_replies(train: Sequence[Example], vectors: Array, given: Array) -> list[str]:
    """Return for each row of `given` [M, H] the reply that has most in common with those of the nearest contexts.

    Nearest by cosine among `vectors` [N, H] of the training rows, NEAREST of them; in common are words, a reply weighs as much as
    its context is near.
    """
    replies = [_reply_of(example) for example in train]
    bags = [Counter(word.lower() for word in split_reply(reply)) for reply in replies]
    known, found = _normalise(vectors), []
    for start in range(0, len(given), _AT_ONCE):
        for near in _normalise(given[start : start + _AT_ONCE]) @ known.T:
            nearest = np.argsort(-near, kind="stable")[:NEAREST]
            shares = [sum(near[other] * _overlap(bags[one], bags[other]) for other in nearest) for one in nearest]
            found.append(replies[nearest[int(np.argmax(shares))]])
    return found


def _overlap(one: Counter[str], other: Counter[str]) -> float:
    words = one.total() + other.total()
    return 2 * (one & other).total() / words if words else 0.0


def _normalise(vectors: Array) -> Array:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, np.finfo(np.float32).tiny))


def _most_common(replies: Iterable[str]) -> str:
    return Counter(replies).most_common(1)[0][0]


def _names(example: Example) -> frozenset[ActName]:
    return frozenset(act.act for act in example.acts)


def _reply_of(example: Example) -> str:
    assert example.reply is not None, "an example of a task of replies has one"
    return example.reply
