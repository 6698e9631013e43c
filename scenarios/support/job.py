"""The retraining job of this desk: the corrections, the texts whose answers must not change, and the gate's sets."""

import os
from collections import defaultdict
from pathlib import Path
from typing import Any, Final

import yaml

from ...runtime.kafka.embedded_broker import FETCH_MAX_WAIT_MS
from .place import RECIPE, ROWS, TOPIC
from .questions import SOURCES

OWN_TEXTS: Final = ("customers", "customers-by-queue", "customers-by-sentiment", "out-of-scope", "entities")
"""Our own texts without labels: the new version must answer them as the old one does."""
QUICK_TEXTS: Final = {"customers": 3, "customers-by-queue": 1, "out-of-scope": 3}
"""A quick run holds on to one of so many lines of these: of every intent and every queue, and what is out of scope. Without
the latter, or with fewer of the queues, a new label takes such texts in some runs.
"""
HOLD_WEIGHT: Final = 3.0
QUICK_HOLD_WEIGHT: Final = 6.0


def write_job(work: Path, bootstrap: str, model: str, data: Path | None, *, quick: bool = False) -> Path:
    """Write the job. `data`: the public data sets of the model, of which a share is trained on again.

    `quick`: 0.6 epochs instead of two, in larger steps, and fewer texts whose answers are kept, with more weight.
    """
    texts = [_write_part(work)] if quick else [ROWS / f"{name}.jsonl" for name in OWN_TEXTS]
    held = {"weight": QUICK_HOLD_WEIGHT if quick else HOLD_WEIGHT, "texts": [str(path) for path in texts]}
    reports: dict[str, dict[str, Any]] = defaultdict(dict)
    for source in SOURCES:
        reports[source.task][source.name] = source.as_report()
    job: dict[str, Any] = {
        "model": {"store": str(work / "store"), "name": model},
        "feedback": {"ingest": {"requests": [TOPIC], "split": "text"}, "weight": 5},
        "fit": {
            "epochs": 0.6 if quick else 2,
            "evaluations": 1,
            "encoder_lr": 5.0e-5 if quick else 3.0e-5,
            "dropout": 0.0,
            "threads": max(1, (os.cpu_count() or 2) - 1),
        },
        "gate": {"reports": dict(reports)},
        "release": {"by": "the demo", "why": "corrections of a new product"},
        "kafka": {"bootstrap_servers": bootstrap, "fetch_max_wait_ms": FETCH_MAX_WAIT_MS},
    }
    if data is None:
        job["hold"] = held
    else:
        job["old"] = {"recipe": str(RECIPE), "data": str(data.resolve()), "replay": 0.2}
        # Its thresholds are chosen again on 120 messages: the share of withheld answers is not known more precisely.
        job["gate"]["served_allowance"] = 0.1
    path = work / "job.yaml"
    path.write_text(yaml.safe_dump(job, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return path


def _write_part(work: Path) -> Path:
    """Write the texts that a quick run holds on to: a part of the lines of each file."""
    lines = [line for name, part in QUICK_TEXTS.items() for line in _lines(ROWS / f"{name}.jsonl")[::part]]
    path = work / "texts.jsonl"
    path.write_text("".join(lines), encoding="utf-8")
    return path


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines(keepends=True)
