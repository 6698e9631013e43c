"""On a real Kafka: everything that goes in comes out once, and what is committed is what was answered."""

import asyncio
import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.structs import TopicPartition
from installed_package import PAIRS, installed_example
from serving import Desk, health, ids, reason
from tiny_model import INTENT, write_tiny_model

from murmura.agents.classification import agent as classification
from murmura.runtime.agent.agent import Agent
from murmura.runtime.errors import SetupError
from murmura.runtime.model.inputs import TextPair
from murmura.runtime.model.model import Model
from murmura.runtime.wire.message import Publish
from murmura.schemas.ids import prediction_id
from murmura.schemas.manifest import TaskSpec
from murmura.schemas.result import Result


def texts(count: int, start: int = 0) -> list[dict]:
    words = ("my card was lost", "i want a refund", "transfer money to london on monday", "thanks it is great")
    return [{"id": f"r{n}", "text": f"{words[n % 4]} {n}"} for n in range(start, start + count)]


async def test_every_request_is_answered_once_by_every_agent(desk: Desk):
    sent = texts(500)
    await desk.send(*sent)
    async with desk.serving():
        classified = await desk.read(desk.classified, 500)
        analysed = await desk.read(desk.analysed, 500)
    expected = sorted(request["id"] for request in sent)
    assert sorted(ids(classified)) == expected
    assert sorted(ids(analysed)) == expected


async def test_results_are_what_the_contract_says(desk: Desk):
    request = {"id": "r1", "text": "my card was lost in london", "metadata": {"tenant": "acme"}, "unknown": 1}
    trace = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    headers = [("ce_source", b"shop"), ("traceparent", trace), ("murmura_hops", b"2"), ("x-own", b"\xff")]
    await desk.send(request, key=b"customer-7", headers=headers)
    async with desk.serving():
        (record,) = await desk.read(desk.analysed, 1)
    result = Result.model_validate_json(record.value)
    assert (result.request_id, result.agent, result.status) == ("r1", "analysis", "ok")
    assert result.prediction_id == prediction_id("analysis", "shop", "r1")
    assert result.model.name == "tiny"
    assert result.metadata == {"tenant": "acme"}
    assert "unknown" not in json.loads(record.value)
    assert set(result.outputs) == {"sentiment", "entities"}
    assert record.key == b"customer-7"
    found = dict(record.headers)
    assert found["ce_specversion"] == b"1.0"
    assert found["ce_id"].decode() == result.prediction_id
    assert found["ce_type"] == b"murmura.analysis.result.v1"
    assert found["ce_source"].decode() == f"murmura/{desk.prefix}"
    assert found["ce_subject"] == found["murmura_cause"] == b"r1"
    assert found["murmura_hops"] == b"3"
    assert found["traceparent"] == trace
    assert found["content-type"] == b"application/json"


async def test_a_request_without_id_or_key_is_named_by_its_coordinates(desk: Desk):
    await desk.send({"text": "my card was lost"})
    async with desk.serving():
        (record,) = await desk.read(desk.classified, 1)
    result = json.loads(record.value)
    source = result["source"]
    assert result["request_id"] == f"{desk.requests}/{source['partition']}/0/{source['timestamp']}"
    assert record.key.decode() == result["request_id"]


async def test_named_tasks_are_answered_by_the_agents_that_may(desk: Desk):
    await desk.send({"id": "e", "text": "to london", "tasks": ["entities"]})
    await desk.send({"id": "both", "text": "to london", "tasks": ["entities", "intent"]})
    async with desk.serving():
        analysed = await desk.read(desk.analysed, 2)
        classified = await desk.read(desk.classified, 1)
    outputs = {json.loads(record.value)["request_id"]: set(json.loads(record.value)["outputs"]) for record in analysed}
    assert outputs == {"e": {"entities"}, "both": {"entities", "intent"}}
    assert ids(classified) == ["both"]


