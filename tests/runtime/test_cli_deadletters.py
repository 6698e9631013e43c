"""`murmura deadletters`: see what could not be answered, send it again, set a record aside."""

import asyncio
import json
from dataclasses import replace

import pytest
from aiokafka import AIOKafkaConsumer
from cli_in_process import refused_here, run_here
from serving import Desk

from murmura.agents.classification import agent as classification
from murmura.runtime.cli.records.ranges import read_offsets, read_time
from murmura.runtime.errors import SetupError
from murmura.runtime.kafka.embedded_broker import EmbeddedBroker
from murmura.runtime.redrive.set_aside import Place, set_aside
from murmura.schemas.ids import prediction_id


@pytest.fixture
async def desk(kafka, unique, make_topics, tiny_model) -> Desk:
    desk = Desk(kafka, unique("desk"), tiny_model)
    await make_topics("requests", "classified", "analysed", "deadletters", "retries", prefix=desk.prefix)
    return desk


def command(desk: Desk, *words: object):
    return asyncio.to_thread(run_here, "deadletters", *words, "--bootstrap", desk.bootstrap, "--config", config(desk))


def config(desk: Desk) -> str:
    path = desk.model.parent / f"{desk.prefix}.yaml"
    path.write_text(f"prefix: {desk.prefix}\napp: {desk.prefix}\n")
    return str(path)


async def test_a_dead_letter_is_listed_shown_and_sent_again_under_the_id_that_it_had(desk):
    def fail(request, prediction):
        raise ValueError(request.text)

    asks = replace(classification, topics=(desk.requests,), output=desk.classified)
    async with desk.serving([replace(asks, decide=fail)], deadletters={"compatible": "spring"}):
        await desk.send({"text": "where is my card?"}, {"text": "and my money?", "id": "q-2"}, b"{")
        letters = await desk.read(desk.dead_letters, 3)
    headers = dict(letters[0].headers)
    assert headers["murmura_dl_app"] == desk.prefix.encode()
    assert headers["kafka_dlt-original-consumer-group"] == f"murmura.{desk.prefix}".encode()

    listed = await command(desk, "list", "--json")
    counts = {row["reason"]: row for row in map(json.loads, listed.stdout.splitlines())}
    assert {reason: row["letters"] for reason, row in counts.items()} == {"agent_failed": 2, "not_json": 1}
    shown = await command(desk, "show", "--reason", "agent_failed")
    assert shown.stdout.count("agent_failed of classification: classification raised ValueError") == 2
    assert "card" not in shown.stdout
    assert "card" in (await command(desk, "show", "--reason", "agent_failed", "--text")).stdout

    planned = await command(desk, "redrive", "--agent", "classification", "--to", "original", "--dry-run")
    assert "2 of 2 dead letters would go to the topics that they came from" in planned.stdout
    sent = await command(desk, "redrive", "--agent", "classification", "--to", "original", "--rate", "100")
    assert sent.stderr == "sent 2 to original\n", sent.stderr
    again = await command(desk, "redrive", "--all", "--to", "original", "--yes")
    assert again.stderr == "sent 1 to original\n  2 were sent again before\n", again.stderr

    async with desk.serving([asks]):
        results = await desk.read(desk.classified, 2)
    ids = {json.loads(result.value)["request_id"]: json.loads(result.value)["prediction_id"] for result in results}
    first = next(letter for letter in letters if b"card" in letter.value)
    place = [dict(first.headers)[f"murmura_dl_{name}"].decode() for name in ("partition", "offset", "timestamp")]
    expected = {"/".join([desk.requests, *place]), "q-2"}
    assert ids == {one: prediction_id("classification", desk.requests, one) for one in expected}

    listed = await command(desk, "list", "--json", "--reason", "agent_failed")
    (row,) = map(json.loads, listed.stdout.splitlines())
    assert (row["letters"], row["redriven"]) == (2, 2)
    tail = await asyncio.to_thread(
        run_here, "tail", desk.dead_letters, "--from-beginning", "--count", 6, "--bootstrap", desk.bootstrap
    )
    assert tail.stdout.count("sent again") >= 2, tail.stdout + tail.stderr


async def test_by_default_only_the_agent_that_failed_is_asked_again_and_its_result_has_the_originals_place(desk):
    def fail(request, prediction):
        raise ValueError

    asks = replace(classification, topics=(desk.requests,), output=desk.classified)
    beside = replace(classification, name="beside", topics=(desk.requests,), output=desk.analysed)
    async with desk.serving([replace(asks, decide=fail), beside]):
        await desk.send({"text": "where is my card?", "id": "q-1"}, {"text": "and my money?", "id": "q-2"}, partition=1)
        await desk.read(desk.dead_letters, 2)
        await desk.read(desk.analysed, 2)
    sent = await command(desk, "redrive", "--reason", "agent_failed")
    assert sent.stderr == f"sent 2 to {desk.prefix}.retries\n", sent.stderr
    async with desk.serving([asks, beside]):
        results = await desk.read(desk.classified, 2)
    values = [json.loads(result.value) for result in results]
    assert [(value["request_id"], value["prediction_id"]) for value in values] == [
        (name, prediction_id("classification", desk.requests, name)) for name in ("q-1", "q-2")
    ]
    assert [(value["source"]["offset"], result.partition) for value, result in zip(values, results, strict=True)] == [
        (0, 1),
        (1, 1),
    ]
    assert len(await desk.read(desk.analysed, 2)) == 2


