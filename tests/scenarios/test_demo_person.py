"""What typed lines mean: messages, and verdicts on what was answered last."""

import pytest

from murmura.runtime.testing.fakes import classified
from murmura.scenarios.stage.desk import Answered, Desk
from murmura.scenarios.stage.keys import Line
from murmura.scenarios.stage.person import Person
from murmura.schemas.manifest import TaskSpec

TASKS = [TaskSpec(name="intent", kind="classification", labels=["fee", "card"])]
BY = Answered("classification", "0" * 32, "desk", 3)


class Post:
    """Takes what a person sends."""

    def __init__(self) -> None:
        self.sent, self.judged = [], []

    async def send(self, sample, *, typed=False):
        self.sent.append((sample.text, typed))

    async def judge(self, *feedback):
        self.judged += feedback


@pytest.fixture
def desk() -> Desk:
    desk = Desk(frozenset({"classification"}))
    for number, typed in enumerate((False, True, False)):
        desk.add_message((0, number), f"message {number}", 0.0, typed=typed)
        desk.add_result((0, number), "classification", {"intent": classified("fee", 0.9)}, 0.1, BY)
    return desk


@pytest.fixture
def post() -> Post:
    return Post()


async def test_a_line_is_a_message(desk, post):
    await Person(desk, post, TASKS).types("where is my card? + thanks")
    assert post.sent == [("where is my card? + thanks", True)]
    assert post.judged == []


@pytest.mark.parametrize(
    ("line", "verdict", "value"),
    [("+", "confirmed", None), ("-", "down", None), ("=loan_apply", "correction", "loan_apply")],
)
async def test_a_verdict_is_on_the_message_that_was_typed_last(desk, post, line, verdict, value):
    await Person(desk, post, TASKS).types(line)
    (given,) = post.judged
    assert (given.verdict, given.value, given.task, given.prediction_id) == (verdict, value, "intent", "0" * 32)
    assert given.model.version == 3
    assert given.consent
    assert [message.verdict is not None for message in desk.messages] == [False, True, False]


async def test_before_anything_is_answered_a_verdict_is_on_nothing(post):
    await Person(Desk(frozenset({"a"})), post, TASKS).types("+")
    assert post.judged == post.sent == []


def test_plus_and_minus_are_keys_only_at_the_beginning_of_a_line():
    line = Line()
    assert line.feed("+") == ["+"]
    assert line.feed("-") == ["-"]
    assert line.feed("a+b-c\r") == ["a+b-c"]
    assert line.feed("=loan\r") == ["=loan"]
