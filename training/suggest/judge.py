"""How useful the text of an answer is, by the kind of its task."""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ...runtime.errors import SetupError
from ...runtime.model.decoding import score_labels
from ...runtime.model.kinds.forms import AnswerForm
from ...runtime.model.kinds.registry import kind_of
from ...schemas.manifest import TaskSpec
from .strategy import Strategy, Tokens
from .usefulness import (
    score_disagreement,
    score_entropy,
    score_flags_entropy,
    score_flags_margin,
    score_margin,
    score_tokens,
    to_probabilities,
)

Array = NDArray[Any]


_FORMS: Final = {AnswerForm.LABEL, AnswerForm.LABELS, AnswerForm.SPANS}


def is_by_token(spec: TaskSpec) -> bool:
    """Return whether a task answers each token."""
    return kind_of(spec).form is AnswerForm.SPANS


class Judge:
    """Judges answers of one task. Raises SetupError for a task of a kind that has no scores to judge by."""

    def __init__(self, spec: TaskSpec, strategy: Strategy, tokens: Tokens) -> None:
        self._spec, self._form = spec, kind_of(spec).form
        self._strategy, self._tokens = strategy, tokens
        if self._form not in _FORMS or kind_of(spec).generates:
            raise SetupError(
                f"task {spec.name} is of kind {spec.kind}; texts are suggested for labels, several labels and spans"
            )
        self._calibration = spec.calibration
        limits = spec.thresholds
        self._limits = np.array([limits.labels.get(label, limits.label) for label in spec.labels])

    @property
    def by_token(self) -> bool:
        """Whether the task answers each token."""
        return is_by_token(self._spec)

    def judge(self, logits: Array, is_special: Array) -> float:
        """Return the usefulness of a text by its logits [C], for tagging [S, C] with `is_special` [S]; by disagreement those of
        all passes, [T, C] or [T, S, C].
        """
        if self.by_token:
            logits = logits[..., ~is_special.astype(bool), :]
        scores = self._scores(logits)
        if self._strategy is Strategy.DISAGREEMENT:
            found = score_disagreement(scores, self._entropy)
        else:
            found = self._entropy(scores) if self._strategy is Strategy.ENTROPY else self._margin(scores)
        return score_tokens(found, self._tokens.value) if self.by_token else float(found)

    def _scores(self, logits: Array) -> Array:
        if self._form is AnswerForm.LABELS:
            return score_labels(logits, self._calibration)
        return to_probabilities(logits, self._calibration.temperature)

    @property
    def _entropy(self) -> Callable[[Array], Array]:
        return score_flags_entropy if self._form is AnswerForm.LABELS else score_entropy

    def _margin(self, scores: Array) -> Array:
        return score_flags_margin(scores, self._limits) if self._form is AnswerForm.LABELS else score_margin(scores)
