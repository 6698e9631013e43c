"""What is wrong with a job is one line, before anything starts, and the same line in a dry run."""

import os
import re
import shutil
from contextlib import suppress
from pathlib import Path

import pytest
from tiny_loop import write_corrections, write_job
from tiny_training import write_jsonl

from murmura.runtime.errors import SetupError
from murmura.runtime.kafka.embedded_broker import EmbeddedBroker
from murmura.training.recipe.idle.job_keys import find_idle_keys
from murmura.training.recipe.job import read_job
from murmura.training.retrain.checks import check_job
from murmura.training.retrain.preview import preview
from murmura.training.retrain.run import GateRefused, Retraining, retrain


def refusals(job: Path, work: Path) -> set[str]:
    """What a run and a dry run say."""
    found = set()
    for attempt in (lambda: list(preview(job)), lambda: retrain(job, work, quiet=True)):
        with pytest.raises(SetupError) as refused:
            attempt()
        found.add(str(refused.value))
    return found


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"feedback": {"data": "nope"}}, "feedback.data: {}/nope: no such folder; expected one that `murmura ingest`"),
        ({"feedback": {"data": "store"}}, "feedback.data: {}/store: no TASK.train.jsonl and TASK.heldout.jsonl"),
        ({"feedback": {"data": "corrections", "weight": 0}}, "feedback.weight: expected `balanced` or a whole number"),
        ({"hold": {"texts": ["nope.jsonl"]}}, "hold.texts: {}/nope.jsonl: no such file"),
        ({"hold": {"texts": "x.jsonl"}}, "hold.texts: expected a list, found 'x.jsonl'; write [x.jsonl]"),
        (
            {"gate": {"reports": {"intent": {"own": {"rows": "nope.jsonl"}}}}},
            "gate.reports.intent.own.rows: {}/nope.jsonl: no such file",
        ),
        ({"gate": {"target": "intent"}}, "gate.target: expected a list, found 'intent'"),
        ({"old": {"recipe": "nope.yaml"}}, "old.recipe: {}/nope.yaml: cannot read the recipe: no such file"),
        ({"old": {"replay": 0.3}}, "old: expected `recipe`, `feedback` or both"),
        ({"old": {"feedback": ["nope"]}}, "old.feedback: {}/nope: no such folder; expected one that `murmura ingest`"),
        (
            {"model": {"folder": "desk", "store": "foo://x/y"}},
            "model.store: model store foo://x/y cannot be opened: Protocol",
        ),
    ],
)
def test_a_mistake_names_file_line_and_key(desk_base, tmp_path, changes, message):
    write_corrections(tmp_path / "corrections")
    (tmp_path / "store").mkdir()
    job = write_job(tmp_path, desk_base, **changes)
    (said,) = refusals(job, tmp_path / "work")
    where, _, what = said.partition(": ")
    assert where.rpartition(":")[0] == str(job)
    assert what.startswith(message.format(tmp_path))
    assert "\n" not in said
    assert not (tmp_path / "work").exists()


REPLIES = {"replies": ["desk.replies"]}
KAFKA = {"bootstrap_servers": "localhost:1"}
IDLE = {
    "fit.epochs": ({"fit": {"epochs": 2, "steps": 9}}, "has no effect beside `fit.steps`; expected one of them"),
    "fit.lora.decoder_rank": ({"fit": {"lora": {"decoder_rank": 8}}}, "has no effect: decoders go on from the version"),
    "old.data": ({"old": {"feedback": ["set"], "data": "rows"}}, "has no effect without `old.recipe`"),
    "old.replay": ({"old": {"feedback": ["set"], "replay": 0.5}}, "has no effect without `old.recipe`"),
    "feedback.ingest.turns": (
        {"feedback": {"ingest": {"turns": ["desk.turns"]}}, "kafka": KAFKA},
        "has no effect without `replies`",
    ),
    "feedback.ingest.constants": (
        {"feedback": {"ingest": {"constants": {"bank": "Ours"}}}, "kafka": KAFKA},
        "has no effect without `replies`",
    ),
    "prefix": ({"prefix": "desk"}, "has no effect without `kafka`"),
    "release.push": ({"model": {"folder": "desk"}, "release": {"push": True}}, "has no effect without `model.store`"),
    "release.release": ({"release": {"release": True}}, "has no effect without `kafka`: nothing is released"),
    "release.by": (
        {"kafka": KAFKA, "release": {"by": "us", "release": False}},
        "has no effect beside `release: false`",
    ),
    "release.why": ({"kafka": KAFKA, "release": {"why": "new", "push": False}}, "has no effect as nothing is pushed"),
}


@pytest.mark.parametrize("key", IDLE)
def test_a_key_without_effect_is_refused_by_name_and_line(tmp_path, key):
    changes, message = IDLE[key]
    file = read_job(write_job(tmp_path, tmp_path, **changes))
    assert [place for place, _ in find_idle_keys(file.value)] == [tuple(key.split("."))]
    for attempt in (lambda: check_job(file), lambda: [*preview(file.path)]):
        with pytest.raises(SetupError, match=rf"job\.yaml:\d+: {re.escape(f'{key}: {message}')}") as refused:
            attempt()
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"fit": {"steps": 9}},
        {"fit": {"epochs": 2}},
        {"old": {"recipe": "a.yaml", "data": "rows", "replay": 0.5, "feedback": ["set"]}},
        {"feedback": {"ingest": {**REPLIES, "turns": ["desk.turns"], "constants": {"bank": "Ours"}}}, "kafka": KAFKA},
        {"kafka": KAFKA, "prefix": "desk", "release": {"push": True, "release": True, "by": "us", "why": "new"}},
        {"release": {"push": False, "release": False}},
        {"old": {"recipe": None, "data": None, "feedback": ["set"]}},
    ],
)
def test_keys_that_act_are_not_refused(tmp_path, changes):
    assert [*find_idle_keys(read_job(write_job(tmp_path, tmp_path, **changes)).value)] == []


