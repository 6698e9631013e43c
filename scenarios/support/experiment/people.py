"""The people of the demo: they label the answers that are drawn for them, without seeing the model's guess, and err now and then."""

import random
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from ....schemas.feedback import Feedback, Verdict
from ....schemas.review import Review

ERRORS: Final = 0.1
"""Share of their labels that are wrong."""
NAMES: Final = ("ann", "bo", "cem")


def make_verdict(review: Review, correction: str | None, by: str) -> Feedback:
    """Return the verdict of a person who had not seen the answer: `correction` None confirms it."""
    return Feedback.model_validate(
        {
            "id": str(uuid.uuid4()),
            "prediction_id": review.prediction_id,
            "agent": review.agent,
            "task": review.task,
            "model": review.model,
            "verdict": Verdict.CONFIRMED if correction is None else Verdict.CORRECTION,
            "value": correction,
            "by": by,
            "at": datetime.now(UTC),
            "consent": True,
            "blind": True,
        }
    )


class People:
    """Turn reviews into verdicts, as the review screen does. Pure but for ids and the time of a verdict."""

    def __init__(self, answers: Mapping[str, str], *, errors: float = ERRORS, seed: int = 0) -> None:
        """`answers`: the right label of each text."""
        self._answers, self._errors = answers, errors
        self._labels = sorted(set(answers.values()))
        self._draw = random.Random(seed)

    def judge(self, review: Review, text: str, output: Mapping[str, Any]) -> Feedback:
        """Return the verdict on what was answered to a text; `output` is the answer of the review's task."""
        label = self._choose(self._answers[text])
        agrees = label == (output.get("label") or output.get("reason"))  # an answer may be `out_of_scope`
        return make_verdict(review, None if agrees else label, self._draw.choice(NAMES))

    def _choose(self, right: str) -> str:
        if self._draw.random() >= self._errors:
            return right
        return self._draw.choice([label for label in self._labels if label != right])
