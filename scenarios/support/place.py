"""Paths of this scenario's files, in a clone and in an installed package, and the name of its topic."""

from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent
MODEL: Final = HERE / "model"
POLICY: Final = HERE / "policy.yaml"
FAQ: Final = HERE / "faq.yaml"
FAQ_THRESHOLD: Final = 0.59
"""Least similarity of an answer, chosen on `rows/knowledge-validation.jsonl` for the demo's model (benchmarks/knowledge.py)."""
CONVERSATIONS: Final = HERE / "conversations.yaml"
MESSAGES: Final = HERE / "messages.jsonl"
RECIPE: Final = HERE / "recipe.yaml"
ROWS: Final = HERE / "rows"
LEARN: Final = HERE / "learn"
TOPIC: Final = "support.tickets"
