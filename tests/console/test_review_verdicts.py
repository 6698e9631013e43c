"""What people enter becomes a verdict, and what they may not enter is refused in one line."""

import pytest
from review_items import make_item, make_task

from murmura.console.review.item import Guess, canonical, guess_of_output, guess_of_review
from murmura.console.review.posted import BadEntry, read_posted, write_spans
from murmura.console.review.tasks import reply_task
from murmura.schemas.feedback import Verdict
from murmura.schemas.manifest import Thresholds
from murmura.schemas.review import ReviewReason

TAGS = ("O", "B-city", "I-city", "B-day", "I-day")
SPANS = [{"start": 3, "end": 8, "label": "city"}]


def tagging_item(**fields):
    task = make_task("tagging", TAGS)
    output = {"kind": "tagging", "spans": [{"label": "city", "text": "Paris", "start": 3, "end": 8, "score": 0.9}]}
    return make_item(task=task, guess=guess_of_output(task, output), text="to Paris on Friday", **fields)


def test_the_guess_is_confirmed_and_another_label_is_a_correction() -> None:
    item = make_item()
    assert read_posted({"label": ["refund"]}, item)[:2] == (Verdict.CONFIRMED, None)
    assert read_posted({"label": ["loan "]}, item)[:2] == (Verdict.CORRECTION, "loan")


def test_of_a_random_item_nothing_is_shown_and_the_choice_is_compared() -> None:
    item = make_item(why=ReviewReason.RANDOM)
    assert item.shown == Guess()
    assert read_posted({"label": ["refund"]}, item).verdict is Verdict.CONFIRMED
    assert read_posted({"label": ["loan"]}, item).verdict is Verdict.CORRECTION


def test_the_label_of_a_withheld_answer_is_a_correction() -> None:
    task = make_task(thresholds=Thresholds(accept=0.6))
    output = {"label": None, "score": 0.5, "abstained": True, "reason": "below_threshold"}
    guess = guess_of_output(task, {**output, "alternatives": [{"label": "refund", "score": 0.5}]})
    assert guess == guess_of_review(task, "refund", 0.5) == Guess("refund", 0.5, None)
    item = make_item(task=task, guess=guess)
    assert read_posted({"label": ["refund"]}, item)[:2] == (Verdict.CORRECTION, "refund")
    assert guess_of_review(task, "refund", 0.7).answer == canonical("refund")


def test_several_labels_are_compared_as_a_set() -> None:
    task = make_task("multi_label")
    output = {"labels": [{"label": "loan", "score": 0.9}, {"label": "refund", "score": 0.7}]}
    item = make_item(task=task, guess=guess_of_output(task, output))
    assert read_posted({"label": ["refund", "loan"]}, item).verdict is Verdict.CONFIRMED
    assert read_posted({}, item)[:2] == (Verdict.CORRECTION, [])


def test_spans_are_entered_as_lines() -> None:
    item = tagging_item()
    assert write_spans(item.guess.value) == "3 8 city"
    assert read_posted({"spans": ["3 8 city\r\n"]}, item).verdict is Verdict.CONFIRMED
    both = read_posted({"spans": ["12 18 day\n3 8 city"]}, item)
    assert both[:2] == (Verdict.CORRECTION, [*SPANS, {"start": 12, "end": 18, "label": "day"}])


def test_the_words_of_a_reply_are_edited() -> None:
    item = make_item(task=reply_task("reply"), guess=Guess("How much?", 0.4, canonical("How much?")))
    assert read_posted({"reply": ["How much? "]}, item).verdict is Verdict.CONFIRMED
    assert read_posted({"reply": ["How much\r\nwas it?"]}, item).value == "How much\nwas it?"


def test_an_open_task_takes_a_new_label() -> None:
    assert (
        read_posted({"label": ["loan"], "new_label": [" card "]}, make_item(task=make_task(open=True))).value == "card"
    )


@pytest.mark.parametrize(
    ("item", "posted", "says"),
    [
        (make_item(), {}, "no label is chosen"),
        (make_item(), {"label": ["refnd"]}, "has no label 'refnd'; did you mean refund"),
        (make_item(), {"new_label": ["x" * 201]}, "201 characters"),
        (tagging_item(), {"spans": ["3 8"]}, "expected `start end label`"),
        (tagging_item(), {"spans": ["3 99 city"]}, "the text has characters 0 to 18"),
        (tagging_item(), {"spans": ["3 8 city\n5 9 day"]}, "overlap"),
        (tagging_item(), {"spans": ["3 8 O"]}, "has no label 'O'"),
        (tagging_item(), {"spans": ["2 3 city"]}, "nothing but blanks"),
        (make_item(task=reply_task("reply")), {"reply": [" \n"]}, "the reply is empty"),
        (make_item(task=reply_task("reply")), {"reply": ["x" * 2001]}, "2001 characters"),
    ],
)
def test_what_is_no_answer_is_refused(item, posted, says) -> None:
    with pytest.raises(BadEntry, match=says):
        read_posted(posted, item)
