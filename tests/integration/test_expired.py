"""Requests that are too old, on a real Kafka: answered `expired` beside fresh ones, the first time and after a pause."""

import asyncio
import json
import time
import urllib.request
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from kafka_topics import create_topics
from serving import Desk, reason

from murmura.agents.analysis import agent as analysis
from murmura.agents.classification import agent as classification
from murmura.runtime.agent.agent import Retry
from murmura.schemas.result import Result


def ms_ago(seconds: float) -> int:
    return int((time.time() - seconds) * 1000)


def deadline(seconds: float) -> list[tuple[str, bytes]]:
    moment = datetime.now(UTC) + timedelta(seconds=seconds)
    return [("murmura_deadline", moment.isoformat(timespec="seconds").replace("+00:00", "Z").encode())]


def statuses(records) -> dict[str, str]:
    results = [Result.model_validate_json(record.value) for record in records]
    assert all(bool(result.outputs) == (result.status == "ok") for result in results)
    assert len({result.request_id for result in results}) == len(results)
    return {result.request_id: result.status for result in results}


async def all_finished(desk: Desk):
    async with asyncio.timeout(60):
        while await desk.committed() != await desk.ends():
            await asyncio.sleep(0.1)


async def test_old_records_among_fresh_ones_are_answered_expired_by_the_agents_for_which_they_are_too_old(desk: Desk):
    ages = {"classification": {"max_age_s": 600}, "analysis": {"max_age_s": 7200}}
    await desk.send({"id": "hour", "text": "a"}, timestamp_ms=ms_ago(3600))
    await desk.send({"id": "day", "text": "b"}, timestamp_ms=ms_ago(86_400))
    await desk.send({"id": "late", "text": "c"}, headers=deadline(-5))
    await desk.send(*({"id": f"fresh {number}", "text": "d"} for number in range(50)))
    await desk.send({"id": "in time", "text": "e"}, headers=deadline(600))
    await desk.send({"id": "no time", "text": "f"}, headers=[("murmura_deadline", b"soon")])
    fresh = {f"fresh {number}": "ok" for number in range(50)} | {"in time": "ok", "late": "expired"}
    async with desk.serving(agents=ages) as serving:
        classified = await desk.read(desk.classified, 54)
        analysed = await desk.read(desk.analysed, 54)
        (letter,) = await desk.read(desk.dead_letters, 1)
        await all_finished(desk)
        metrics = await asyncio.to_thread(lambda: urllib.request.urlopen(f"{serving.url}/metrics").read().decode())
    assert statuses(classified) == fresh | {"hour": "expired", "day": "expired"}
    assert statuses(analysed) == fresh | {"hour": "ok", "day": "expired"}
    assert reason(letter) == "bad_header"
    assert 'murmura_expired_answers_total{agent="classification",limit="max_age"} 2.0' in metrics
    assert 'murmura_expired_answers_total{agent="analysis",limit="deadline"} 1.0' in metrics
    requests = {json.loads(record.value)["id"]: record for record in await desk.read(desk.requests, 55)}
    for record in (*classified, *analysed):
        result, headers = json.loads(record.value), dict(record.headers)
        request = requests[result["request_id"]]
        place = {"topic": desk.requests, "partition": request.partition, "offset": request.offset}
        assert result["source"] == place | {"timestamp": request.timestamp}
        assert headers["ce_id"].decode() == result["prediction_id"]
        assert record.partition == request.partition


@pytest.fixture
async def desk_with_retries(desk: Desk):
    await create_topics(desk.bootstrap, [f"{desk.prefix}.retries"], 3, {})
    return desk


async def test_a_record_that_gets_too_old_in_a_pause_is_answered_expired_when_it_is_and_is_not_asked_again(
    desk_with_retries: Desk,
):
    desk, asked = desk_with_retries, []

    def decide(request, prediction):
        asked.append(request.request_id)
        raise Retry(after_s=3600, why="not today")

    agents = [
        replace(classification, topics=(desk.requests,), output=desk.classified, decide=decide, max_age_s=60.0),
        replace(analysis, topics=(desk.requests,), output=desk.analysed),
    ]
    retries = {"in_memory_s": 0.3, "steps_s": [1.0, 60.0, 3600.0]}
    # One that a person sent again, of which the original is an hour old: that counts, not the time of the retry.
    place = [("murmura_original_topic", desk.requests.encode()), ("murmura_original_partition", b"1")]
    place += [("murmura_original_offset", b"7"), ("murmura_original_timestamp", b"%d" % ms_ago(3600))]
    headers = [*place, ("murmura_not_before", datetime.now(UTC).isoformat().encode()), ("murmura_attempts", b"2")]
    headers += [("murmura_only_agent", b"classification"), ("murmura_app", desk.prefix.encode())]
    async with desk.serving(agents, retries=retries):
        sent_at = time.time()
        await desk.send({"id": "again", "text": "x"}, timestamp_ms=int((sent_at - 56) * 1000))
        await desk.send({"id": "old", "text": "x"}, topic=f"{desk.prefix}.retries", partition=0, headers=headers)
        found = await desk.read(desk.classified, 2)
        await all_finished(desk)
        assert statuses(await desk.read(desk.analysed, 1)) == {"again": "ok"}
    assert statuses(found) == {"again": "expired", "old": "expired"}
    assert asked == ["again"]
    by_id = {json.loads(record.value)["request_id"]: record for record in found}
    assert json.loads(by_id["old"].value)["source"]["offset"] == 7
    assert 4.0 < by_id["again"].timestamp / 1000 - sent_at < 12.0, (
        "not before it is too old, and long before the pause is over"
    )
    assert await desk.read(desk.dead_letters, 0) == []
