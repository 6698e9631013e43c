"""What tests of classifications with few rows share."""

from typing import Any

INTENT: dict[str, Any] = {"train": "train.jsonl", "test": "test.jsonl"}
PLAIN = {"optimiser": {}, "budget": {"steps": 2, "evaluations": 1}, "precision": "fp32"}
