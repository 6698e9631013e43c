"""The stages of the learning demo: ask, correct, retrain, swap, ask again, during the customers' traffic."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ...runtime.errors import MurmuraError
from ...schemas.feedback import Verdict
from ..stage.board import Board, Figure, Phase, Stage
from ..stage.desk import Desk, Message
from ..stage.exam import Paper
from ..stage.person import feedback_on
from ..stage.subcommand import run_subcommand
from ..stage.traffic import Customers, text_sample, until_true
from .questions import NEW_PRODUCT, NEW_QUEUE

SWAP_S: Final = 600.0
"""How long the release may take to serve: on a machine with other work the trial of a version alone takes minutes."""
ANSWER_S: Final = 30.0
_AT_ONCE: Final = 4
"""Maximum number of open messages while questions are asked, to avoid a backlog."""
PEOPLE: Final = ("ann", "bo", "cem")


@dataclass(frozen=True)
class Pace:
    """How long a viewer is given, in seconds."""

    warm: float = 2.0
    """With cold caches the first answers are slower: they are not measured."""
    usual: float = 10.0
    """How long the usual latency is measured before the first stage."""
    correction: float = 0.12
    """Between a person's corrections."""
    around: float = 5.0
    """How long after the swap still counts as around it."""


QUICK_PACE: Final = Pace(warm=1.0, usual=3.0, correction=0.0, around=2.0)


@dataclass(frozen=True)
class Script:
    """The inputs, read before the start."""

    papers: Sequence[Paper]
    corrections: Sequence[dict[str, Any]]
    """Messages about the new product: `text`, and the `intent` that people give as correct."""
    job: Path
    pace: Pace = Pace()


class Story:
    """Runs the stages in order. Results and failures are on the board."""

    def __init__(self, script: Script, desk: Desk, customers: Customers, board: Board) -> None:
        self._script, self._desk, self._customers, self._board = script, desk, customers, board
        for paper in script.papers:
            board.figures[paper.task, paper.name] = Figure(len(paper.answers))
        desk.on_settled.append(board.add_latency)

    async def run(self) -> None:
        """Run all stages, or up to the first failure."""
        try:
            await self._answer()
            await self._ask(Stage.BEFORE)
            await self._correct()
            await self._retrain()
            await self._ask(Stage.AFTER)
        except* MurmuraError as errors:  # several messages may be open when one goes wrong
            self._board.fail(str(errors.exceptions[0]))

    async def _answer(self) -> None:
        self._board.begin(Stage.ANSWER, time.monotonic(), "what customers write, all tasks in one pass")
        await asyncio.sleep(self._script.pace.warm)
        self._board.phase = Phase.USUAL
        await asyncio.sleep(self._script.pace.usual)
        self._board.phase = None
        self._board.end(Stage.ANSWER, time.monotonic(), f"version {self._board.version}; it goes on to the end")

    async def _ask(self, stage: Stage) -> None:
        """Ask every question of every paper, and record the scores."""
        board, papers = self._board, self._script.papers
        texts = list(dict.fromkeys(text for paper in papers for text in paper.answers))
        board.begin(stage, time.monotonic())

        async def note(number: int, message: Message) -> None:
            board.report(stage, f"{number} of {len(texts)} messages with known answers")

        by_text = dict(zip(texts, await self._send_all(texts, note), strict=True))
        for paper in papers:
            board.figures[paper.task, paper.name].note(paper.score(by_text), after=stage is Stage.AFTER)
        right = board.figures["intent", NEW_PRODUCT].latest
        board.end(stage, time.monotonic(), f"{len(texts)} messages; of the new product {100 * right:.0f} % right")

    async def _correct(self) -> None:
        """Send messages about the new product, and corrections of their answers."""
        rows, board = self._script.corrections, self._board
        by_text = {row["text"]: row["intent"] for row in rows}
        board.begin(Stage.CORRECT, time.monotonic())

        async def correct(number: int, message: Message) -> None:
            intent, person = by_text[message.text], PEOPLE[number % len(PEOPLE)]
            message.verdict = f"={intent}"
            right = {"intent": intent, "queue": NEW_QUEUE}
            await self._customers.judge(
                *(feedback_on(message, task, Verdict.CORRECTION, label, person) for task, label in right.items())
            )
            board.report(Stage.CORRECT, f"{number} of {len(rows)} messages, by {', '.join(PEOPLE)}")
            await asyncio.sleep(self._script.pace.correction)

        await self._send_all(list(by_text), correct)
        labels = len(set(by_text.values()))
        summary = f"{len(by_text)} messages: {2 * len(by_text)} verdicts, {labels} new intents, a new queue"
        board.end(Stage.CORRECT, time.monotonic(), summary)

    async def _retrain(self) -> None:
        """Run the job during the traffic, until the new version serves."""
        board = self._board
        board.begin(Stage.RETRAIN, time.monotonic(), "starting")
        board.phase = Phase.TRAINING
        async with run_subcommand(
            "retrain", str(self._script.job), "--quiet", on_line=board.read_process_line
        ) as process:
            await process.finish()
        if not await until_true(lambda: board.swapped or board.failed is not None, SWAP_S):
            raise MurmuraError("the new version did not go live")
        if board.failed is not None:
            raise MurmuraError(board.failed)
        await asyncio.sleep(self._script.pace.around)
        board.phase = None

    async def _send_all(
        self, texts: Sequence[str], on_answer: Callable[[int, Message], Awaitable[None]]
    ) -> list[Message]:
        """Send messages, a few at a time; `on_answer` gets the number of answers so far and the answered message."""
        slots, done = asyncio.Semaphore(_AT_ONCE), 0

        async def send_one(text: str) -> Message:
            nonlocal done
            async with slots:
                message = await self._customers.send(text_sample(text))
                if not await until_true(lambda: message.settled, ANSWER_S):
                    raise MurmuraError(f"no answer to a message within {ANSWER_S:g} s")
                if message.dead is not None:
                    raise MurmuraError(f"a message of the demo's became a dead letter: {message.dead}")
                done += 1
                await on_answer(done, message)
            return message

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(send_one(text)) for text in texts]
        return [task.result() for task in tasks]
