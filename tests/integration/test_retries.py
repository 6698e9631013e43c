"""Records for which an agent asks for another attempt, on a real Kafka: in memory, through the topic, up to the end."""

import asyncio
import json
import time
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from kafka_topics import create_topics, delete_topic
from serving import Desk, ids, reason, until

from murmura.agents.analysis import agent as analysis
from murmura.agents.classification import agent as classification
from murmura.runtime.agent.agent import Retry
from murmura.runtime.agent.handler import Handler
from murmura.runtime.wire.message import Publish
from murmura.schemas.ids import prediction_id

QUICK = {"retries": {"in_memory_s": 0.3, "steps_s": [1.0, 60.0, 3600.0]}}


@pytest.fixture
async def desk_with_retries(desk: Desk):
    await create_topics(desk.bootstrap, [f"{desk.prefix}.retries"], 3, {})
    return desk


def asking(desk: Desk, times: int, **retry):
    """A pair of agents on one topic, the first of which asks for another attempt a number of times for each text."""
    asked: dict[str, int] = {}

    def decide(request, prediction):
        asked[request.text] = asked.get(request.text, 0) + 1
        if "again" in request.text and asked[request.text] <= times:
            raise Retry(why="not yet", **retry)
        return prediction.outputs

    first = replace(classification, topics=(desk.requests,), output=desk.classified, decide=decide)
    return [first, replace(analysis, topics=(desk.requests,), output=desk.analysed)], asked


async def all_finished(desk: Desk):
    async with asyncio.timeout(60):
        while await desk.committed() != await desk.ends():
            await asyncio.sleep(0.1)


def without_time(record):
    return {name: value for name, value in json.loads(record.value).items() if name != "time"}


async def test_a_retry_in_memory_holds_back_nobody_and_asks_only_the_agent_that_asked(desk_with_retries: Desk):
    desk = desk_with_retries
    agents, asked = asking(desk, 1, after_s=1.0)
    async with desk.serving(agents) as _:
        await desk.send({"id": "r0", "text": "again"}, *({"id": f"r{n}", "text": f"t{n}"} for n in range(1, 5)))
        assert len(await desk.read(desk.analysed, 5)) == 5
        answered = ids(await desk.read(desk.classified, 5))
        assert sorted(answered) == [f"r{n}" for n in range(5)]
        assert asked["again"] == 2
        await all_finished(desk)
    assert len(await desk.read(desk.analysed, 5)) == 5
    assert await desk.read(f"{desk.prefix}.retries", 0) == []


async def test_a_long_pause_goes_through_the_topic_and_only_the_time_of_its_result_differs(desk_with_retries: Desk):
    desk = desk_with_retries
    agents, asked = asking(desk, 1, after_s=2.0)
    async with desk.serving(agents, **QUICK):
        await desk.send({"id": "r0", "text": "again"}, headers=[("mine", b"1")])
        (retry,) = await desk.read(f"{desk.prefix}.retries", 1)
        headers = dict(retry.headers)
        names = ("murmura_only_agent", "murmura_attempts", "mine", "murmura_app")
        assert [headers[name] for name in names] == [b"classification", b"1", b"1", desk.prefix.encode()]
        assert retry.partition == 0
        await all_finished(desk)  # the original, while its retry waits
        (result,) = await desk.read(desk.classified, 1)
        assert (time.time() - retry.timestamp / 1000) >= 1.5
        (beside,) = await desk.read(desk.analysed, 1)
        first, other = without_time(result), without_time(beside)
        assert (first["source"], result.partition) == (other["source"], beside.partition)
        assert first["prediction_id"] == prediction_id("classification", desk.requests, "r0")
        assert asked["again"] == 2


async def test_a_process_that_ends_during_a_pause_counts_on_from_the_header(desk_with_retries: Desk):
    desk = desk_with_retries
    agents, asked = asking(desk, 99, after_s=0.5)
    settings = {
        "agents": {"classification": {"retries": {"attempts": 4}}},
        "retries": {"in_memory_s": 0.1, "steps_s": [0.2]},
    }
    for _ in range(2):  # each ends while the record waits
        async with desk.serving(agents, **settings):
            await (desk.send({"id": "r0", "text": "again"}) if not asked else asyncio.sleep(0.2))
            before = asked.get("again", 0)
            async with asyncio.timeout(60):
                while asked.get("again", 0) == before:
                    await asyncio.sleep(0.02)
    async with desk.serving(agents, **settings):
        (letter,) = await desk.read(desk.dead_letters, 1)
    headers = dict(letter.headers)
    assert (headers["murmura_dl_reason"], headers["murmura_dl_attempts"]) == (b"expired_retries", b"4")
    assert headers["murmura_dl_topic"] == desk.requests.encode()


