"""Chooses live texts and asks people about them: reads frozen ranges of Kafka without a group, and publishes reviews slowly."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from ...runtime.errors import SetupError
from ...runtime.kafka import offset_ranges
from ...runtime.kafka.sending.producer import producer_factory
from ...runtime.kafka.sending.publisher import Publisher
from ...runtime.kafka.topics import require_topics
from ...runtime.model.model import Model
from ...runtime.settings.settings import KafkaSettings, ProducerSettings
from ...schemas.result import ModelRef
from ..ingest.manifest import Plan
from .choose import Choice, Chooser, Wanted
from .live import Unjudged, make_message, make_review

if TYPE_CHECKING:
    from .states import DropoutPasses


async def choose_live(
    kafka: KafkaSettings,
    plan: Plan,
    wanted: Wanted,
    model: Model,
    passes: "DropoutPasses | None",
    *,
    latest: int,
    progress: Callable[[int], None] = lambda count: None,
) -> tuple[Choice, Unjudged]:
    """Return the most useful of the latest answered requests that nobody has judged, and what was read."""
    unjudged = Unjudged(plan, wanted.spec, latest)
    chooser = Chooser(wanted, model, passes, known=unjudged.known)
    await offset_ranges.read(kafka, plan.of("feedback"), unjudged.take_feedback)
    await offset_ranges.read(kafka, plan.of("reviews"), unjudged.take_reviews)
    await offset_ranges.read(kafka, unjudged.results, unjudged.take_results)
    unjudged.results_done()
    await offset_ranges.read(kafka, unjudged.requests, unjudged.take_judged, next_wanted=unjudged.next_judged)

    async def judge() -> None:
        texts, unjudged.texts = unjudged.texts, []
        await asyncio.to_thread(chooser.offer, texts)
        progress(len(texts))

    await offset_ranges.read(
        kafka, unjudged.requests, unjudged.take_requests, next_wanted=unjudged.next_wanted, after_fetch=judge
    )
    await judge()
    unjudged.requests_done()
    return await asyncio.to_thread(chooser.finish), unjudged


async def ask_people(
    kafka: KafkaSettings,
    topic: str,
    found: Choice,
    wanted: Wanted,
    model: Model,
    *,
    per_minute: float,
    progress: Callable[[int], None] = lambda count: None,
) -> int:
    """Publish a review for each chosen text, the most useful first, at most `per_minute`; return how many.

    SetupError where the broker refuses one: those before it are published.
    """
    await require_topics(kafka, [topic])
    by = ModelRef(name=model.manifest.name, version=model.manifest.version)
    publisher = Publisher(producer_factory(kafka, ProducerSettings()))
    await publisher.start()
    try:
        for sent, each in enumerate(found.chosen):
            if sent:
                await asyncio.sleep(60 / per_minute)
            (refused,) = await publisher.publish([make_message(make_review(each, wanted.spec, by), topic)])
            if refused is not None:
                raise SetupError(f"after {sent} reviews {topic} did not take one: {refused}")
            progress(1)
    finally:
        await publisher.stop()
    return len(found.chosen)
