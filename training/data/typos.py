"""Copies of texts with slips of the keyboard."""

import random
from dataclasses import replace

from .example import Example


def typo_copies(examples: list[Example], share: float, slips: random.Random) -> list[Example]:
    count = round(share * len(examples))
    chosen = slips.choices(examples, k=count) if count else []
    return [_copy(example, slips) for example in chosen]


def _copy(example: Example, slips: random.Random) -> Example:
    second = example.second
    return replace(
        example,
        text=_with_slip(example.text, slips),
        second=None if second is None else _with_slip(second, slips),
    )


def _with_slip(text: str, slips: random.Random) -> str:
    """Swap, drop or double one letter in about every sixth word."""
    words = text.split(" ")
    for index, word in enumerate(words):
        if len(word) < 3 or slips.random() > 1 / 6:
            continue
        at = slips.randrange(len(word) - 1)
        words[index] = slips.choice(
            [
                word[:at] + word[at + 1] + word[at] + word[at + 2 :],
                word[:at] + word[at + 1 :],
                word[: at + 1] + word[at:],
            ]
        )
    return " ".join(words)