async def test_two_texts_of_a_record_are_answered_together(desk: Desk, tmp_path: Path):
    follows = TaskSpec(
        name="follows", kind="entailment", labels=["yes", "no", "perhaps"], default_for=["classification"]
    )
    pair = {"text": "my card was lost", "text_pair": "i want a new card"}
    with installed_example(tmp_path / "package", PAIRS):
        desk.model = write_tiny_model(tmp_path / "model", [follows, INTENT])
        expected = Model.load(desk.model, device="cpu").predict([TextPair(*pair.values())], ["follows"])[0]["follows"]
        await desk.send({"id": "pair", **pair}, {"id": "text", "text": pair["text"]})
        async with desk.serving(desk.agents[:1]):
            records = await desk.read(desk.classified, 2)
    answers = {result["request_id"]: result["outputs"] for result in (json.loads(record.value) for record in records)}
    assert answers["pair"]["follows"]["label"] == expected["label"]
    assert answers["pair"]["follows"]["score"] == pytest.approx(expected["score"], abs=1e-4)
    assert set(answers["text"]) == {"intent"}
    assert answers["pair"]["intent"] == answers["text"]["intent"]


async def test_after_a_clean_stop_everything_answered_is_committed(desk: Desk):
    await desk.send(*texts(300))
    async with desk.serving():
        await desk.read(desk.classified, 300)
    assert await desk.committed() == await desk.ends()


async def test_a_second_run_goes_on_where_the_first_stopped(desk: Desk):
    await desk.send(*texts(100))
    async with desk.serving():
        await desk.read(desk.classified, 100)
    await desk.send(*texts(100, start=100))
    async with desk.serving():
        await desk.read(desk.classified, 200)
    records = await desk.read(desk.classified, 200)
    assert sorted(ids(records)) == sorted(f"r{n}" for n in range(200))


async def test_bad_records_are_dead_lettered_byte_for_byte_and_neighbours_are_answered(desk: Desk):
    bad: list[tuple[bytes | None, str]] = [
        (b"{", "not_json"),
        (b'{"text": NaN}', "not_json"),
        (b'{"text": "a", "id": NaN}', "not_json"),
        (b'{"text": "\\ud800 alone"}', "not_json"),
        (b'{"text": "\xff"}', "not_utf8"),
        (b"\xff\xfe", "not_utf8"),
        (None, "no_value"),
        (b"{}", "invalid"),
        (b'{"text": 1}', "invalid"),
        (b'{"text": ""}', "invalid"),
        (b'{"text": "a", "metadata": {"a": 1}}', "invalid"),
        (b'{"text": "a", "text_pair": "b"}', "invalid"),
        (b'{"text": "a", "tasks": ["nope"]}', "unknown_task"),
        (b'{"text": "a", "x": ' + b"[" * 10_000 + b"]" * 10_000 + b"}", "invalid"),
        (b'{"text": "' + b"a" * 10_000_000 + b'"}', "too_large"),
    ]
    for number, (value, _) in enumerate(bad):
        await desk.send({"id": f"before{number}", "text": "my card was lost"}, key=b"same")
        await desk.send(value, key=b"same", headers=[("x-own", b"\xff\x00")])
    await desk.send({"id": "last", "text": "my card was lost"}, key=b"same")
    async with desk.serving():
        letters = await desk.read(desk.dead_letters, len(bad))
        answered = await desk.read(desk.classified, len(bad) + 1)
    assert sorted(ids(answered)) == sorted(["last", *(f"before{n}" for n in range(len(bad)))])
    expected = sorted(((why, value) for value, why in bad), key=repr)
    assert sorted(((reason(letter), letter.value) for letter in letters), key=repr) == expected
    for letter in letters:
        headers = dict(letter.headers)
        assert letter.key == b"same"
        assert headers["x-own"] == b"\xff\x00"
        assert headers["murmura_dl_topic"].decode() == desk.requests
        assert int(headers["murmura_dl_offset"]) % 2 == 1
        assert headers["murmura_dl_attempts"] == b"1"
    assert await desk.committed() == await desk.ends()


@pytest.mark.parametrize("name", ["ce_id", "ce_source", "traceparent", "murmura_request_id", "murmura_hops"])
async def test_a_header_that_is_read_and_not_text_is_a_dead_letter(desk: Desk, name: str):
    await desk.send({"text": "a", "id": "bad"}, headers=[(name, b"\xff")])
    await desk.send({"text": "a", "id": "good"})
    async with desk.serving():
        (letter,) = await desk.read(desk.dead_letters, 1)
        (answer,) = await desk.read(desk.classified, 1)
    assert reason(letter) == "bad_header"
    assert dict(letter.headers)[name] == b"\xff"
    assert ids([answer]) == ["good"]


