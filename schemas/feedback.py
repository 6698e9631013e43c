"""A person's verdict on a prediction: the value of `murmura.feedback`, keyed by its own id."""

from enum import StrEnum
from itertools import pairwise
from typing import Annotated, Any, Final, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from .result import ModelRef, Source, UtcTime

FEEDBACK_TYPE: Final = "murmura.feedback.v1"
"""CloudEvents type of feedback."""

PredictionId = Annotated[str, StringConstraints(pattern="^[0-9a-f]{32}$")]
Id = Annotated[str, StringConstraints(min_length=1, max_length=200)]
LABEL_CHARACTERS: Final = 200
WORDING_CHARACTERS: Final = 2000
"""Maximum length of a correction that is a reply."""
Label = Annotated[str, StringConstraints(min_length=1, max_length=LABEL_CHARACTERS)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]


class Verdict(StrEnum):
    CORRECTION = "correction"
    """Wrong; `value` is the correct answer."""
    CONFIRMED = "confirmed"
    """Right as it was answered."""
    UP = "up"
    DOWN = "down"
    REWARD = "reward"
    """`value` is a number, with a meaning defined by the sender."""
    WITHDRAWN = "withdrawn"
    """`value` is the id of the withdrawn feedback."""

    @property
    def agrees(self) -> bool | None:
        """Whether the verdict confirms the prediction; None when it does not say."""
        return _AGREES.get(self)


_AGREES: Final = {Verdict.CONFIRMED: True, Verdict.UP: True, Verdict.CORRECTION: False, Verdict.DOWN: False}


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class FeedbackSpan(_Frozen):
    """A correctly tagged part of the request's text. Unicode code points, `end` exclusive."""

    label: Label
    start: Annotated[int, Field(ge=0)]
    end: Annotated[int, Field(ge=1)]

    @model_validator(mode="after")
    def _is_not_empty(self) -> Self:
        if self.end <= self.start:
            raise ValueError(f"a span cannot reach from {self.start} to {self.end}")
        return self


class Feedback(_Frozen):
    """One person's verdict on one task of one prediction. It carries no text: that stays with the request."""

    id: Id
    """Of feedback with the same id the first counts."""
    prediction_id: PredictionId
    agent: Id
    """The agent that made the prediction."""
    task: Id
    model: ModelRef | None = None
    """Which version answered, where known."""
    source: Source | None = None
    """Of the request, where known."""
    verdict: Verdict
    value: str | list[Label] | list[FeedbackSpan] | Number | None = None
    """A correction: the label, or all labels, or all spans, or the words of a reply, at most 2,000 characters. A reward: a
    number. Withdrawn: an id. Else nothing.
    """
    by: Id
    """The author. Of several verdicts of one person the last counts."""
    at: UtcTime
    consent: Annotated[bool, Field(strict=True)] = False
    """Whether the text may be trained on with this verdict."""
    blind: Annotated[bool, Field(strict=True)] = Field(default=False, exclude_if=lambda blind: not blind)
    """Whether the answer, its score and its version were hidden from the person until the verdict was given. Rules of
    experiments use no other.
    """

    @model_validator(mode="after")
    def _value_fits_the_verdict(self) -> Self:
        expected = _EXPECTED.get(self.verdict)
        if expected is None:
            if self.value is not None:
                raise ValueError(f"verdict {self.verdict} has no value, found {_describe_value(self.value)}")
        elif not isinstance(self.value, expected[0]):
            raise ValueError(
                f"verdict {self.verdict} needs {expected[1]} as its value, found {_describe_value(self.value)}"
            )
        elif isinstance(self.value, str):
            most = WORDING_CHARACTERS if self.verdict is Verdict.CORRECTION else LABEL_CHARACTERS
            if not 1 <= len(self.value) <= most:
                raise ValueError(f"a value of {len(self.value)} characters: expected 1 to {most}")
        elif isinstance(self.value, list):
            _refuse_double(self.value)
        return self


_EXPECTED: Final[dict[Verdict, tuple[tuple[type, ...], str]]] = {
    Verdict.CORRECTION: ((str, list), "a label, a list of labels, a list of spans or a reply"),
    Verdict.REWARD: ((float, int), "a number"),
    Verdict.WITHDRAWN: ((str,), "the id of the feedback that is taken back"),
}


def _describe_value(value: Any) -> str:
    # Never the value itself: these messages become headers of dead letters.
    if value is None:
        return "none"
    return "a string" if isinstance(value, str) else "a list" if isinstance(value, list) else "a number"


def _refuse_double(values: list[Any]) -> None:
    spans = sorted((v.start, v.end) for v in values if isinstance(v, FeedbackSpan))
    if any(end > start for (_, end), (start, _) in pairwise(spans)):
        raise ValueError("spans overlap: a word has one tag")
    labels = [value for value in values if isinstance(value, str)]
    if len(set(labels)) != len(labels):
        raise ValueError("a label is named twice")