async def test_dead_letters_go_to_a_topic_of_ones_own_on_request(desk):
    await desk.send(b"{", {"text": "fine"}, b"[")
    async with desk.serving():
        await desk.read(desk.dead_letters, 2)
    elsewhere = desk.analysed
    before = sum((await desk.ends(elsewhere)).values())
    sent = await command(desk, "redrive", "--reason", "not_json", "--reason", "invalid", "--to", elsewhere)
    assert f"to {elsewhere}" in sent.stderr, sent.stderr
    assert sum((await desk.ends(elsewhere)).values()) > before


async def test_everything_is_announced_first_and_not_sent_unasked(desk):
    await desk.send(b"{", topic=desk.dead_letters, headers=[("murmura_dl_reason", b"not_json")])
    refused = await command(desk, "redrive", "--all")
    assert "0 of 0 dead letters would go to" in refused.stdout
    assert refused.returncode == 0
    async with desk.serving() as serving:
        await desk.send(b"{")
        await desk.read(desk.dead_letters, 2)
        async with asyncio.timeout(60):
            while not serving.metrics.registry.get_sample_value("murmura_dead_letter_topic_records"):
                await asyncio.sleep(0.05)
        assert 0 <= serving.metrics.registry.get_sample_value("murmura_dead_letter_topic_age_seconds") < 60
    refused = await command(desk, "redrive", "--all")
    assert "1 of 1 dead letters would go to" in refused.stdout
    assert (refused.returncode, refused.stderr) == (2, "murmura: nothing was sent; --yes sends without asking\n")


async def test_one_unfinished_record_is_set_aside_only_while_the_group_is_stopped(desk):
    await desk.send({"text": "a"}, {"text": "b"}, {"text": "c"}, partition=0)
    settings = desk.settings()

    def place(offset: int) -> Place:
        return Place(desk.requests, 0, offset)

    member = AIOKafkaConsumer(
        desk.requests, bootstrap_servers=desk.bootstrap, group_id=settings.group, enable_auto_commit=False
    )
    await member.start()
    with pytest.raises(SetupError, match="has members: stop its processes first"):
        await set_aside(settings, place(0), "stuck")
    await member.stop()
    with pytest.raises(SetupError, match="is not the next record of group"):
        await set_aside(settings, place(1), "stuck")
    done = await command(desk, "put", str(place(0)), "--why", "stuck")
    assert done.stdout == f"{place(0)} is in {desk.dead_letters}; group {settings.group} goes on at offset 1\n", (
        done.stderr
    )
    (letter,) = await desk.read(desk.dead_letters, 1)
    headers = dict(letter.headers)
    assert (headers["murmura_dl_reason"], headers["murmura_dl_message"]) == (b"set_aside", b"stuck")
    assert (headers["murmura_dl_offset"], json.loads(letter.value)) == (b"0", {"text": "a"})
    for offset, why in ((0, "is finished"), (3, "is not there: it holds 0 to 3")):
        with pytest.raises(SetupError, match=why):
            await set_aside(settings, place(offset), "stuck")
    async with desk.serving():
        results = await desk.read(desk.classified, 2)
    assert sorted(json.loads(result.value)["source"]["offset"] for result in results) == [1, 2]
    assert len(await desk.read(desk.dead_letters, 1)) == 1


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("redrive",), "give --all, or say which"),
        (("redrive", "--all", "--agent", "a"), "give --all, or say which"),
        (("redrive", "--since", "yesterday"), "--since: expected a time"),
        (("list", "--offsets", "1"), "--offsets: expected PARTITION:START-END"),
        (("put", "t/0"), "expected TOPIC/PARTITION/OFFSET"),
        (("list", "--bootstrap", "127.0.0.1:1"), "no Kafka broker at"),
    ],
)
def test_what_cannot_be_done_is_one_line(words, why):
    assert why in refused_here("deadletters", *words)


def test_the_embedded_broker_is_sent_to_without_transactions_and_that_is_said():
    with EmbeddedBroker({"murmura.deadletters": 1, "murmura.retries": 3}) as embedded:
        done = run_here("deadletters", "redrive", "--reason", "invalid", "--bootstrap", embedded.bootstrap)
    assert done.stderr == "without transactions: a kill may repeat one batch\nsent 0 to murmura.retries\n"


def test_times_and_offsets_are_read():
    noon = read_time("--since", "2026-01-31T12:00Z")
    assert noon == read_time("--since", "2026-01-31T12:00") == read_time("--since", "2026-01-31T13:00+01:00")
    assert read_offsets(["2:17", "0:5-9", "1:4-"]) == {2: (17, 18), 0: (5, 9), 1: (4, 2**63 - 1)}
    for wrong in (["2:9-9"], ["2:1", "2:4"], ["a:1"]):
        with pytest.raises(SetupError):
            read_offsets(wrong)
