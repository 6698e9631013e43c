"""A request for a person to review an answer or an example: the value of `murmura.reviews`. It has no text."""

from enum import StrEnum
from typing import Annotated, Final, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from .experiment import ExperimentId
from .feedback import Id, PredictionId
from .result import ModelRef, Score, Source, UtcTime

REVIEW_TYPE: Final = "murmura.review.v1"
"""CloudEvents type of a review request."""


class ReviewReason(StrEnum):
    MARGIN = "margin"
    """The scores of the two best labels were close."""
    OUT_OF_SCOPE = "out_of_scope"
    """The out-of-scope score was close to its threshold."""
    ERROR = "error"
    """A held-out example with a different, confident answer."""
    LABEL_ERROR = "label_error"
    """A training example with a doubtful label."""
    LOW_SCORE = "low_score"
    """A reply that the model worded had a low score, so that its template was sent."""
    FILTERED = "filtered"
    """A turn, or a reply that the model worded, was found harmful. `predicted` is the label."""
    SUGGESTED = "suggested"
    """One of the texts that would teach the model most, chosen by `murmura suggest`."""
    RANDOM = "random"
    """Drawn at random from all answers, whatever they are."""
    DISAGREEMENT = "disagreement"
    """Two versions answered the request differently. `model` is the one whose answer was sent."""


_WITHOUT_SCORE: Final = frozenset(
    {ReviewReason.RANDOM, ReviewReason.FILTERED, ReviewReason.SUGGESTED, ReviewReason.DISAGREEMENT}
)
_OF_EXPERIMENTS: Final = frozenset({ReviewReason.RANDOM, ReviewReason.DISAGREEMENT})


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class ExampleRef(_Frozen):
    """A row of a data file: the file as the recipe names it, and its line from 1."""

    file: Annotated[str, Field(min_length=1, max_length=500)]
    line: Annotated[int, Field(ge=1)]


class Review(_Frozen):
    """An answer to review. The person's decision is sent as feedback on the prediction id."""

    prediction_id: PredictionId | None = None
    """Set for a live prediction, and for an example that was made from feedback."""
    agent: Id | None = None
    task: Id
    why: ReviewReason
    model: ModelRef
    """The model of the scores."""
    source: Source | None = None
    """Coordinates of the request with the text."""
    example: ExampleRef | None = None
    """The row of an example that was not a request."""
    predicted: str | None = None
    """The model's label, also when it was withheld."""
    given: str | None = None
    """The label that the example has."""
    score: Score | None = None
    """Of what was predicted; none where the answer is more than one label."""
    margin: Score | None = None
    """Between the two best labels."""
    out_of_scope: Score | None = None
    threshold: Score | None = None
    """The `out_of_scope` score from which the answer is withheld."""
    sampling_rate: Annotated[float, Field(gt=0, le=1)] | None = None
    """`random`: the probability with which this task of this request was drawn. With `experiment`: that of the request's
    unit times that of the task.
    """
    experiment: ExperimentId | None = None
    """`random`: the experiment for which a unit was drawn, of which this is one request. `disagreement`: the one that compares."""
    at: UtcTime

    @model_validator(mode="after")
    def _says_what_to_look_at(self) -> Self:
        live = self.why not in {ReviewReason.ERROR, ReviewReason.LABEL_ERROR}
        if live and not (self.prediction_id and self.agent and self.source):
            raise ValueError(f"a review for {self.why} needs prediction_id, agent and source")
        if (self.sampling_rate is None) == (self.why is ReviewReason.RANDOM):
            raise ValueError("sampling_rate belongs to random reviews, and each of them has one")
        if self.experiment is not None and self.why not in _OF_EXPERIMENTS:
            raise ValueError(f"a review for {self.why} belongs to no experiment")
        if self.score is None and self.why not in _WITHOUT_SCORE:
            raise ValueError(f"a review for {self.why} needs a score")
        if self.prediction_id is None and self.example is None:
            raise ValueError("a review needs a prediction_id or an example")
        return self

    @property
    def key(self) -> str:
        """The record's key: the prediction id, else the row of the example."""
        if self.prediction_id is not None:
            return self.prediction_id
        assert self.example is not None
        return f"{self.example.file}:{self.example.line}"