async def test_a_long_text_is_answered_on_its_beginning(desk: Desk):
    await desk.send({"id": "long", "text": "my card was lost " * 1000})
    async with desk.serving():
        (record,) = await desk.read(desk.classified, 1)
    assert json.loads(record.value)["truncated"] is True


async def test_an_agent_that_raises_costs_its_own_record_and_nobody_else(desk: Desk):
    def decide(request, prediction):
        if "refund" in request.text:
            raise ValueError(request.text)
        return prediction.outputs

    fragile = replace(classification, name="fragile", topics=(desk.requests,), output=desk.classified, decide=decide)
    await desk.send(*texts(40))
    async with desk.serving([fragile, desk.agents[1]]):
        letters = await desk.read(desk.dead_letters, 10)
        answered = await desk.read(desk.classified, 30)
        analysed = await desk.read(desk.analysed, 40)
    assert len(letters), len(answered) == (10, 30)
    assert len(analysed) == 40
    assert {reason(letter) for letter in letters} == {"agent_failed"}
    assert {dict(letter.headers)["murmura_dl_agent"] for letter in letters} == {b"fragile"}
    assert all(b"refund" not in dict(letter.headers)["murmura_dl_message"] for letter in letters)
    assert await desk.committed() == await desk.ends()


async def test_one_agent_hands_on_to_another(desk: Desk, make_topics):
    await make_topics("second", "answers", prefix=desk.prefix)

    def decide(request, prediction):
        return Publish(f"{desk.prefix}.second", request.value, key="conversation")

    first = Agent("first", topics=(desk.requests,), tasks=("intent",), decide=decide)
    second = replace(classification, topics=(f"{desk.prefix}.second",), output=f"{desk.prefix}.answers")
    await desk.send({"text": "my card was lost"}, headers=[("ce_id", b"order-1")])
    async with desk.serving([first, second]):
        (record,) = await desk.read(f"{desk.prefix}.answers", 1)
    assert ids([record]) == ["order-1"]
    assert record.key == b"conversation"
    assert dict(record.headers)["murmura_hops"] == b"2"


async def test_publishing_to_a_missing_topic_is_a_dead_letter_of_the_agent(desk: Desk):
    lost = Agent("lost", (desk.requests,), ("intent",), decide=lambda request, prediction: Publish("nowhere", b"x"))
    await desk.send({"text": "my card was lost"})
    async with desk.serving([lost]):
        (letter,) = await desk.read(desk.dead_letters, 1)
    assert reason(letter) == "agent_failed"
    assert await desk.committed() == await desk.ends()


async def test_two_members_share_the_partitions_and_lose_nothing(desk: Desk):
    sent = texts(2000)
    async with desk.serving() as first:
        await desk.send(*sent[:700])
        async with desk.serving() as second:
            await desk.send(*sent[700:1400])
            await _until(lambda: second.metrics.end_to_end.totals(("classification",))[0] > 0)
            assert first.metrics.end_to_end.totals(("classification",))[0] > 0
        await desk.send(*sent[1400:])
        records = await desk.read(desk.classified, 2000)
    # The second came and went cleanly: drained and committed, so nothing is answered twice either.
    assert sorted(ids(records)) == sorted(request["id"] for request in sent)
    assert await desk.committed() == await desk.ends()


async def test_a_missing_topic_is_named_at_start(desk: Desk):
    agent = replace(classification, topics=(desk.requests,), output="not.there")
    with pytest.raises(SetupError, match=r"not\.there"):
        async with desk.serving([agent]):
            pass


async def test_no_broker_is_said_at_start(desk: Desk):
    with pytest.raises(SetupError, match=r"127\.0\.0\.1:1"):
        async with desk.serving(kafka={"bootstrap_servers": "127.0.0.1:1", "start_timeout_s": 3}):
            pass


