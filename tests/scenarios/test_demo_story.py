"""The learning demo's story ends where a stage fails, and says why."""

from pathlib import Path

import pytest

from murmura.scenarios.stage.board import Board, Stage, State
from murmura.scenarios.stage.desk import Desk
from murmura.scenarios.stage.exam import Paper
from murmura.scenarios.support import learn
from murmura.scenarios.support.learn import Pace, Script, Story

PAPER = Paper("intent", "new product", {f"question {number}": "loan" for number in range(8)})


class Post:
    """Takes every message; each becomes what `fate` makes of it."""

    def __init__(self, desk: Desk, fate) -> None:
        self.desk, self.fate, self.count = desk, fate, 0

    async def send(self, sample):
        self.count += 1
        message = self.desk.add_message((0, self.count), sample.text, 0.0)
        self.fate(self.desk, (0, self.count))
        return message


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(learn, "ANSWER_S", 0.02)


@pytest.mark.parametrize(
    ("fate", "why"),
    [
        (lambda desk, place: None, "no answer to a message within 0.02 s"),
        (lambda desk, place: desk.add_dead_letter(place, "agent_failed", 0.1), "became a dead letter: agent_failed"),
    ],
)
async def test_a_message_without_an_answer_ends_the_story_with_a_line(fate, why):
    desk, board = Desk(frozenset({"classification"})), Board()
    script = Script([PAPER], [], Path("job.yaml"), Pace(warm=0, usual=0))
    await Story(script, desk, Post(desk, fate), board).run()
    assert why in board.failed
    assert board.steps[Stage.BEFORE].state is State.FAILED
    assert board.steps[Stage.CORRECT].state is State.WAITING