def test_replaying_nothing_of_a_task_that_has_no_feedback_is_refused(desk_base, tmp_path):
    write_corrections(tmp_path / "corrections")
    old = {"recipe": str(desk_base / "base.yaml"), "data": str(desk_base), "replay": 0}
    (said,) = refusals(write_job(tmp_path, desk_base, old=old), tmp_path / "work")
    assert said.endswith("old.replay: at 0, task topics has nothing to train on; raise it")


def test_a_report_whose_rows_lack_a_column_is_refused_before_anything_starts(desk_base, tmp_path):
    write_corrections(tmp_path / "corrections")
    write_jsonl(tmp_path / "own.jsonl", [{"text": "a", "intent": "lost"}])
    job = write_job(tmp_path, desk_base, gate={"reports": {"intent": {"own": {"rows": "own.jsonl"}}}})
    (said,) = refusals(job, tmp_path / "work")
    assert said == f"{tmp_path}/own.jsonl:1: column 'label' is missing; found text, intent"


@pytest.mark.parametrize(
    ("there", "missing"),
    [([], "topics murmura.models, murmura.training are"), (["training"], "topic murmura.models is")],
)
def test_a_missing_topic_is_named_by_both(desk_base, tmp_path, there, missing):
    write_corrections(tmp_path / "corrections")
    with EmbeddedBroker({"other": 1, **{f"murmura.{name}": 1 for name in there}}) as broker:
        job = write_job(tmp_path, desk_base, kafka={"bootstrap_servers": broker.bootstrap, "fetch_max_wait_ms": 5})
        (said,) = refusals(job, tmp_path / "work")
    assert f"kafka: {missing} not on " in said
    assert "`murmura topics --create` makes ours" in said


def test_what_is_to_be_ingested_is_counted_and_the_old_data_is_read_all_the_same(desk_base, tmp_path):
    topics = ["training", "models", "feedback", *[f"{a}.{r}" for a in ("classification", "analysis") for r in ENDS]]
    with EmbeddedBroker({f"murmura.{name}": 1 for name in topics}) as broker:
        kafka = {"bootstrap_servers": broker.bootstrap, "fetch_max_wait_ms": 5}
        job = write_job(tmp_path, desk_base, kafka=kafka, feedback={"ingest": {}})
        said = "\n".join(preview(job))
        shutil.copy(desk_base / "train.jsonl", tmp_path / "train.jsonl")
        old = {"recipe": str(desk_base / "base.yaml"), "data": "."}  # test.jsonl is not there
        broken = write_job(tmp_path, desk_base, kafka=kafka, feedback={"ingest": {}}, old=old)
        with pytest.raises(SetupError, match=r"test\.jsonl: no such file"):
            list(preview(broken))
    assert "ingest 0 records of feedback from murmura.feedback" in said
    assert re.search(r"replay topics: 16\d of 32\d old rows", said)
    assert "compare places (test): 90 rows" in said


ENDS = ("requests", "results")


def test_paths_are_relative_to_the_job_and_old_data_lies_beside_its_recipe(desk_base, tmp_path, monkeypatch):
    folder = tmp_path / "jobs"
    write_corrections(folder / "corrections")
    for name in ("train.jsonl", "test.jsonl", "base.yaml"):
        shutil.copy(desk_base / name, folder / name)
    write_job(
        folder, desk_base, model={"folder": str(desk_base / "desk"), "store": "models"}, old={"recipe": "base.yaml"}
    )
    monkeypatch.chdir(tmp_path)
    job = read_job(Path("jobs/job.yaml"))
    assert job.value.model.store == str(folder / "models")
    assert job.value.old.folder == folder
    assert check_job(job).mix.old.keys() == {"intent", "topics", "places"}


@pytest.mark.parametrize("store", ["s3://bucket/models", "/srv/models", "~/models", "memory://x"])
def test_a_url_or_a_whole_path_of_a_store_stays_as_it_is(desk_base, tmp_path, store):
    job = read_job(write_job(tmp_path, desk_base, model={"store": store, "name": "desk"}))
    assert job.value.model.store == store


def test_a_run_that_was_begun_with_relative_paths_goes_on_from_anywhere(desk_base, tmp_path, monkeypatch):
    class Gone(BaseException):
        pass

    def gone(self, folder):
        raise Gone

    write_corrections(tmp_path / "corrections")
    write_job(tmp_path, desk_base, fit={"epochs": 1, "evaluations": 1, "lora": True, "threads": 1, "encoder_lr": 1e-3})
    monkeypatch.chdir(tmp_path)
    real = Retraining._export
    monkeypatch.setattr(Retraining, "_export", gone)
    with pytest.raises(Gone):
        retrain(Path("job.yaml"), Path("job.run"), quiet=True)
    monkeypatch.setattr(Retraining, "_export", real)
    monkeypatch.chdir("/")
    there = os.path.relpath(tmp_path)
    # A single epoch may not be enough for the gate: what matters is that it gets there.
    with suppress(GateRefused):
        retrain(Path(there) / "job.yaml", Path(there) / "job.run", quiet=True)
    assert (tmp_path / "job.run" / "gate" / "gate.json").is_file()
