"""`murmura replay`: answer what was asked before with another model, and compare."""

import asyncio
import json
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from cli_in_process import refused_here, run_here
from serving import Desk
from tiny_model import write_tiny_model

from murmura.runtime.kafka.embedded_broker import EmbeddedBroker
from murmura.runtime.kafka.groupless_reader import open_reader
from murmura.runtime.release.store import ModelStore
from murmura.runtime.settings.settings import KafkaSettings
from murmura.runtime.testing.replay import Replayed
from murmura.runtime.testing.replay_comparison import OTHERS, Comparison, answer_of
from murmura.runtime.testing.replay_reviews import DisagreementSample
from murmura.runtime.testing.replay_versions import AnswerCounts, compare_versions
from murmura.schemas.review import Review, ReviewReason


def result(number: int, label: str | None) -> bytes:
    output = {"kind": "classification", "label": label, "score": 0.5, "abstained": label is None, "reason": None}
    return json.dumps(
        {
            "prediction_id": f"{number:032x}",
            "source": {"topic": "in", "partition": 0, "offset": number},
            "outputs": {"intent": output},
        }
    ).encode()


def full_result(number: int, label: str | None) -> bytes:
    value = json.loads(result(number, label))
    value["outputs"]["intent"] |= {"alternatives": [], "reason": None if label else "below_threshold"}
    value["source"]["timestamp"] = 0
    rest = {
        "request_id": str(number),
        "agent": "a",
        "model": {"name": "desk", "version": 1},
        "time": "2026-05-03T10:00:00Z",
    }
    return json.dumps(value | rest).encode()


def test_results_are_joined_by_id_whatever_their_order_and_the_first_published_one_counts(tmp_path):
    comparison = Comparison(tmp_path / "results.sqlite")
    for number, label in enumerate(["a", "b", "c", None]):
        comparison.add(result(number, label))
    for number, label in ((2, "x"), (0, "a"), (0, "z"), (3, "y"), (9, "a")):
        comparison.join(result(number, label))
    for value in (None, b"{", b"[]", b'{"prediction_id": "zz"}'):
        comparison.join(value)
    comparison.finish()
    assert (comparison.joined, comparison.only_replayed) == (3, 1)
    assert (comparison.compared, comparison.agreed) == ({"intent": 3}, {"intent": 1})
    assert comparison.pairs == {("intent", "x", "c"): 1, ("intent", "y", "(withheld)"): 1}
    assert comparison.changed == [("in/0/2", "intent"), ("in/0/3", "intent")]


def test_what_was_published_as_expired_is_counted_and_hides_no_other_result(tmp_path):
    comparison = Comparison(tmp_path / "results.sqlite")
    for number in range(2):
        comparison.add(result(number, "a"))
        comparison.join(json.dumps(json.loads(result(number, "a")) | {"status": "expired", "outputs": {}}).encode())
    comparison.join(result(1, "b"))
    comparison.finish()
    assert (comparison.expired, comparison.joined, comparison.only_replayed) == (2, 1, 1)
    assert comparison.pairs == {("intent", "b", "a"): 1}


def test_what_is_kept_of_many_changes_is_bounded(tmp_path):
    comparison = Comparison(tmp_path / "results.sqlite")
    for number in range(10_050):
        comparison.add(result(number, "a"))
        comparison.join(result(number, f"label {number}"))
    comparison.finish()
    assert len(comparison.changed) == 20
    assert comparison.pairs["intent", OTHERS, OTHERS] == 50


def test_an_answer_is_said_without_a_part_of_the_text():
    spans = [{"label": "city", "text": "Rome", "start": 3, "end": 7, "score": 1.0}]
    assert answer_of({"kind": "tagging", "spans": spans}) == "city 3-7"
    assert answer_of({"kind": "multi_label", "labels": [{"label": "b"}, {"label": "a"}]}) == "a, b"


def test_some_of_the_published_answers_that_differ_become_reviews(tmp_path):
    sample = DisagreementSample(5)
    comparison = Comparison(tmp_path / "results.sqlite", sample)
    for number in range(200):
        comparison.add(full_result(number, "a"))
        comparison.join(full_result(number, "a" if number % 2 else "b"))
    comparison.add(result(999, "a"))
    comparison.join(result(999, "b"))  # of another program
    messages = sample.make_messages("murmura.reviews", "shop", datetime(2026, 5, 3, tzinfo=UTC))
    reviews = [Review.model_validate_json(message.value) for message in messages]
    assert 4 <= len({review.prediction_id for review in reviews}) == len(reviews) <= 5
    assert {(each.why, each.predicted, each.model.version) for each in reviews} == {(ReviewReason.DISAGREEMENT, "b", 1)}
    assert all(each.source.offset % 2 == 0 for each in reviews)
    assert max(each.source.offset for each in reviews) > 10, "not the first ones"


