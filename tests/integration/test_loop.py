"""The loop on a real Kafka: served, corrected, ingested, retrained, judged, released, swapped in, and answered anew."""

import asyncio
import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from cli_in_process import run_here
from serving import Desk, ids
from tiny_loop import loans, write_corrections, write_job
from tiny_training import rows, write_jsonl

from murmura.runtime.release.states import publish_state, read_states
from murmura.runtime.release.store import ModelStore
from murmura.runtime.settings.settings import KafkaSettings
from murmura.runtime.wire.feedback import to_record
from murmura.schemas.feedback import Feedback
from murmura.schemas.release import released
from murmura.schemas.review import Review
from murmura.schemas.training_event import TrainingEvent
from murmura.training.retrain.preview import preview
from murmura.training.retrain.run import retrain

FIT = {"epochs": 4, "evaluations": 2, "encoder_lr": 1e-3, "head_lr": 5e-3, "dropout": 0.0, "threads": 1}


@pytest.fixture
async def corrected(desk: Desk, make_topics) -> Desk:
    """The topics that the loop needs beside those of serving."""
    await make_topics("models", prefix=desk.prefix, partitions=1, config={"cleanup.policy": "compact"})
    await make_topics("events", "training", "feedback", "reviews", prefix=desk.prefix, partitions=1)
    desk.agents = desk.agents[:1]
    return desk


def correction(result: dict, label: str) -> Feedback:
    return Feedback(
        id=f"f{result['request_id']}",
        prediction_id=result["prediction_id"],
        agent=result["agent"],
        task="intent",
        verdict="correction",
        value=label,
        by="ann",
        at=datetime.now(UTC),
        consent=True,
    )


