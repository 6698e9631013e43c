"""What one retraining learned stays learned, and measured, in the next."""

import json
from pathlib import Path

import pytest
from tiny_loop import loans, savings, write_corrections, write_job
from tiny_training import write_jsonl

from murmura.runtime.errors import SetupError
from murmura.runtime.model.model import Model
from murmura.training.mix.corrections import read_corrections
from murmura.training.mix.earlier import read_earlier
from murmura.training.retrain.preview import preview
from murmura.training.retrain.run import retrain

FIT = {"epochs": 6, "evaluations": 2, "encoder_lr": 1e-3, "head_lr": 5e-3, "dropout": 0.0, "threads": 1}


@pytest.fixture(scope="module")
def taught(desk_base: Path, tmp_path_factory) -> Path:
    """A retraining that has learned `loan`; its version lies in `store`."""
    folder = tmp_path_factory.mktemp("taught")
    write_corrections(folder / "corrections")
    retrain(write_job(folder, desk_base, fit=FIT), folder / "work", quiet=True)
    return folder


def second(folder: Path, desk_base: Path, taught: Path, **old) -> Path:
    (folder / "corrections").mkdir(exist_ok=True)
    write_jsonl(folder / "corrections" / "intent.train.jsonl", savings(60, 3))
    write_jsonl(folder / "corrections" / "intent.heldout.jsonl", savings(30, 4))
    data = {"recipe": str(desk_base / "base.yaml"), "data": str(desk_base), "replay": 0.5, **old}
    data = {key: value for key, value in data.items() if value is not None}
    return write_job(folder, desk_base, model={"folder": str(taught / "work/evaluate/model")}, old=data, fit=FIT)


def test_a_label_that_no_row_would_teach_any_more_is_refused_before_training(desk_base, taught, tmp_path):
    job = second(tmp_path, desk_base, taught)
    for attempt in (lambda: list(preview(job)), lambda: retrain(job, tmp_path / "work", quiet=True)):
        with pytest.raises(SetupError, match=r"job\.yaml:\d+: old: label 'loan' of task intent .* in old\.feedback"):
            attempt()
    assert not (tmp_path / "work").exists()


def test_with_the_earlier_feedback_the_second_retraining_keeps_what_the_first_learned(desk_base, taught, tmp_path):
    job = second(tmp_path, desk_base, taught, feedback=[str(taught / "work/data/set")])
    done = retrain(job, tmp_path / "work", quiet=True)
    found = {(each.task, each.set): each for each in done.gate.comparisons}
    assert found["intent", "earlier feedback"].found.rows == 30
    assert found["intent", "earlier feedback"].found.candidate >= 0.9
    assert found["intent", "feedback"].found.candidate >= 0.9
    model = Model.load(tmp_path / "work/evaluate/model")
    outputs = model.predict([row["text"] for row in loans(60, 99)], ["intent"])
    assert sum(out["intent"]["label"] == "loan" for out in outputs) / 60 >= 0.9


def test_of_a_text_the_last_word_counts(desk_base, tmp_path):
    manifest = Model.load(desk_base / "desk").manifest
    for name, label in (("first", "lost"), ("then", "transfer")):
        (tmp_path / name).mkdir()
        lines = [{"text": text, "label": label} for text in ("said twice", "said now", f"only {name}")]
        write_jsonl(tmp_path / name / "intent.train.jsonl", lines)
    (tmp_path / "now").mkdir()
    write_jsonl(tmp_path / "now" / "intent.train.jsonl", [{"text": "said now", "label": "other"}])
    now = read_corrections(tmp_path / "now", manifest, 5)
    found = read_earlier([tmp_path / "first", tmp_path / "then"], manifest, now)
    labels = {example.text: example.labels[0] for example in found["intent"].train}
    assert labels == {"said twice": "transfer", "only then": "transfer", "only first": "lost"}


def test_the_last_word_counts_in_every_spelling_and_part(desk_base, tmp_path):
    manifest = Model.load(desk_base / "desk").manifest
    parts = {"first": ("Said twice", "said now "), "then": ("said  TWICE", "ＳＡＩＤ now"), "now": ("Said Now",)}
    for (name, texts), label in zip(parts.items(), ("lost", "transfer", "other"), strict=True):
        (tmp_path / name).mkdir()
        for part in ("train", "heldout"):
            lines = [{"text": f"{text} {part}", "label": label} for text in texts]
            write_jsonl(tmp_path / name / f"intent.{part}.jsonl", lines)
    now = read_corrections(tmp_path / "now", manifest, 5)
    found = read_earlier([tmp_path / "first", tmp_path / "then"], manifest, now)["intent"]
    kept = [[(example.text, example.labels[0]) for example in part] for part in (found.train, found.heldout)]
    assert kept == [[("said  TWICE train", "transfer")], [("said  TWICE heldout", "transfer")]]


def test_earlier_feedback_needs_no_recipe(desk_base, taught, tmp_path):
    job = second(
        tmp_path, desk_base, taught, recipe=None, data=None, replay=None, feedback=[str(taught / "work/data/set")]
    )
    write_jsonl(tmp_path / "usual.jsonl", [{"text": f"send money to rome {n}"} for n in range(100)])
    job.write_text(job.read_text() + "hold: {texts: [usual.jsonl]}\n")
    said = "\n".join(preview(job))
    assert "compare intent (earlier feedback): 30 rows" in said
    assert "hold on to intent" in said
    assert "learn intent once more: 60 rows of earlier feedback" in said


def test_what_is_named_and_not_replayed_teaches_nothing(desk_base, taught, tmp_path):
    for task in ("topics", "places"):
        rows = [json.loads(line) for line in (desk_base / "train.jsonl").read_text().splitlines()[:20]]
        columns = {"topics": ("label", "topics"), "places": ("spans", "spans")}[task]
        lines = [{"text": row["text"], columns[0]: row[columns[1]]} for row in rows]
        (tmp_path / "corrections").mkdir(exist_ok=True)
        write_jsonl(tmp_path / "corrections" / f"{task}.train.jsonl", lines)
    job = second(tmp_path, desk_base, taught, feedback=[str(taught / "work/data/set")], replay=0)
    with pytest.raises(SetupError, match=r"old\.replay: at 0, no row teaches label 'loan' of task intent, so it would"):
        list(preview(job))
