"""A study of a tiny recipe."""

from pathlib import Path
from typing import Any

from tiny_training import RECIPE

from murmura.training.search import run as search
from murmura.training.search.plan import open_plan
from murmura.training.search.results import Result

INTENT = {"intent": RECIPE["tasks"]["intent"]}
SIZES = {**RECIPE["encoder"], "hidden_size": 16, "layers": 1}
SHORT: dict[str, Any] = {
    "encoder": SIZES,
    "tasks": INTENT,
    "batch_size": 16,
    "budget": {"steps": 15, "evaluations": 2},
    "precision": "fp32",
}


def tune(path: Path, data: Path, out: Path, **given: Any) -> tuple[Result, list[str]]:
    said: list[str] = []
    plan = open_plan(path, data, out, storage=given.pop("storage", None), say=said.append)
    return search.run_study(plan, quiet=True, say=said.append, **given), said
