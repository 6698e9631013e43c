"""The retraining job of this desk: what people corrected, what has to stay as it is, and what the gate compares."""

import os
from collections import defaultdict
from pathlib import Path
from typing import Any, Final

import yaml

from ...runtime.kafka.embedded_broker import FETCH_MAX_WAIT_MS
from .place import RECIPE, ROWS, TOPIC
from .questions import SOURCES

OWN_TEXTS: Final = ("customers", "customers-by-queue", "out-of-scope", "entities")
"""Texts that we wrote, without their labels: on these the new version has to answer as the old one did."""
SENTIMENT_ALLOWANCE: Final = 0.05
"""Of plain messages the model gives a mood a score of 0.3, little more than chance among four: what tips from one to the
other is noise, and half a point of 154 messages less than one of them."""


def write_job(work: Path, bootstrap: str, model: str, data: Path | None) -> Path:
    """Write the job. With `data`, the public sets that the model was made of, a share of these is seen again."""
    held = {"weight": 3.0, "texts": [str(ROWS / f"{name}.jsonl") for name in OWN_TEXTS]}
    reports: dict[str, dict[str, Any]] = defaultdict(dict)
    for source in SOURCES:
        reports[source.task][source.name] = source.as_report()
    job: dict[str, Any] = {
        "model": {"store": str(work / "store"), "name": model},
        "feedback": {"ingest": {"requests": [TOPIC], "split": "text"}, "weight": 5},
        "fit": {
            "epochs": 2,
            "evaluations": 1,
            "encoder_lr": 3.0e-5,
            "dropout": 0.0,
            "threads": max(1, (os.cpu_count() or 2) - 1),
        },
        "gate": {"reports": dict(reports), "allowances": {"sentiment": SENTIMENT_ALLOWANCE}},
        "release": {"by": "the demo", "why": "corrections of a new product"},
        "kafka": {"bootstrap_servers": bootstrap, "fetch_max_wait_ms": FETCH_MAX_WAIT_MS},
    }
    if data is None:
        job["hold"] = held
    else:
        job["old"] = {"recipe": str(RECIPE), "data": str(data.resolve()), "replay": 0.2}
        # Its thresholds are chosen anew, on 120 messages: the share that is withheld is not known better than that.
        job["gate"]["served_allowance"] = 0.1
    path = work / "job.yaml"
    path.write_text(yaml.safe_dump(job, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return path
