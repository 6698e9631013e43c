"""Items and feedback for tests of the review queue."""

import itertools
from datetime import UTC, datetime

from murmura.console.review.item import Guess, Place, ReviewItem, canonical, item_key
from murmura.console.review.tasks import ReviewTask, describe_task
from murmura.schemas.feedback import Feedback, Verdict
from murmura.schemas.manifest import TaskSpec
from murmura.schemas.review import ReviewReason

_ids = itertools.count()


def make_task(
    kind: str = "classification", labels: tuple[str, ...] = ("refund", "loan", "other"), **fields
) -> ReviewTask:
    task = describe_task(TaskSpec(name="intent", kind=kind, labels=list(labels), **fields))
    assert task is not None
    return task


def make_item(number: int = 0, *, task: ReviewTask | None = None, guess: Guess | None = None, **fields) -> ReviewItem:
    prediction_id = f"{number:032x}"
    task = task or make_task()
    text = fields.pop("text", "my money back")
    return ReviewItem(
        key=item_key(prediction_id, task.name),
        prediction_id=prediction_id,
        agent="classification",
        task=task,
        why=fields.pop("why", ReviewReason.MARGIN),
        text=text,
        guess=guess or (Guess("refund", 0.5, canonical("refund")) if "refund" in task.labels else Guess()),
        place=Place("requests", number % 3, number),
        characters=fields.pop("characters", len(text)),
        **fields,
    )


def make_feedback(item: ReviewItem, by: str, *, verdict: Verdict = Verdict.CONFIRMED, value=None) -> Feedback:
    return Feedback(
        id=f"f-{next(_ids)}",
        prediction_id=item.prediction_id,
        agent=item.agent,
        task=item.task.name,
        verdict=verdict,
        value=value,
        by=by,
        at=datetime.now(UTC),
    )
