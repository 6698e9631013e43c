"""Feedback on a real Kafka: what the agent does with it, and how it becomes a data set that is the same each time."""

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.structs import TopicPartition
from cli_in_process import run_here
from ingest_world import World
from serving import Desk, reason

from murmura.agents.feedback import FeedbackAgent
from murmura.runtime.errors import MurmuraError, SetupError
from murmura.runtime.model.folders.folder import read_manifest
from murmura.runtime.settings.settings import KafkaSettings
from murmura.schemas.review import Review
from murmura.training.ingest import make as stages
from murmura.training.ingest.manifest import Options, labels_of_model, load_data_set
from murmura.training.prepare.reading import read_part
from murmura.training.recipe.keys.reading import Source
from murmura.training.recipe.keys.tasks import Task

MURMURA = Path(sys.executable).with_name("murmura")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def rows(folder: Path, name: str) -> list[dict]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


@pytest.fixture
def settings(kafka) -> KafkaSettings:
    return KafkaSettings(bootstrap_servers=kafka)


@pytest.fixture
async def world(kafka, make_topics, unique) -> World:
    """Twelve conversations of ten texts on a real Kafka, judged by two people who agree on most; not written yet."""
    made = World(unique("world"), partitions=2)
    await make_topics("feedback", "results", "requests", prefix=made.prefix, partitions=2)
    for n in range(120):
        this = made.ask(f"text number {n}", key=b"talk-%d" % (n // 10), partition=n // 10 % 2)
        made.judge(this, "refund" if n % 2 else "praise", partition=n % 2)
        made.judge(this, "refund" if n % 2 and n % 40 != 1 else "praise", by="bob", consent=n % 7 > 0)
    made.judge("0" * 32, "refund")
    made.judge(made.ask("not consented"), "refund", consent=False)
    made.judge(made.ask("withdrawn"), "refund", name="taken-back")
    made.judge("0" * 32, "taken-back", verdict="withdrawn", partition=1)
    made.add("feedback", b"not feedback")
    return made


async def plan_of(settings: KafkaSettings, world: World, **options):
    return await stages.make_plan(
        settings,
        feedback=[world.topic("feedback")],
        results=[world.topic("results")],
        requests=[world.topic("requests")],
        reviews=[world.topic("reviews")],
        options=Options(**options),
    )


async def test_the_same_manifest_gives_the_same_bytes_whatever_came_after(world, settings, kafka, tmp_path):
    await world.write(kafka)
    first = await stages.ingest(settings, await plan_of(settings, world), tmp_path / "first")
    assert first.counts["feedback"] == 245
    assert {role: sum(each.records for each in first.of(role)) for role in ("feedback", "results", "requests")} == {
        "feedback": 245,
        "results": 122,
        "requests": 122,
    }
    later = World(world.prefix)
    later.judge(json.loads(world.logs[world.topic("results")][0][0].value)["prediction_id"], "praise", minute=99)
    await later.write(kafka)
    made = load_data_set(tmp_path / "first")
    again = await stages.ingest(settings, made, tmp_path / "again")
    assert again == first == made
    assert contents(tmp_path / "again") == contents(tmp_path / "first")
    fresh = await stages.ingest(settings, await plan_of(settings, world), tmp_path / "fresh")
    assert fresh.counts["feedback"] == 246


async def test_the_rules_hold_on_records_that_went_over_the_wire(world, settings, kafka, tmp_path):
    await world.write(kafka)
    made = await stages.ingest(settings, await plan_of(settings, world, heldout=0.3), tmp_path / "set")
    left = {line["feedback"]: line["reason"] for line in rows(tmp_path / "set", "left_out.jsonl")}
    assert left["taken-back"] == "withdrawn"
    assert made.counts | {"used": 0} == {
        "feedback": 245,
        "taking_back": 1,
        "used": 0,
        "contradiction": 6,
        "invalid": 1,
        "no_consent": 19,
        "prediction_not_found": 1,
        "withdrawn": 1,
    }
    train, heldout = rows(tmp_path / "set", "intent.train.jsonl"), rows(tmp_path / "set", "intent.heldout.jsonl")
    assert len(train) + len(heldout) == 117
    assert [line["text"] for line in rows(tmp_path / "set", "contradictions.jsonl")] == [
        f"text number {n}" for n in (1, 41, 81)
    ]
    assert all(row["label"] == ("refund" if int(row["text"].split()[-1]) % 2 else "praise") for row in train + heldout)
    talks = [{int(row["text"].split()[-1]) // 10 for row in part} for part in (train, heldout)]
    assert not talks[0] & talks[1]


async def test_what_was_drawn_for_review_is_held_out_where_there_is_a_topic_of_reviews(
    world, settings, kafka, make_topics, tmp_path
):
    await world.write(kafka)
    plan = await plan_of(settings, world)
    assert plan.of("reviews") == []
    await make_topics("reviews", prefix=world.prefix, partitions=2)
    drawn = [json.loads(record.value)["prediction_id"] for record in world.logs[world.topic("results")][0][:10]]
    later = World(world.prefix)
    for prediction in drawn:
        later.draw(prediction, rate=0.25)
    await later.write(kafka)
    made = await stages.ingest(settings, await plan_of(settings, world, heldout=0.0), tmp_path / "set")
    assert made.counts["drawn_at_random"] == 10
    assert {row["prediction_id"] for row in rows(tmp_path / "set", "intent.heldout.jsonl")} == set(drawn) - {
        row["prediction_id"] for row in rows(tmp_path / "set", "left_out.jsonl") if row["reason"] == "contradiction"
    }
    assert {row["sampling_rate"] for row in rows(tmp_path / "set", "intent.heldout.jsonl")} == {0.25}


async def test_requests_that_all_have_one_key_are_refused_in_one_line(settings, kafka, make_topics, unique, tmp_path):
    world = World(unique("world"))
    await make_topics("feedback", "results", "requests", prefix=world.prefix, partitions=2)
    for n in range(20):
        world.judge(world.ask(f"text {n}", key=b"desk"), "refund")
    await world.write(kafka)
    with pytest.raises(SetupError, match=r"all 20 judged texts have the same key, .*`--split text`"):
        await stages.ingest(settings, await plan_of(settings, world), tmp_path / "set")
    assert list(tmp_path.iterdir()) == []
    made = await stages.ingest(settings, await plan_of(settings, world, split="text"), tmp_path / "set")
    assert made.counts["used"] == 20


async def test_the_trainer_reads_what_ingest_writes(world, settings, kafka, tmp_path):
    await world.write(kafka)
    await stages.ingest(settings, await plan_of(settings, world, heldout=0.3), tmp_path / "set")
    source = Source(path="intent.train.jsonl")
    task = Task(kind="classification", train=[source])
    examples = read_part([source], task, tmp_path / "set", seed=1)
    assert {label for example in examples for label in example.labels} == {"refund", "praise"}


async def test_records_that_are_gone_stop_it_before_anything_is_written(world, settings, kafka, tmp_path):
    await world.write(kafka)
    made = await stages.ingest(settings, await plan_of(settings, world), tmp_path / "set")
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    await admin.delete_records({TopicPartition(world.topic("results"), 1): RecordsToDelete(9)})
    await admin.close()
    said = rf"{world.topic('results')}, partition 1: of offsets 0 to 60 \(exclusive\) 9 to 60 is left"
    with pytest.raises(SetupError, match=said):
        await stages.ingest(settings, made, tmp_path / "again")
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    words = ("ingest", "--from-manifest", tmp_path / "set", "--out", tmp_path / "x", "--bootstrap", kafka)
    done = await asyncio.to_thread(run_here, *words)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "partition 1" in done.stderr


async def test_what_does_not_come_out_as_its_manifest_says_is_refused(world, settings, kafka, tmp_path):
    await world.write(kafka)
    made = await stages.ingest(settings, await plan_of(settings, world), tmp_path / "set")
    changed = made.model_copy(update={"options": Options(heldout=0.5)})
    with pytest.raises(MurmuraError, match=r"intent.heldout.jsonl.*made anew"):
        await stages.ingest(settings, changed, tmp_path / "again")
    assert not (tmp_path / "again").exists()


async def test_a_data_set_is_never_overwritten(world, settings, tmp_path):
    (tmp_path / "set").mkdir()
    with pytest.raises(SetupError, match="is there already"):
        await stages.ingest(settings, world.plan(), tmp_path / "set")


@pytest.mark.slow
async def test_a_killed_run_leaves_nothing_that_looks_finished_and_the_next_is_whole(
    kafka, make_topics, unique, settings, tmp_path
):
    world = World(unique("kill"), partitions=2)
    await make_topics("feedback", "results", "requests", prefix=world.prefix, partitions=2)
    for n in range(8000):
        world.judge(world.ask(f"text {n}", partition=n % 2), "refund", partition=n % 2)
    await world.write(kafka)
    made = await stages.ingest(settings, await plan_of(settings, world), tmp_path / "first")
    command = [
        MURMURA,
        "ingest",
        "--from-manifest",
        tmp_path / "first",
        "--out",
        tmp_path / "set",
        "--bootstrap",
        kafka,
    ]
    for n in range(3):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        async with asyncio.timeout(60):
            while not (tmp_path / "set.part/join.sqlite").exists() and process.poll() is None:
                await asyncio.sleep(0.005)
        await asyncio.sleep(0.1 * n)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert not (tmp_path / "set").exists()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert contents(tmp_path / "set") == contents(tmp_path / "first")
    assert load_data_set(tmp_path / "set").digest == made.digest
    assert not (tmp_path / "set.part").exists()


@pytest.fixture
async def judged_desk(kafka, make_topics, unique, tiny_model) -> Desk:
    prefix = unique("judged")
    await make_topics("requests", "classified", "analysed", "deadletters", "feedback", "reviews", prefix=prefix)
    return Desk(kafka, prefix, tiny_model)


def agents_of(desk: Desk) -> list:
    judge = FeedbackAgent()
    judge.topics = (f"{desk.prefix}.feedback",)
    return [*desk.agents, judge]


async def test_from_a_request_over_its_answer_and_a_verdict_to_a_row(judged_desk, settings, tmp_path):
    desk = judged_desk
    texts = ["my card was lost", "i want a refund", "transfer money to london", "hello"]
    await desk.send(*({"id": f"r{n}", "text": text} for n, text in enumerate(texts)), key=b"talk")
    async with desk.serving(agents_of(desk)) as serving:
        results = {json.loads(r.value)["request_id"]: json.loads(r.value) for r in await desk.read(desk.classified, 4)}
        entities = {json.loads(r.value)["request_id"]: json.loads(r.value) for r in await desk.read(desk.analysed, 4)}
        about = {
            "by": "ann",
            "at": "2025-01-31T12:00:00Z",
            "consent": True,
            "agent": "classification",
            "task": "intent",
            "verdict": "correction",
            "model": {"name": "tiny", "version": 0},
        }
        first = about | {"prediction_id": results["r0"]["prediction_id"]}
        places = [{"label": "place", "start": 18, "end": 24}]
        spans = about | {"prediction_id": entities["r2"]["prediction_id"], "agent": "analysis", "task": "entities"}
        feedback = [
            first | {"id": "1", "value": "card_lost"},
            about | {"id": "2", "prediction_id": results["r1"]["prediction_id"], "verdict": "up"},
            spans | {"id": "3", "value": places},
            first | {"id": "4", "agent": "nobody", "value": "card_lost"},
            first | {"id": "5", "task": "nothing", "value": "card_lost"},
            first | {"id": "6", "value": "card_found", "by": "bob"},
            first | {"id": "7", "verdict": "sideways"},
            b"{",
            spans | {"id": "8", "value": [{"label": "time", "start": 0, "end": 99}], "by": "bob"},
        ]
        await desk.send(*feedback, topic=f"{desk.prefix}.feedback")
        letters = await desk.read(desk.dead_letters, 5)
        scraped = serving.metrics.registry.get_sample_value
        labels = {"agent": "classification", "task": "intent", "version": "0", "verdict": "correction"}
        assert scraped("murmura_feedback_total", labels) == 1
        assert scraped("murmura_live_accuracy", {"task": "intent", "version": "0"}) == 0.5
    assert sorted(map(reason, letters)) == ["invalid", "invalid", "invalid", "not_json", "unknown_task"]
    assert all(dict(letter.headers)["murmura_dl_agent"] == b"feedback" for letter in letters)
    plan = await stages.make_plan(
        settings,
        feedback=[f"{desk.prefix}.feedback"],
        results=[desk.classified, desk.analysed],
        requests=[desk.requests],
        options=Options(heldout=0, labels=labels_of_model(read_manifest(desk.model))),
    )
    made = await stages.ingest(settings, plan, tmp_path / "set")
    assert [(row["text"], row["label"]) for row in rows(tmp_path / "set", "intent.train.jsonl")] == [
        ("my card was lost", "card_lost")
    ]
    (row,) = rows(tmp_path / "set", "entities.train.jsonl")
    assert row["text"][18:24] == "london"
    assert row["spans"] == places
    left = {line["feedback"]: line["reason"] for line in rows(tmp_path / "set", "left_out.jsonl")}
    expected = {"2": "no_label", "4": "other_agent", "5": "unknown_task", "6": "unknown_label", "8": "spans_outside"}
    assert left == expected | {None: "invalid"}
    assert made.counts["used"] == 2


async def test_doubtful_answers_go_to_people_with_their_coordinates(judged_desk):
    desk = judged_desk
    await desk.send(*({"id": f"r{n}", "text": f"my card was lost {n}"} for n in range(50)))
    async with desk.serving(reviews={"per_minute": 60, "margin": 1.0}):
        results = [json.loads(r.value) for r in await desk.read(desk.classified, 50)]
        reviews = [Review.model_validate_json(r.value) for r in await desk.read(f"{desk.prefix}.reviews", 1)]
    by_prediction = {result["prediction_id"]: result for result in results}
    assert 1 <= len(reviews) <= 15
    for review in reviews:
        if review.agent == "classification":
            assert review.source.model_dump() == by_prediction[review.prediction_id]["source"]
            assert review.margin is not None


async def test_answers_drawn_at_random_go_to_people_with_the_probability_of_that(judged_desk):
    desk = judged_desk
    await desk.send(*({"id": f"r{n}", "text": f"my card was lost {n}"} for n in range(50)))
    async with desk.serving(reviews={"random_per_minute": 6000}):
        results = [json.loads(r.value) for r in await desk.read(desk.classified, 50)]
        reviews = [Review.model_validate_json(r.value) for r in await desk.read(f"{desk.prefix}.reviews", 1)]
    by_prediction = {result["prediction_id"]: result for result in results}
    assert {review.why for review in reviews} == {"random"}
    for review in reviews:
        assert 0 < review.sampling_rate <= 1
        if review.agent == "classification":
            assert review.source.model_dump() == by_prediction[review.prediction_id]["source"]


async def test_asking_people_without_their_topic_is_refused_at_the_start(desk):
    with pytest.raises(SetupError, match="reviews is not on"):
        async with desk.serving(reviews={"per_minute": 1}):
            pass