async def test_records_of_other_apps_and_unusable_ones_hold_nothing_up(desk_with_retries: Desk):
    desk = desk_with_retries
    topic, now = f"{desk.prefix}.retries", datetime.now(UTC).isoformat().encode()
    place = [("murmura_original_topic", desk.requests.encode()), ("murmura_original_partition", b"1")]
    place += [("murmura_original_offset", b"7"), ("murmura_original_timestamp", b"%d" % (time.time() * 1000))]
    headers = [*place, ("murmura_not_before", now), ("murmura_attempts", b"2"), ("murmura_only_agent", b"analysis")]
    async with desk.serving(**QUICK):
        await desk.send({"text": "x"}, topic=topic, partition=0)
        await desk.send({"text": "x"}, topic=topic, partition=0, headers=[*headers, ("murmura_app", b"another")])
        ours = ("murmura_app", desk.prefix.encode())
        await desk.send({"id": "sent again", "text": "x"}, topic=topic, partition=0, headers=[*headers, ours])
        await desk.send(b"no json", topic=topic, partition=0, headers=[*headers, ours])
        (result,) = await desk.read(desk.analysed, 1)
        assert json.loads(result.value)["source"]["offset"] == 7
        letters = await desk.read(desk.dead_letters, 2)
    found = sorted((reason(letter), dict(letter.headers)["murmura_dl_attempts"]) for letter in letters)
    assert found == [("bad_header", b"1"), ("not_json", b"3")]
    assert await desk.read(desk.classified, 0) == []


async def test_at_the_last_attempt_the_dead_letter_says_how_many_there_were(desk_with_retries: Desk):
    desk = desk_with_retries
    agents, asked = asking(desk, 99)
    settings = {"classification": {"retries": {"attempts": 3, "first_pause_s": 0.2}}}
    async with desk.serving(agents, agents=settings):
        await desk.send({"id": "r0", "text": "again"})
        (letter,) = await desk.read(desk.dead_letters, 1)
        assert (reason(letter), dict(letter.headers)["murmura_dl_attempts"]) == ("expired_retries", b"3")
        assert "not yet" in dict(letter.headers)["murmura_dl_message"].decode()
        assert asked["again"] == 3
        await all_finished(desk)


class Ordered(Handler):
    name, ordering, retry_on = "ordered", "key", (ConnectionError,)

    def __init__(self, desk: Desk) -> None:
        self.topics, self.outputs = (desk.requests,), (desk.classified,)
        self.failed = 0

    async def handle(self, record, engine):
        if record.value == b"0" and self.failed < 2:
            self.failed += 1
            raise ConnectionError
        return [Publish(self.outputs[0], record.value, key=record.key)]


async def test_a_handler_with_order_by_key_tries_again_in_place_and_keeps_the_order(desk_with_retries: Desk):
    desk = desk_with_retries
    handler = Ordered(desk)
    async with desk.serving([handler], agents={"ordered": {"retries": {"first_pause_s": 0.3, "factor": 1}}}):
        await desk.send(*(b"%d" % n for n in range(5)), key=b"k")
        records = await desk.read(desk.classified, 5)
        assert [record.value for record in records] == [b"%d" % n for n in range(5)]
        assert handler.failed == 2


async def test_a_redelivered_record_is_answered_as_a_first_attempt_would_and_without_a_topic_pauses_stay_short(
    desk: Desk,
):
    agents, asked = asking(desk, 1, after_s=0.1)
    async with desk.serving(agents):
        await desk.send({"id": "r0", "text": "again"})
        assert ids(await desk.read(desk.classified, 1)) == ["r0"]
        assert asked["again"] == 2


async def test_while_the_topic_of_retries_is_forbidden_and_then_gone_records_wait_and_none_is_a_dead_letter(
    guarded_kafka, guarded_desk: Desk
):
    desk, topic = guarded_desk, f"{guarded_desk.prefix}.retries"
    await create_topics(desk.bootstrap, [topic], 3, {})
    agents, asked = asking(desk, 99, after_s=2.0)
    settings = QUICK | {"agents": {"classification": {"probe_pause_s": 0.2, "max_waiting": 3}}}
    texts = [{"id": f"r{n}", "text": f"again {n}"} for n in range(12)]
    with guarded_kafka.denied(topic, "write"):
        async with desk.serving(agents, **settings) as serving:
            await desk.send(*texts)
            assert len(await desk.read(desk.analysed, 12)) == 12
            await until(serving, lambda found: "classification" in found[1].get("suspended_agents", {}))
            await asyncio.sleep(1.0)
            assert set((await desk.committed()).values()) <= {0}
            await delete_topic(desk.bootstrap, topic)
            guarded_kafka.allow_again(topic)
            await asyncio.sleep(1.0)
            assert set((await desk.committed()).values()) <= {0}
            await create_topics(desk.bootstrap, [topic], 1, {})
            asked.update({text["text"]: 100 for text in texts})
            answered = await desk.read(desk.classified, 12)
            assert sorted(set(ids(answered))) == sorted(text["id"] for text in texts)
            await all_finished(desk)
    assert await desk.read(desk.dead_letters, 0) == []


async def test_records_that_wait_in_the_topic_of_retries_are_no_lag_of_the_requests(desk_with_retries: Desk):
    desk, topic = desk_with_retries, f"{desk_with_retries.prefix}.retries"
    agents, _ = asking(desk, 99, after_s=3600.0)
    async with desk.serving(agents) as serving:
        await desk.send({"id": "r0", "text": "again"}, partition=0)
        (retry,) = await desk.read(topic, 1)
        await all_finished(desk)

        def value(metric: str, name: str, partition: int) -> float | None:
            labels = {"topic": name, "partition": str(partition)}
            return serving.metrics.registry.get_sample_value(metric, labels)

        async with asyncio.timeout(60):
            while value("murmura_retries_behind_records", topic, retry.partition) != 1:
                await asyncio.sleep(0.05)
        assert value("murmura_consumer_lag_records", desk.requests, 0) == 0
        assert value("murmura_consumer_lag_records", topic, retry.partition) is None
        assert value("murmura_oldest_unfinished_seconds", topic, retry.partition) is None