async def test_a_record_whose_header_name_cannot_be_read_is_stepped_over(desk: Desk, spoiled_batch):
    await desk.send({"id": "before", "text": "my card was lost"}, partition=0)
    await spoiled_batch(desk.bootstrap, TopicPartition(desk.requests, 0))
    await desk.send({"id": "after", "text": "my card was lost"}, partition=0)
    await desk.send({"id": "beside", "text": "my card was lost"}, partition=1)
    async with desk.serving():
        answered = await desk.read(desk.classified, 3)
        (letter,) = await desk.read(desk.dead_letters, 1)
    assert sorted(ids(answered)) == ["after", "before", "beside"]
    assert reason(letter) == "unreadable"
    assert dict(letter.headers)["murmura_dl_offset"] == b"1"
    assert await desk.committed() == await desk.ends()


async def _until(true) -> None:
    async with asyncio.timeout(60):
        while not true():
            await asyncio.sleep(0.02)


async def test_a_result_that_its_topic_does_not_allow_is_a_dead_letter(desk: Desk, make_topics):
    await make_topics("small", prefix=desk.prefix, config={"max.message.bytes": "3000"})
    agent = replace(classification, topics=(desk.requests,), output=f"{desk.prefix}.small")
    # In one partition, so that both results share a batch: the broker refuses it as a whole.
    await desk.send(
        {"id": "large", "text": "my card was lost", "metadata": {"note": "n" * 5000}},
        {"id": "fits", "text": "my card was lost"},
        partition=0,
    )
    async with desk.serving([agent]):
        (letter,) = await desk.read(desk.dead_letters, 1)
        (answer,) = await desk.read(f"{desk.prefix}.small", 1)
    assert reason(letter) == "too_large"
    assert json.loads(letter.value)["id"] == "large"
    assert ids([answer]) == ["fits"]
    assert await desk.committed() == await desk.ends()


async def test_a_dead_letter_that_does_not_fit_is_cut_and_says_so(desk: Desk, make_topics):
    await make_topics("deadletters", prefix=f"{desk.prefix}-small", config={"max.message.bytes": "200000"})
    value = b'{"text": ' + b"1" * 1_000_000
    await desk.send(value)
    async with desk.serving(prefix=f"{desk.prefix}-small"):
        (letter,) = await desk.read(f"{desk.prefix}-small.deadletters", 1)
    headers = dict(letter.headers)
    assert letter.value == value[:65_536]
    assert headers["murmura_dl_cut"] == b"1"
    assert int(headers["murmura_dl_bytes"]) == len(value)
    assert headers["murmura_dl_sha256"].decode() == hashlib.sha256(value).hexdigest()


async def test_a_record_without_key_and_value_is_dead_lettered_as_it_is(desk: Desk):
    producer = AIOKafkaProducer(bootstrap_servers=desk.bootstrap)
    await producer.start()
    batch = producer.create_batch()
    batch.append(timestamp=None, key=None, value=None, headers=[])
    batch.close()
    await (await producer.send_batch(batch, desk.requests, partition=0))
    await producer.stop()
    async with desk.serving():
        (letter,) = await desk.read(desk.dead_letters, 1)
    assert (letter.key, letter.value, reason(letter)) == (None, None, "no_value")


async def test_two_models_of_one_process_answer_their_own_agents(desk: Desk, tmp_path: Path):
    write_tiny_model(tmp_path / "small", [INTENT], version=3)
    agents = [
        replace(classification, topics=(desk.requests,), output=desk.classified),
        replace(desk.agents[1], topics=(desk.classified,)),
    ]
    await desk.send({"id": "r1", "text": "my card was lost"})
    await desk.send({"id": "r2", "text": "my card was lost"}, topic=desk.classified)
    more = {
        "model": {"cores": 1, "token_budget": 256},
        "models": {"small": {"folder": tmp_path / "small", "weight": 2}, "desk": {"folder": desk.model}},
        "agents": {"classification": {"model": "small"}, "analysis": {"model": "desk"}},
    }
    async with desk.serving(agents, **more) as serving:
        classified = await desk.read(desk.classified, 2)
        analysed = await desk.read(desk.analysed, 1)
        status, body = await health(serving)
    (result,) = [json.loads(record.value) for record in classified if b"request_id" in record.value]
    assert (result["request_id"], result["model"]["version"], list(result["outputs"])) == ("r1", 3, ["intent"])
    assert "r2" in ids(analysed)
    assert (status, {name: facts["version"] for name, facts in body["models"].items()}) == (
        200,
        {"small": 3, "desk": 0},
    )