def test_reviews_of_a_replay_are_published_where_there_is_a_topic_for_them(monkeypatch, tmp_path):
    async def choose(*_):
        return []

    async def answer(settings, replaying, chosen, to, adding, stop):
        for add in adding:
            add(full_result(2, "a"))
        return Replayed(records=1, results=1)

    async def join(settings, topics, done, comparison):
        comparison.join(full_result(2, "b"))

    async def read(bootstrap):
        async with open_reader(
            KafkaSettings(bootstrap_servers=bootstrap), ["murmura.reviews"], from_beginning=True
        ) as it:
            return await it.getone()

    parts = {"_prepare": lambda *_: SimpleNamespace(name="desk 2", outputs=["out"]), "_choose": choose}
    for name, part in (parts | {"_replay": answer, "_join": join}).items():
        monkeypatch.setattr(f"murmura.runtime.cli.records.replay.{name}", part)
    words = ("replay", "in", "a", "--model", tmp_path, "--reviews", 3, "--bootstrap")
    with EmbeddedBroker({"murmura.reviews": 1}) as broker:
        done = run_here(*words, broker.bootstrap)
        record = asyncio.run(read(broker.bootstrap))
    assert "published 1 reviews to murmura.reviews, with the reason disagreement" in done.stdout, done.stderr
    assert record.key.decode() == Review.model_validate_json(record.value).prediction_id == f"{2:032x}"
    assert dict(record.headers)["ce_subject"] == b"2"
    with EmbeddedBroker({"other": 1}) as broker:
        assert "murmura.reviews" in refused_here(*words, broker.bootstrap)


def test_two_versions_are_shown_side_by_side_by_task(tmp_path):
    comparison = Comparison(tmp_path / "results.sqlite")
    old, new = AnswerCounts("desk 6"), AnswerCounts("desk 7")
    for number, (before, after) in enumerate([("a", "a"), ("a", "b"), (None, "a"), (None, None)]):
        comparison.add(full_result(number, after))
        new.add(full_result(number, after))
        comparison.join(full_result(number, before))
        old.add(full_result(number, before))
    new.add(b"{")
    title, _, row = compare_versions(comparison, old, new)
    assert title == "desk 7 against desk 6"
    assert row.split() == [
        "intent",
        "4",
        "50.0",
        "%",
        "50.0",
        "->",
        "25.0",
        "%",
        "(-25.0)",
        "0.0",
        "->",
        "0.0",
        "%",
        "(+0.0)",
    ]


async def test_a_replay_writes_what_serving_wrote_moves_no_offset_and_shows_texts_only_when_asked(
    kafka, unique, make_topics, tiny_model, tmp_path
):
    desk = Desk(kafka, unique("desk"), tiny_model)
    names = ("requests", "classified", "analysed", "deadletters", "again")
    topics = dict(zip(names, await make_topics(*names, prefix=desk.prefix), strict=True))
    texts = [f"where is my card number {number}?" for number in range(60)]
    async with desk.serving():
        await desk.send(*({"text": text} for text in texts), b"{", {"text": "named", "id": "own"})
        served = await desk.read(desk.classified, 61)
    committed = await desk.committed()
    config = tmp_path / "murmura.yaml"
    agent = f"agents: {{classification: {{topics: [{desk.requests}], output: {desk.classified}}}}}"
    config.write_text(f"prefix: {desk.prefix}\napp: {desk.prefix}\n{agent}\nmodel: {{cores: 1, token_budget: 256}}\n")
    file = tmp_path / "new.jsonl"

    def replay(*more: object):
        words = ("replay", desk.requests, "classification", "--model", tiny_model, "--config", config)
        return asyncio.to_thread(run_here, *words, "--bootstrap", kafka, *more)

    done = await replay("--to", file)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:2] == [
        "62 records: 61 results, 1 would be dead letters",
        "61 results were published before, 0 were not",
    ]
    assert "  intent: 61 of 61 agree (100.0 %)" in lines
    assert "card number" not in done.stdout

    def but_for_its_time(value: bytes) -> str:
        return json.dumps({name: field for name, field in json.loads(value).items() if name != "time"}, sort_keys=True)

    replayed = sorted(map(but_for_its_time, file.read_bytes().splitlines()))
    assert replayed == sorted(but_for_its_time(record.value) for record in served)
    assert await desk.committed() == committed
    assert len(await desk.read(desk.dead_letters, 1)) == 1

    done = await replay("--to", topics["again"], "--offsets", "0:0-5", "--text")
    assert done.stdout.startswith("5 records: "), done.stderr
    sent = await desk.read(topics["again"], 4)
    assert {json.loads(record.value)["source"]["partition"] for record in sent} == {0}
    both = await replay("--against", tiny_model)
    assert "tiny" in both.stdout.splitlines()[1], both.stderr
    assert "intent                      61 100.0 %" in both.stdout
    middle = max(record.timestamp for record in served)
    later = await replay(
        "--against", desk.classified, "--since", datetime.fromtimestamp(middle / 1000 + 1, UTC).isoformat()
    )
    assert later.stdout.startswith("0 records: "), later.stderr
    refused = await replay("--to", desk.classified)
    assert "serving reads or writes that topic" in refused.stderr


