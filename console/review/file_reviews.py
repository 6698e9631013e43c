"""The review queue on a file, without Kafka: rows without a label are items, and a verdict fills in the label."""

import asyncio
import time
from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path
from threading import Lock
from typing import Any, Final

from ...runtime.errors import SetupError
from ...runtime.model.deltas.assembled import resolve
from ...runtime.model.inputs import Input, TextPair, first_text
from ...runtime.model.model import Model
from ...runtime.observe.logs import get_logger
from ...runtime.spelling import suggest
from ...schemas.feedback import Feedback, FeedbackSpan, Verdict
from ...schemas.review import ReviewReason
from .desk import ReviewDesk
from .item import SHOWN_CHARACTERS, Guess, Place, ReviewItem, guess_of_output, item_key
from .queue import ReviewQueue
from .row_file import RowFile
from .screen import Facts
from .tasks import EntryForm, ReviewTask, describe_tasks

log = get_logger(__name__)

_PAUSE_S: Final = 0.5
"""Pause between two looks for room in the queue, and for what is not saved yet."""
_AT_ONCE: Final = 20
AGENT: Final = "file"


class FileReviews:
    """Verdicts are acknowledged when the file is written. Raises SetupError for a file or task that does not fit."""

    def __init__(
        self, path: Path, folder: Path, task: str | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self._model, self._clock = Model.load(resolve(folder), device="cpu"), clock
        self._task = choose_task(describe_tasks(self._model.manifest.tasks), task)
        self._file = RowFile(path, self._model.tasks[self._task.name])
        self._waiting = self._file.unlabelled()
        for at in self._waiting:
            self._file.read(at)  # a row without a text is refused at once
        self._rows: dict[str, int] = {}
        """By prediction id."""
        self._sent: dict[str, int] = {}
        """By id of feedback: the row that it filled in."""
        self.queue = ReviewQueue(overlap=0.0)
        self._woken = asyncio.Event()
        self.desk = ReviewDesk(self.queue, self._woken.set)
        self._trouble: str | None = None
        self._writing = Lock()
        """Held while rows are filled in and the file is written."""

    def facts(self) -> Facts:
        left = len(self._waiting)
        waiting = [(f"further rows of {self._file.path.name}, which follow", left)] if left else []
        return Facts(refused=self._trouble, left_out=waiting, takes_consent=False)

    async def run(self) -> None:
        """Fill the queue, and save beside it, until cancelled; what was given is saved at the end."""
        tasks = [asyncio.create_task(self._keep_filled()), asyncio.create_task(self._keep_saved())]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            self._note_saved(given := self._unsaved(), self._save(given))

    async def _keep_filled(self) -> None:
        while True:
            await self._fill_queue()
            await asyncio.sleep(_PAUSE_S)

    async def _keep_saved(self) -> None:
        """Save as soon as something is given, in a thread: a large file takes a while."""
        while True:
            try:
                async with asyncio.timeout(_PAUSE_S):
                    await self._woken.wait()
            except TimeoutError:
                pass
            self._woken.clear()
            if given := self._unsaved():
                self._note_saved(given, await asyncio.to_thread(self._save, given))
            self.queue.finish(self._clock())

    def _unsaved(self) -> list[Feedback]:
        return list(self.queue.unsent.values())

    def _save(self, given: Sequence[Feedback]) -> str | None:
        """Fill in and write what was given; return why not."""
        with self._writing:
            for feedback in given:
                self._apply(feedback)
            try:
                if given:
                    self._file.save()
            except SetupError as error:
                return str(error)
        return None

    def _note_saved(self, given: Sequence[Feedback], trouble: str | None) -> None:
        if trouble is not None and self._trouble is None:
            log.error("the file is not written", why=trouble)
        self._trouble = trouble
        for feedback in given if trouble is None else ():
            self.queue.acknowledge(feedback.id)

    def _apply(self, feedback: Feedback) -> None:
        at = self._rows[feedback.prediction_id]
        if feedback.verdict is Verdict.WITHDRAWN:
            self._file.fill(at, None)
        else:
            self._file.fill(at, _plain(feedback.value))

    async def _fill_queue(self) -> None:
        while self._waiting and self.queue.room:
            count = min(_AT_ONCE, self.queue.room)
            numbers, self._waiting = self._waiting[:count], self._waiting[count:]
            for item in await asyncio.to_thread(self._make_items, numbers):
                self.queue.add(item, now=self._clock())
            await asyncio.sleep(0)

    def _make_items(self, numbers: Sequence[int]) -> list[ReviewItem]:
        texts = [self._file.read(at) for at in numbers]
        guesses = [self._known_guess(at) for at in numbers]
        unknown = [at for at, guess in enumerate(guesses) if guess is None]
        for at, guess in zip(unknown, self._predict([texts[at] for at in unknown]), strict=True):
            guesses[at] = guess
        return [
            self._make_item(at, text, guess or Guess()) for at, text, guess in zip(numbers, texts, guesses, strict=True)
        ]

    def _known_guess(self, at: int) -> Guess | None:
        value, score = self._file.guess(at)
        fits = isinstance(value, str) if self._task.form is EntryForm.LABEL else isinstance(value, list)
        return Guess(value, score) if fits else None

    def _predict(self, texts: Sequence[Input]) -> list[Guess]:
        model, names = self._model, (self._task.name,)
        found: list[Guess] = []
        for batch, part in model.batches(texts):
            for output in model.decode(model.run(batch), batch, part, [names] * len(batch)):
                guess = guess_of_output(self._task, output[self._task.name])
                found.append(Guess(guess.value, guess.score))
        return found

    def _make_item(self, at: int, given: Input, guess: Guess) -> ReviewItem:
        name = blake2b(f"{self._file.path}/{at}".encode(), digest_size=16).hexdigest()
        self._rows[name] = at
        text = first_text(given)
        return ReviewItem(
            key=item_key(name, self._task.name),
            prediction_id=name,
            agent=AGENT,
            task=self._task,
            why=ReviewReason.SUGGESTED,
            text=text[:SHOWN_CHARACTERS],
            text_pair=given.second[:SHOWN_CHARACTERS] if isinstance(given, TextPair) else None,
            characters=len(text),
            guess=guess,
            place=Place(self._file.path.name, 0, at),
        )


def choose_task(tasks: dict[str, ReviewTask], name: str | None) -> ReviewTask:
    """Return the task to label. Raises SetupError where it has to be named."""
    labelled = {each.name: each for each in tasks.values() if each.form is not EntryForm.REPLY}
    if name is not None and name not in labelled:
        raise SetupError(f"--task: the model has no task {name!r} to label{suggest(name, labelled)}")
    if name is None and len(labelled) != 1:
        raise SetupError(f"--task: name the task to label, one of {', '.join(labelled) or 'none'}")
    return labelled[name] if name is not None else next(iter(labelled.values()))


def _plain(value: Any) -> Any:
    return (
        [each.model_dump() if isinstance(each, FeedbackSpan) else each for each in value]
        if isinstance(value, list)
        else value
    )
