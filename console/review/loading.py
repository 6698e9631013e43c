"""Makes items of reviews: joins them with their texts and answers, or says why a review is none. Pure."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from pydantic import ValidationError

from ...schemas.review import Review
from .item import SHOWN_CHARACTERS, Guess, Place, ReviewItem, guess_of_output, guess_of_review, item_key
from .requests import REPLY, Found
from .tasks import EntryForm, ReviewTask, reply_task

REPLYING_AGENT = "dialogue"


class NotReviewed(StrEnum):
    """Why a review is not shown. It is counted, and not read again."""

    UNREADABLE = "unreadable"
    NO_PREDICTION = "no_prediction"
    """It is about a training row, which is mended in its file."""
    UNKNOWN_TASK = "unknown_task"
    """The model has no such task, or people cannot enter its answers here."""
    REQUEST_GONE = "request_gone"
    """The text is not on the broker any more."""
    REQUEST_HIDDEN = "request_hidden"
    """Its topic does not exist, or this user may not see it."""
    REQUEST_UNREADABLE = "request_unreadable"


def read_review(value: bytes | None) -> Review | None:
    """Return the review in a record's value; None for anything else."""
    try:
        return Review.model_validate_json(value or b"")
    except ValidationError:
        return None


def find_task(review: Review, tasks: Mapping[str, ReviewTask]) -> ReviewTask | None:
    """Return how people answer it; None where they cannot."""
    found = tasks.get(review.task)
    return reply_task(review.task) if found is None and review.agent == REPLYING_AGENT else found


def make_item(review: Review, found: Found, tasks: Mapping[str, ReviewTask], place: Place) -> ReviewItem | NotReviewed:
    """Return the item of a review. `place`: where the review lies."""
    if review.prediction_id is None or review.agent is None or review.source is None:
        return NotReviewed.NO_PREDICTION
    task = find_task(review, tasks)
    if task is None:
        return NotReviewed.UNKNOWN_TASK
    request = found.request_of(review.source)
    if request is None:
        return NotReviewed(f"request_{found.lack_of(review.source).value}")
    return ReviewItem(
        key=item_key(review.prediction_id, review.task),
        prediction_id=review.prediction_id,
        agent=review.agent,
        task=task,
        why=review.why,
        text=request.text[:SHOWN_CHARACTERS],
        text_pair=None if request.text_pair is None else request.text_pair[:SHOWN_CHARACTERS],
        characters=len(request.text),
        guess=_guess(review, task, found.answers.get(review.prediction_id, {})),
        place=place,
        model=review.model,
        source=review.source,
    )


def _guess(review: Review, task: ReviewTask, outputs: Mapping[str, Any]) -> Guess:
    output = outputs.get(review.task) or (outputs.get(REPLY) if task.form is EntryForm.REPLY else None)
    if output is not None:
        try:
            guess = guess_of_output(task, output)
        except (AttributeError, KeyError, TypeError, ValueError, IndexError):  # another program's result
            guess = None
        if guess is not None:
            return Guess(guess.value, review.score if guess.score is None else guess.score, guess.answer)
    return guess_of_review(task, review.predicted, review.score)
