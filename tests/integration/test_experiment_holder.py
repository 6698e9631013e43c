"""Experiments on a real Kafka: a better candidate is promoted by itself and a worse one is stopped, over a stop of the holder."""

from aiokafka import AIOKafkaProducer
from experiment_world import MODELS, World

from murmura.runtime.release.states import read_states
from murmura.schemas.serving_event import ServingEventKind


async def test_a_better_candidate_is_promoted_and_a_worse_one_stopped(kafka, make_topics, unique):
    world = World(kafka, unique("trial"))
    await world.make_topics(make_topics, kafka)
    async with AIOKafkaProducer(bootstrap_servers=kafka) as producer:
        await world.start_experiments(producer)
        await world.publish(producer, range(3))
        await producer.send_and_wait(f"{world.prefix}.feedback", b"{", timestamp_ms=int(world.start.timestamp() * 1000))
        world.ahead_s = -16 * 60.0  # the clock of these minutes
        async with world.holding():
            await world.wait_for(world.has_kept_both)
        await world.publish(producer, range(3, 14))

    async def is_promoted() -> bool:
        states = await read_states(world.settings.kafka, f"{world.prefix}.models")
        return states["worse"].candidate is None and states["better"].candidate.experiment.promoted is not None

    async def is_completed() -> bool:
        kept = await world.read_kept()
        return all(kept[model].ended is not None for model in MODELS)

    world.ahead_s = 0.0
    async with world.holding():
        await world.wait_for(is_promoted)
        world.ahead_s = 1800.0  # the hold-back is over
        await world.wait_for(is_completed)
    states = await read_states(world.settings.kafka, f"{world.prefix}.models")
    assert (states["better"].current.version, states["worse"].current.version) == (2, 1)
    kept = await world.read_kept()
    assert {model: state.ended.by for model, state in kept.items()} == {"better": "completed", "worse": "stopped"}
    assert [each.action for each in kept["better"].decided] == ["promote", "complete"]
    assert kept["worse"].decided[0].why.startswith("agreement is worse")
    assert kept["better"].skipped == {"unreadable": 1}
    assert sum(kept["better"].units.values()) > 200
    assert (ServingEventKind.EXPERIMENT_STOPPED, "worse") in world.events.emitted
    assert (ServingEventKind.EXPERIMENT_COMPLETED, "better") in world.events.emitted
