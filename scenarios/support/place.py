"""Where the files of this scenario lie, in a clone and in an installed package alike, and what its topic is called."""

from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent
MODEL: Final = HERE / "model"
MESSAGES: Final = HERE / "messages.jsonl"
RECIPE: Final = HERE / "recipe.yaml"
ROWS: Final = HERE / "rows"
LEARN: Final = HERE / "learn"
TOPIC: Final = "support.tickets"
