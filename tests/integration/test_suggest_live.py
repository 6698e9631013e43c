"""Live texts that are suggested on a real Kafka: from requests to reviews."""

from pathlib import Path

from aiokafka import AIOKafkaConsumer
from ingest_world import World
from tiny_model import INTENT, write_tiny_model

from murmura.runtime.model.model import Model
from murmura.runtime.settings.settings import KafkaSettings
from murmura.schemas.review import Review, ReviewReason
from murmura.training.ingest.make import make_plan
from murmura.training.suggest.ask_people import ask_people, choose_live
from murmura.training.suggest.choose import Wanted
from murmura.training.suggest.judge import Strategy


async def test_people_are_asked_once_about_live_texts_that_nobody_has_judged(
    kafka, make_topics, unique, tmp_path: Path
) -> None:
    world, settings = World(unique("suggest")), KafkaSettings(bootstrap_servers=kafka)
    await make_topics("feedback", "results", "requests", "reviews", prefix=world.prefix, partitions=2)
    wanted_ids = {world.ask(text, partition=n % 2) for n, text in enumerate(["my card was lost", "hello", "thanks"])}
    world.judge(world.ask("refund my order"), "refund")
    await world.write(kafka)
    write_tiny_model(tmp_path / "tiny")
    model, wanted = Model.load(tmp_path / "tiny", device="cpu"), Wanted(INTENT, Strategy.MARGIN, 10)
    topic = world.topic("reviews")

    async def suggest() -> tuple[int, int]:
        topics = {f"{role}": [world.topic(role)] for role in ("feedback", "results", "requests", "reviews")}
        found, read = await choose_live(settings, await make_plan(settings, **topics), wanted, model, None, latest=100)
        return await ask_people(settings, topic, found, wanted, model, per_minute=6000), read.left_out

    assert await suggest() == (3, 1)
    assert await suggest() == (0, 4)
    async with AIOKafkaConsumer(topic, bootstrap_servers=kafka, auto_offset_reset="earliest") as consumer:
        reviews = [Review.model_validate_json((await consumer.getone()).value) for _ in range(3)]
    assert {(each.prediction_id, each.why) for each in reviews} == {
        (each, ReviewReason.SUGGESTED) for each in wanted_ids
    }