async def test_what_people_correct_is_answered_right_after_a_retraining(
    desk_base: Path, corrected: Desk, tmp_path: Path, monkeypatch
):
    desk = corrected
    monkeypatch.setenv("MURMURA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("murmura.training.fit.loop.PROGRESS_S", float("inf"))  # or a busy machine brings more events
    desk.agents = [_with_tasks(desk)]
    url = str(tmp_path / "store")
    store, kafka = ModelStore(url), KafkaSettings(bootstrap_servers=desk.bootstrap)
    first = store.push(desk_base / "desk")
    state = released(None, "desk", first, store.digest("desk", first), by="test", why="first", at=datetime.now(UTC))
    await publish_state(kafka, f"{desk.prefix}.models", state)
    slips = [{"text": f"i lost my card in rome {n}", "label": "transfer"} for n in range(3)]
    write_jsonl(tmp_path / "slips.jsonl", slips)  # so that people are asked about something
    job = write_job(
        tmp_path,
        desk_base,
        model={"store": url, "name": "desk"},
        gate={"reports": {"intent": {"slips": {"rows": "slips.jsonl"}}}},
        fit=FIT,
        prefix=desk.prefix,
        kafka={"bootstrap_servers": desk.bootstrap},
        feedback={
            "ingest": {"results": [desk.classified], "requests": [desk.requests], "heldout": 0.3, "split": "text"}
        },
    )
    serving_model = {"cores": 1, "token_budget": 256, "store": url, "name": "desk"}
    async with desk.serving(model=serving_model) as serving:
        asked = [{"id": f"q{n}", "text": row["text"]} for n, row in enumerate(loans(90, 3))]
        await desk.send(*asked)
        results = [json.loads(record.value) for record in await desk.read(desk.classified, len(asked))]
        assert {result["model"]["version"] for result in results} == {first}
        for result in results:
            sent = to_record(correction(result, "loan"), f"{desk.prefix}.feedback")
            await desk.send(sent["value"], topic=sent["topic"], key=sent["key"])

        said = "\n".join(await asyncio.to_thread(lambda: list(preview(job))))
        assert "ingest 90 records of feedback" in said
        done = await asyncio.to_thread(retrain, job, tmp_path / "work", quiet=True)
        assert (done.version, done.generation) == (2, 2)
        assert (await read_states(kafka, f"{desk.prefix}.models"))["desk"].current.version == 2

        swapped = await desk.read(f"{desk.prefix}.events", 1)
        assert json.loads(swapped[0].value)["event"] == "model.swapped"
        assert serving.engine.model.manifest.version == 2
        fresh = [{"id": f"n{n}", "text": row["text"]} for n, row in enumerate(loans(30, 77))]
        old = [{"id": f"o{n}", "text": row["text"]} for n, row in enumerate(rows(30, 78))]
        await desk.send(*fresh, *old)
        records = await desk.read(desk.classified, 150)
    assert sorted(ids(records)) == sorted(item["id"] for item in (*asked, *fresh, *old))
    answers = {(value := json.loads(record.value))["request_id"]: value for record in records}
    right = [_best(answers[item["id"]]) == "loan" for item in fresh]
    assert sum(right) / len(right) >= 0.8
    kept = [_best(answers[f"o{n}"]) == row["label"] for n, row in enumerate(rows(30, 78))]
    assert sum(kept) / len(kept) >= 0.9
    await _the_run_was_told(desk, tmp_path / "work")


def _with_tasks(desk: Desk):
    from dataclasses import replace

    return replace(desk.agents[0], tasks=("intent",))


def _best(result: dict) -> str:
    return result["outputs"]["intent"]["alternatives"][0]["label"]


async def _the_run_was_told(desk: Desk, work: Path) -> None:
    """Every event of the run lies in the topic under its id, in order; so do the reviews."""
    records = await desk.read(f"{desk.prefix}.training", 6)
    events = [TrainingEvent.model_validate_json(record.value) for record in records]
    names = [event.event.value for event in events]
    assert list(dict.fromkeys(names)) == ["run.started", "run.progress", "run.evaluated", "gate.passed", "run.released"]
    assert sum(bool(event.metrics) for event in events if event.event == "run.progress") == 2
    assert {record.key.decode() for record in records} == {json.loads((work / "job.json").read_text())["run"]}
    scored = next(event for event in events if event.metrics)
    assert scored.metrics["intent"]["main"] >= 0
    passed, went_live = events[-2:]
    gate = {f"{figure.task}/{figure.set}": figure for figure in passed.gate}
    assert gate["intent/feedback"].verdict == "better"
    assert gate["intent/test"].verdict != "worse"
    assert (went_live.version, went_live.generation) == (2, 2)
    reviews = [Review.model_validate_json(record.value) for record in await desk.read(f"{desk.prefix}.reviews", 3)]
    asked = {review.key for review in reviews if review.why == "error"}
    assert {f"slips.jsonl:{line}" for line in (1, 2, 3)} <= asked
    assert {(review.model.name, review.model.version) for review in reviews} == {("desk", 2)}


async def test_from_the_command_line_people_are_asked_about_live_texts_and_a_new_label_goes_live_from_its_examples(
    desk_base: Path, corrected: Desk, tmp_path: Path, monkeypatch
):
    desk = corrected
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    desk.agents = [_with_tasks(desk)]
    store, kafka = ModelStore(str(tmp_path / "store")), {"bootstrap_servers": desk.bootstrap}
    first = store.push(desk_base / "desk")
    state = released(None, "desk", first, store.digest("desk", first), by="test", why="first", at=datetime.now(UTC))
    await publish_state(KafkaSettings(**kafka), f"{desk.prefix}.models", state)
    async with desk.serving(model={"cores": 1, "store": str(tmp_path / "store"), "name": "desk"}) as serving:
        await desk.send(*({"id": f"q{n}", "text": row["text"]} for n, row in enumerate(loans(6, 3))))
        results = [json.loads(record.value) for record in await desk.read(desk.classified, 6)]
        await _people_are_asked(desk, desk_base / "desk", tmp_path, results)

        write_jsonl(tmp_path / "new.jsonl", [{"text": row["text"], "label": "loan"} for row in loans(16, 3)])
        job = write_job(
            tmp_path,
            desk_base,
            model={"store": str(tmp_path / "store"), "name": "desk"},
            feedback={"examples": {"intent": "new.jsonl"}},
            fit={**FIT, "epochs": 8, "evaluations": 1},
            prefix=desk.prefix,
            kafka=kafka,
        )
        assert "learn intent: 8 rows, 8 held out, new labels: loan\n" in await _run("retrain", job, "--dry-run")
        done = await _run("retrain", job, "--work", tmp_path / "work", "--quiet")
        assert re.search(r"^intent \(feedback, new labels\): 0\.0 -> .* better$", done, re.MULTILINE)
        assert not re.search(r"worse$", done, re.MULTILINE)

        await desk.read(f"{desk.prefix}.events", 1)
        assert serving.engine.model.manifest.version == 2
        await desk.send(*({"id": f"n{n}", "text": row["text"]} for n, row in enumerate(loans(20, 77))))
        answers = [json.loads(record.value) for record in await desk.read(desk.classified, 26)]
    fresh = [_best(answer) for answer in answers if answer["request_id"].startswith("n")]
    assert fresh.count("loan") >= 16 == 0.8 * len(fresh)


async def _run(*arguments: object) -> str:
    done = await asyncio.to_thread(run_here, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


async def _people_are_asked(desk: Desk, model: Path, folder: Path, results: list[dict]) -> None:
    """Of six live requests one was judged; three are suggested first, and then the two that are left."""
    judged = correction(results[0], "loan").model_copy(update={"consent": False})
    sent = to_record(judged, f"{desk.prefix}.feedback")
    await desk.send(sent["value"], topic=sent["topic"], key=sent["key"])
    agent = {"topics": [desk.requests], "output": desk.classified}
    settings = {"prefix": desk.prefix, "agents": {"classification": agent}}
    (folder / "murmura.yaml").write_text(yaml.safe_dump(settings))
    suggest = ("suggest", "--live", "--model", model, "--task", "intent", "--agent", "classification")
    where = ("--config", folder / "murmura.yaml", "--bootstrap", desk.bootstrap, "--per-minute", 6000)
    assert (await _run(*suggest, *where, "--count", 3)).startswith(
        "3 of 6 live requests, by margin; left out: 1 judged or asked about, 0 gone or without a text"
    )
    assert (await _run(*suggest, *where)).startswith("2 of 6 live requests, by margin; left out: 4 judged or asked")
    reviews = [Review.model_validate_json(record.value) for record in await desk.read(f"{desk.prefix}.reviews", 5)]
    assert {(review.why, review.model.name) for review in reviews} == {("suggested", "desk")}
    assert sorted(review.prediction_id for review in reviews) == sorted(each["prediction_id"] for each in results[1:])


async def test_a_job_whose_training_topic_is_missing_stops_before_it_trains(
    desk: Desk, desk_base: Path, tmp_path: Path
):
    from murmura.runtime.errors import SetupError

    write_corrections(tmp_path / "corrections")
    job = write_job(tmp_path, desk_base, prefix=desk.prefix, kafka={"bootstrap_servers": desk.bootstrap})
    assert yaml.safe_load(job.read_text())["prefix"] == desk.prefix
    with pytest.raises(SetupError, match=rf"{desk.prefix}\.training are not on .*`murmura topics --create`"):
        await asyncio.to_thread(retrain, job, tmp_path / "work", quiet=True)
    assert not (tmp_path / "work" / "data").exists()
