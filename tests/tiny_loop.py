"""A small desk that is taught a new intent: a trained model with an open task, corrections, and jobs."""

import random
import shutil
from pathlib import Path
from typing import Any

import yaml
from tiny_training import PLACES, RECIPE, rows, write_jsonl

from murmura.runtime.model.model import Model
from murmura.training.export.export import export
from murmura.training.fit.loop import fit
from murmura.training.mix.corrections import read_corrections
from murmura.training.mix.plan import Mix, plan_mix
from murmura.training.recipe.job import read_job
from murmura.training.run_folders.run_folder import RunFolder

LOANS = [
    "i want a loan to see {}",
    "lend me cash for a house in {}",
    "can i borrow for {} please",
    "a loan for {} today",
]


def write_base(folder: Path) -> Path:
    """Write data and a recipe of three tasks, of which `intent` is open, and the model that comes of them."""
    write_jsonl(folder / "train.jsonl", rows(360, 1))
    write_jsonl(folder / "test.jsonl", rows(90, 2))
    tasks = {**RECIPE["tasks"], "intent": {**RECIPE["tasks"]["intent"], "open": True}}
    document = {**RECIPE, "name": "desk", "tasks": tasks}
    (folder / "base.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    fit(folder / "base.yaml", folder, folder / "run", quiet=True)
    export(folder / "run", folder / "desk")
    return folder / "desk"


def loans(count: int, seed: int) -> list[dict[str, Any]]:
    draw = random.Random(seed)
    ends = ["", "now", "quickly", "if you can", "for my family", "and me", "my friend", "this week"]
    texts = [f"{draw.choice(LOANS).format(draw.choice(PLACES))} {draw.choice(ends)} {n}" for n in range(count)]
    return [{"text": text, "label": "loan", "people": 1, "prediction_id": f"{n:032x}"} for n, text in enumerate(texts)]


def savings(count: int, seed: int) -> list[dict[str, Any]]:
    """Another product, for a second retraining."""
    draw = random.Random(seed)
    forms = ["what rate do savings get in {}", "open a savings account in {}", "interest on deposits in {}"]
    texts = [f"{draw.choice(forms).format(draw.choice(PLACES))} {n}" for n in range(count)]
    return [{"text": text, "label": "savings"} for text in texts]


def usual(count: int) -> list[dict[str, Any]]:
    """Texts of a usual day, without labels."""
    return [{"text": f"{row['text']} {n}"} for n, row in enumerate(rows(count, 11))]


def write_corrections(folder: Path, train: int = 60, heldout: int = 30) -> Path:
    """Write a data set as `murmura ingest` leaves it, but for the manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    write_jsonl(folder / "intent.train.jsonl", loans(train, 3))
    write_jsonl(folder / "intent.heldout.jsonl", loans(heldout, 4))
    return folder


def relabelled(folder: Path, heldout: int, train: int = 20) -> None:
    """Write feedback that exchanges two intents, which the current version tells apart without a mistake."""
    other = {"lost": "transfer", "transfer": "lost"}
    usual_rows = [row for row in rows(2 * (heldout + train) + 20, 7) if row["label"] in other][: heldout + train]
    lines = [{"text": f"{row['text']} {n}", "label": other[row["label"]]} for n, row in enumerate(usual_rows)]
    write_jsonl(folder / "intent.heldout.jsonl", lines[:heldout])
    write_jsonl(folder / "intent.train.jsonl", lines[heldout:])


def write_job(folder: Path, base: Path, **changes: Any) -> Path:
    """Write `job.yaml` with these keys replaced (None: left out)."""
    job = {
        "model": {"folder": str(base / "desk"), "store": str(folder / "store")},
        "feedback": {"data": "corrections"},
        "old": {"recipe": str(base / "base.yaml"), "data": str(base), "replay": 0.5},
        "fit": {"epochs": 3, "evaluations": 2, "encoder_lr": 1.0e-3, "head_lr": 5.0e-3, "dropout": 0.0, "threads": 1},
    }
    path = folder / "job.yaml"
    merged = {key: value for key, value in {**job, **changes}.items() if value is not None}
    path.write_text(yaml.safe_dump(merged, sort_keys=False))
    return path


def damaged(base: Path, folder: Path, task: str) -> Model:
    """The current version with the head of one task turned over, exported anew."""
    shutil.copytree(base / "run", folder / "run")
    run = RunFolder(folder / "run")
    record, weights = run.record(), run.weights()
    weights[f"heads.{task}.weight"] = weights[f"heads.{task}.weight"][::-1].copy()
    weights[f"heads.{task}.bias"] = weights[f"heads.{task}.bias"][::-1].copy()
    run.save_weights(weights)
    run.save_record(record)
    export(folder / "run", folder / "model")
    return Model.load(folder / "model")


def mix_of(job: Path, current: Model) -> Mix:
    """Plan what a job trains on when `current` is the version that serves."""
    value = read_job(job).value
    return plan_mix(value, current.manifest, read_corrections(value.feedback.data, current.manifest, 5))
