"""The review queue on Kafka: puts reading, sending and the screen together."""

import asyncio

from aiokafka.errors import KafkaError

from ...runtime.agent.agent import Agent
from ...runtime.agent.discovery import find_agents
from ...runtime.agent.routes import apply_settings
from ...runtime.errors import MurmuraError
from ...runtime.kafka.sending.producer import producer_factory
from ...runtime.kafka.sending.publisher import Publisher
from ...runtime.model.folders.folder import read_manifest
from ...runtime.observe.logs import get_logger
from ...runtime.settings.settings import Settings
from ...schemas.feedback import Verdict
from ..reading.follower import Feed, Follower
from .desk import ReviewDesk
from .item import ReviewItem
from .kafka_reviews import KafkaReviews, take_feedback
from .known_verdicts import MOST_ANSWERS, KnownVerdicts
from .queue import ReviewQueue
from .requests import RequestFinder
from .screen import Facts, list_left_out
from .second_copies import SecondCopies
from .sending import VerdictSender
from .tasks import ReviewTask, describe_tasks

log = get_logger(__name__)

_AGAIN_S = 2.0
_REST_S = 10.0
"""How long the end of the console waits for the broker to take what people have said."""
_LOOK_S = 0.05
MOST_COPIED = 20_000
"""Reviews of the latest that are looked at for copies: of which one in twenty is kept."""


class LiveReviews:
    """`feed` is to be followed beside `run`: what people said is known before reviews are read."""

    def __init__(self, settings: Settings, tasks: dict[str, ReviewTask]) -> None:
        self._settings = settings
        self.queue = ReviewQueue(settings.console.overlap)
        self.desk = ReviewDesk(self.queue, self._wake)
        self.tasks = tasks
        self.labelled = asyncio.Event()
        """Set when the tasks are known: until then no review is read, as it might be passed over."""
        if settings.model.folder is not None:
            self.labelled.set()
        known = self._known = KnownVerdicts()
        topic = f"{settings.prefix}.feedback"
        copies = SecondCopies(settings.console.overlap)
        self.feed = Feed(topic, take_feedback(known, self.queue, copies), MOST_ANSWERS)
        self.copies_feed = Feed(f"{settings.prefix}.reviews", copies.take_reviews, MOST_COPIED)
        """The reviews of all consoles, for those that two people judge."""
        finder = make_finder(settings)
        group = settings.console.group or f"{settings.group}.console"
        self._reviews = KafkaReviews(
            settings.kafka, group, f"{settings.prefix}.reviews", self.queue, tasks, finder, known, copies=copies
        )
        self._sender: VerdictSender | None = None
        self._ready = False
        self._follower: Follower | None = None

    def _wake(self) -> None:
        if self._sender is not None:
            self._sender.wake()

    def judges_of(self, item: ReviewItem) -> dict[str, str]:
        """Return the verdicts on an answer that stand: their ids and authors."""
        return self._known.judges_of(item.prediction_id, item.task.name)

    def facts(self) -> Facts:
        return Facts(
            trouble=self._reviews.trouble or (None if self._follower is None else self._follower.trouble),
            refused=None if self._sender is None else self._sender.refused,
            left_out=list(list_left_out({why.value: count for why, count in self._reviews.not_reviewed.items()})),
            ready=self._ready,
        )

    async def run(self, follower: Follower) -> None:
        """Read reviews and send verdicts until cancelled. `follower` is the one that has `feed`."""
        self._follower = follower
        await self.labelled.wait()
        await follower.wait_for(self.feed.topic)
        self._ready = True
        publisher = await self._connect()
        self._sender = VerdictSender(self.queue, publisher, self.feed.topic)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._sender.run())
                tasks.create_task(self._reviews.run())
        finally:
            await publisher.stop()

    async def send_rest(self) -> None:
        """Wait at most 10 s until the broker has every verdict, and log how many it has not."""
        try:
            async with asyncio.timeout(_REST_S):
                while self.queue.unsent:
                    self._wake()
                    await asyncio.sleep(_LOOK_S)
        except TimeoutError:
            withdrawn = sum(each.verdict is Verdict.WITHDRAWN for each in self.queue.unsent.values())
            log.error(
                "verdicts are lost, the broker did not take them: their reviews come again, and what was undone stands",
                verdicts=len(self.queue.unsent) - withdrawn,
                withdrawals=withdrawn,
            )

    async def _connect(self) -> Publisher:
        """Return a started publisher; a broker that is away is waited for."""
        settings = self._settings
        while True:
            publisher = Publisher(
                producer_factory(settings.kafka, settings.producer), send_timeout_s=settings.producer.send_timeout_s
            )
            try:
                await publisher.start()
            except (KafkaError, MurmuraError, OSError) as error:
                log.warning("verdicts cannot be sent, trying again", why=type(error).__name__)
                await asyncio.sleep(_AGAIN_S)
            else:
                return publisher


def make_reviews(settings: Settings) -> LiveReviews | None:
    """Return the queue; None without a model, whose manifest says what may be answered. Raises SetupError.

    Without `model.folder` the tasks are empty at first, and those of what the store's releases name are to be put in.
    """
    if settings.model.folder is None:
        return LiveReviews(settings, {}) if settings.has_store else None
    return LiveReviews(settings, describe_tasks(read_manifest(settings.model.folder).tasks))


def make_finder(settings: Settings) -> RequestFinder:
    return RequestFinder(settings.kafka, answer_topics(settings), settings.fields)


def answer_topics(settings: Settings) -> dict[str, str]:
    """Return by agent the topic of its results; of the dialogue agent that of its replies."""
    found = {"dialogue": f"{settings.prefix}.dialogue.replies"}
    for agent in find_agents((), settings.prefix):
        applied = apply_settings(agent, settings.agents.get(agent.name))
        if isinstance(applied, Agent) and applied.output:
            found[applied.name] = applied.output
    return found | {name: each.output for name, each in settings.agents.items() if each.output}
