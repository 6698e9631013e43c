"""Puts a live answer before a person in the review queue, whoever else was asked about it."""

from http import HTTPStatus

from pydantic import ValidationError

from ...runtime.wire.request import Incoming
from ...schemas.feedback import Verdict
from ..review.desk import make_feedback
from ..review.item import NO_PLACE, SHOWN_CHARACTERS, Guess, ReviewItem, guess_of_output, item_key
from ..review.live import LiveReviews
from ..review.posted import Judgement
from ..review.tasks import EntryForm, ReviewTask, reply_task
from ..web.people import Refused
from .result import REPLY_TASK, LiveResult


def make_item(result: LiveResult, request: Incoming, task: ReviewTask) -> ReviewItem:
    """Return the item of an answer that somebody chose. Pure."""
    try:
        guess = guess_of_output(task, result.outputs[task.name])
    except (AttributeError, KeyError, TypeError, ValueError, IndexError):  # another program's result
        guess = Guess()
    return ReviewItem(
        key=item_key(result.prediction_id, task.name),
        prediction_id=result.prediction_id,
        agent=result.agent,
        task=task,
        why=None,
        text=request.text[:SHOWN_CHARACTERS],
        text_pair=None if request.text_pair is None else request.text_pair[:SHOWN_CHARACTERS],
        characters=len(request.text),
        guess=guess,
        place=NO_PLACE,
        model=result.model,
        source=result.source,
    )


def find_task(reviews: LiveReviews, result: LiveResult, task: str) -> ReviewTask | None:
    """Return how people enter another answer; None where they cannot. The words of a reply need no labels of a model."""
    found = reviews.tasks.get(task)
    if result.is_reply and task == REPLY_TASK:
        return found if found is not None and found.form is EntryForm.REPLY else reply_task(task)
    return found


def correct(
    reviews: LiveReviews, result: LiveResult, request: Incoming, task: str, holder: str, person: str, now: float
) -> None:
    """Put an answer before a browser. Raises Refused where it cannot be judged here."""
    known = find_task(reviews, result, task)
    if known is None or task not in result.outputs:
        raise Refused(HTTPStatus.CONFLICT, "The model whose labels the console has knows no such task.")
    item = make_item(result, request, known)
    try:
        make_feedback(item, Judgement(Verdict.CONFIRMED, None, ""), person, consent=False)
    except ValidationError:  # another program's ids
        raise Refused(HTTPStatus.CONFLICT, "No feedback can name this answer: its ids are of another form.") from None
    why_not = reviews.queue.ask_for(item, reviews.judges_of(item), holder, person, now)
    if why_not is not None:
        raise Refused(HTTPStatus.CONFLICT, why_not)
