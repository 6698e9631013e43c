"""The two experiments of the demo, one after the other, during the customers' traffic."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ....runtime.errors import MurmuraError
from ....runtime.settings.settings import Settings
from ....schemas.review import Review
from ....schemas.serving_event import ServingEvent, ServingEventKind
from ...stage.subcommand import run_subcommand
from ...stage.traffic import Customers
from .people import People
from .versions import MODEL

SHARE: Final = "50%"
_JUDGE_EVERY_S: Final = 0.2
_REVIEWS: Final = 10_000
"""Reviews that may wait for their answer to be read."""
ENDS: Final = {ServingEventKind.EXPERIMENT_COMPLETED, ServingEventKind.EXPERIMENT_STOPPED}
SHOWN: Final = ENDS | {
    ServingEventKind.EXPERIMENT_STARTED,
    ServingEventKind.EXPERIMENT_PROMOTED,
    ServingEventKind.CANDIDATE_FAILED,
    ServingEventKind.CANDIDATE_REJECTED,
    ServingEventKind.MODEL_SWAPPED,
}

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Trial:
    """A version of the store that is tried, and how it is expected to end."""

    version: int
    what: str
    ends: ServingEventKind


class Story:
    """Start each experiment and wait until it has ended by itself; people judge what is drawn for them meanwhile."""

    def __init__(self, settings: Settings, rules: Path, customers: Customers, people: People, say: Say) -> None:
        """`rules`: the file with the rules of both experiments."""
        self._settings, self._store, self._rules = settings, str(settings.model.store), rules
        self._customers, self._people, self._say = customers, people, say
        self._reviews: deque[Review] = deque(maxlen=_REVIEWS)
        self._ended: asyncio.Queue[ServingEvent] = asyncio.Queue()
        self.promoted = self.stopped = 0

    def read_review(self, value: bytes, now: float) -> None:
        """Keep a review of `murmura.reviews` until its answer has been read."""
        self._reviews.append(Review.model_validate_json(value))

    def read_event(self, value: bytes, now: float) -> None:
        """Show an event of `murmura.events`, and note the end of an experiment."""
        event = ServingEvent.model_validate_json(value)
        if event.event in SHOWN:
            self._say(f"{event.event}: version {event.version}: {event.message or 'it answers now'}")
        if event.event in ENDS:
            self._ended.put_nowait(event)

    async def run(self, trials: tuple[Trial, ...], longest_s: float) -> None:
        """Try the versions one after the other. Raises MurmuraError where one does not end as expected, or not in time."""
        async with asyncio.TaskGroup() as group:
            judging = group.create_task(self._judge())
            try:
                for trial in trials:
                    await self._try(trial, longest_s)
            finally:
                judging.cancel()

    async def _try(self, trial: Trial, longest_s: float) -> None:
        began = time.monotonic()
        await self._start(trial)
        try:
            async with asyncio.timeout(longest_s):
                ended = await self._ended.get()
        except TimeoutError:
            raise MurmuraError(
                f"the experiment with version {trial.version} has not ended after {longest_s:g} s"
            ) from None
        if ended.event is not trial.ends:
            raise MurmuraError(f"version {trial.version}, {trial.what}: expected {trial.ends}, found {ended.event}")
        if ended.event is ServingEventKind.EXPERIMENT_COMPLETED:
            self.promoted += 1
        else:
            self.stopped += 1
        self._say(f"ended after {time.monotonic() - began:.0f} s")

    async def _start(self, trial: Trial) -> None:
        """Let the version answer its share of the customers, by the command that anybody would use."""
        arguments = [MODEL, str(trial.version), "--share", SHARE, "--rules", str(self._rules), "--no-power"]
        where = ["--store", self._store, "--bootstrap", self._settings.kafka.bootstrap_servers]
        why = ["--why", trial.what, "--by", "the demo"]
        async with run_subcommand("models", "ab", *arguments, *where, *why, on_line=lambda line: None) as process:
            await process.finish()

    async def _judge(self) -> None:
        """Send a verdict on each review whose answer has been read, until cancelled."""
        while True:
            await asyncio.sleep(_JUDGE_EVERY_S)
            for _ in range(len(self._reviews)):
                review = self._reviews.popleft()
                if not await self._send_verdict(review):
                    self._reviews.append(review)

    async def _send_verdict(self, review: Review) -> bool:
        """Send the verdict on a review; False where its answer has not been read yet."""
        source = review.source
        message = None if source is None else self._customers.desk.find_message((source.partition, source.offset))
        if message is None or review.task not in message.outputs:
            return False
        output: Mapping[str, object] = message.outputs[review.task]
        await self._customers.judge(self._people.judge(review, message.text, output))
        return True
