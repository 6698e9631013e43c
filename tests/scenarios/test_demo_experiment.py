"""The demo of two experiments: what its versions learn from, and how its people judge."""

from collections import Counter
from datetime import UTC, datetime

import pytest

from murmura.scenarios.support.experiment.people import ERRORS, People
from murmura.scenarios.support.experiment.versions import FEW, OUT_OF_SCOPE, TASK, WRONG, make_versions, read_answers
from murmura.schemas.feedback import Verdict
from murmura.schemas.review import Review

ANSWERS = {f"text {number}": ("pin", "cash", OUT_OF_SCOPE)[number % 3] for number in range(3000)}


def make_review(predicted: str | None = "pin") -> Review:
    return Review.model_validate(
        {
            "prediction_id": "0" * 32,
            "agent": "classification",
            "task": TASK,
            "why": "random",
            "model": {"name": "queues", "version": 1},
            "source": {"topic": "support.tickets", "partition": 0, "offset": 7, "timestamp": 1},
            "predicted": predicted,
            "sampling_rate": 1.0,
            "at": datetime.now(UTC),
        }
    )


def test_no_version_learns_from_a_message_that_customers_write():
    asked = set(read_answers())

    for version in make_versions():
        assert asked.isdisjoint(row["text"] for row in version.rows), version.name


def test_the_first_version_has_a_handful_of_examples_of_each_queue_and_the_better_one_all():
    first, better, _ = make_versions()

    assert set(Counter(row[TASK] for row in first.rows).values()) == {FEW}
    assert {row["text"] for row in first.rows} < {row["text"] for row in better.rows}
    assert {row[TASK] for row in first.rows} == set(read_answers().values())


def test_the_worse_version_has_the_same_texts_with_wrong_labels():
    _, better, worse = make_versions()

    changed = sum(one[TASK] != other[TASK] for one, other in zip(better.rows, worse.rows, strict=True))
    assert [row["text"] for row in worse.rows] == [row["text"] for row in better.rows]
    assert changed / len(worse.rows) == pytest.approx(WRONG, abs=0.08)  # a drawn label may be the right one


def test_people_agree_with_right_answers_but_for_their_errors():
    people = People(ANSWERS)

    verdicts = Counter(people.judge(make_review(), text, {"label": label}).verdict for text, label in ANSWERS.items())

    assert verdicts[Verdict.CORRECTION] / len(ANSWERS) == pytest.approx(ERRORS, abs=0.02)


@pytest.mark.parametrize(
    ("right", "output", "verdict"),
    [
        (OUT_OF_SCOPE, {"label": None, "reason": "out_of_scope"}, Verdict.CONFIRMED),
        (OUT_OF_SCOPE, {"label": "pin"}, Verdict.CORRECTION),
        ("pin", {"label": None, "reason": "out_of_scope"}, Verdict.CORRECTION),
        ("pin", {"label": None, "reason": "below_threshold"}, Verdict.CORRECTION),
        ("pin", {"label": "cash"}, Verdict.CORRECTION),
    ],
)
def test_people_give_the_right_label_to_a_wrong_answer(right, output, verdict):
    feedback = People({"a": right, "b": "cash"}, errors=0.0).judge(make_review(), "a", output)

    assert (feedback.verdict, feedback.value) == (verdict, None if verdict is Verdict.CONFIRMED else right)