async def test_people_are_asked_about_published_answers_that_another_model_contradicts(
    kafka, unique, make_topics, tiny_model, tmp_path
):
    desk = Desk(kafka, unique("desk"), tiny_model)
    names = ("requests", "classified", "analysed", "deadletters", "reviews", "feedback")
    await make_topics(*names, prefix=desk.prefix)
    async with desk.serving(desk.agents[:1]):
        await desk.send(*({"text": f"where is my card number {number}?"} for number in range(40)))
        served = {each["prediction_id"]: each for each in map(value_of, await desk.read(desk.classified, 40))}
    config, other = tmp_path / "murmura.yaml", write_tiny_model(tmp_path / "other", seed=5)
    settings = {
        "prefix": desk.prefix,
        "app": desk.prefix,
        "agents": {"classification": {"topics": [desk.requests], "output": desk.classified}},
        "model": {"cores": 1, "token_budget": 256},
    }
    config.write_text(json.dumps(settings))
    words = ("replay", desk.requests, "classification", "--model", other, "--config", config, "--bootstrap", kafka)
    done = await asyncio.to_thread(run_here, *words, "--to", tmp_path / "new.jsonl", "--reviews", 3)
    assert f"published 3 reviews to {desk.prefix}.reviews, with the reason disagreement" in done.stdout, done.stderr
    replayed = {each["prediction_id"]: each for each in map(json.loads, (tmp_path / "new.jsonl").open())}
    reviews = [Review.model_validate_json(each.value) for each in await desk.read(f"{desk.prefix}.reviews", 3)]
    assert len({each.prediction_id for each in reviews}) == len(reviews) == 3
    for review in reviews:
        before = served[review.prediction_id]
        assert review.why is ReviewReason.DISAGREEMENT
        assert review.source.model_dump() == before["source"]
        old, new = (each["outputs"][review.task] for each in (before, replayed[review.prediction_id]))
        assert answer_of(old) != answer_of(new)
        if old["kind"] == "classification":
            assert (review.predicted, review.score) == (old["alternatives"][0]["label"], old["score"])


def value_of(record) -> dict:
    return json.loads(record.value)


async def test_a_version_of_the_store_is_replayed_on_values_of_another_shape_against_another_topic(
    kafka, unique, make_topics, tiny_model, tmp_path
):
    desk = Desk(kafka, unique("desk"), tiny_model)
    names = ("requests", "classified", "analysed", "deadletters", "again")
    topics = dict(zip(names, await make_topics(*names, prefix=desk.prefix, partitions=1), strict=True))
    inputs = {desk.requests: {"text": "$.body.words", "id": "$.number"}}
    async with desk.serving(inputs=inputs):
        await desk.send(*({"body": {"words": f"where is my card {number}"}, "number": number} for number in range(12)))
        await desk.read(desk.classified, 12)
    store = ModelStore(str(tmp_path / "store"))
    store.push(tiny_model)
    name = json.loads((tiny_model / "manifest.json").read_text())["name"]
    config = tmp_path / "murmura.yaml"
    settings = {
        "prefix": desk.prefix,
        "app": desk.prefix,
        "agents": {"classification": {"topics": [desk.requests], "output": desk.classified}},
        "model": {"cores": 1, "token_budget": 256, "store": str(tmp_path / "store"), "name": name},
        "inputs": inputs,
    }
    config.write_text(json.dumps(settings))

    def replay(*more: object):
        words = ("replay", desk.requests, "classification", "--version", f"{name}/1", "--config", config)
        return asyncio.to_thread(run_here, *words, "--bootstrap", kafka, *more)

    done = await replay("--to", topics["again"])
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:2] == [
        "12 records: 12 results, 0 would be dead letters",
        "12 results were published before, 0 were not",
    ]
    assert len(await desk.read(topics["again"], 12)) == 12
    done = await replay("--against", topics["again"], "--offsets", "0:0-2")
    assert done.stdout.splitlines()[1].startswith("2 results were published before"), done.stdout + done.stderr


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ((), "give either --model FOLDER or --version"),
        (("--model", "x", "--version", "a/1"), "give either --model FOLDER or --version"),
        (("--model", "x", "--against", "a/1", "--reviews", 5), "--reviews asks about published answers"),
        (("--version", "a"), "--version: expected NAME/VERSION"),
        (("--version", "a/1"), "--version needs the model store"),
    ],
)
def test_what_cannot_be_replayed_is_one_line(words, why):
    assert why in refused_here("replay", "murmura.analysis.requests", "analysis", *words)
