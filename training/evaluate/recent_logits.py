"""The logits of the texts that a model was asked last: sets of several tasks share texts, and one pass answers all tasks."""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from ...runtime.model.batch_rows import Logits
from ...runtime.model.inputs import Input
from ...runtime.model.model import Model
from ...runtime.model.texts.tokenizing import Encoded
from ..kinds.registry import kind_of

KEPT_TOKENS: Final = 100_000
"""A model keeps the logits of texts of so many tokens together: some ten megabytes for each task that labels tokens."""


class Asked(NamedTuple):
    """One text, and by task its logits: [C], for tagging [S, C]."""

    encoded: Encoded
    logits: dict[str, NDArray[Any]]


class RecentLogits:
    """The texts that one model was asked last, the oldest first."""

    def __init__(self) -> None:
        self._kept: dict[Input, Asked] = {}
        self._tokens = 0

    def ask(self, model: Model, texts: Sequence[Input]) -> list[Asked]:
        """Return what the model says to each text; only texts that are not kept are run. Their order is that of the batches."""
        found = {text: self._kept[text] for text in texts if text in self._kept}
        for batch, inputs in model.batches([text for text in dict.fromkeys(texts) if text not in found]):
            logits = model.run(batch)
            by_task = {
                name: kind_of(model.tasks[name]).serving.split_rows(values, logits.starts)
                for name, values in logits.values.items()
            }
            for at, (text, tokenised) in enumerate(zip(inputs, batch, strict=True)):
                (encoded,) = tokenised.rows
                found[text] = Asked(encoded, {name: rows[at].copy() for name, rows in by_task.items()})
                self._keep(text, found[text])
        return [found[text] for text in texts]

    def _keep(self, text: Input, asked: Asked) -> None:
        self._kept[text] = asked
        self._tokens += asked.encoded.tokens
        while self._tokens > KEPT_TOKENS:
            oldest = next(iter(self._kept))
            self._tokens -= self._kept.pop(oldest).encoded.tokens


_BY_MODEL: Final[WeakKeyDictionary[Model, RecentLogits]] = WeakKeyDictionary()


def ask(model: Model, texts: Sequence[Input]) -> list[Asked]:
    """Return what the model says to each text; what it was asked lately is not run again."""
    return _BY_MODEL.setdefault(model, RecentLogits()).ask(model, texts)


def join_logits(asked: Sequence[Asked], task: str, *, by_token: bool) -> Logits:
    """Return the logits of one task as those of one batch."""
    rows = [each.logits[task] for each in asked]
    starts = np.concatenate([[0], np.cumsum([each.encoded.tokens for each in asked])])
    return Logits({task: np.concatenate(rows) if by_token else np.stack(rows)}, starts)
