"""The versions that the demo compares: the same head for the queue of a message, learned from different rows. Pure but for the files.

All three are trained by `murmura few-shot`, on the encoder as it is. The first knows a handful of examples; the better one has
all of them; the worse one has them with half of the labels wrong, as after a careless merge of two tables.
"""

import json
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ...stage.exam import read_rows
from ..place import ROWS

MODEL: Final = "queues"
TASK: Final = "queue"
OUT_OF_SCOPE: Final = "out_of_scope"
EXAMPLES: Final = ("customers-by-queue", "customers-by-sentiment")
ASKED: Final = ("dev-messages", "report-messages")
"""What customers write; no version has learned from these."""
FEW: Final = 5
"""Examples of each queue that the first version has."""
WRONG: Final = 0.5
"""Share of the worse version's rows whose queue is drawn at random."""
_SEED: Final = 1

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Version:
    """A version to train: what it is called on the screen, and its rows."""

    name: str
    what: str
    rows: Sequence[Row]

    def write(self, folder: Path) -> Path:
        """Write its rows into a new file of the folder."""
        file = folder / f"{self.name}.jsonl"
        lines = (json.dumps({"text": row["text"], TASK: row[TASK]}, ensure_ascii=False) for row in self.rows)
        file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return file


def make_versions() -> tuple[Version, Version, Version]:
    """Return the first version, a better one and a worse one."""
    rows = list(_read(EXAMPLES))
    by_queue = defaultdict(list)
    for row in rows:
        by_queue[row[TASK]].append(row)
    draw = random.Random(_SEED)
    few = [row for queue in by_queue.values() for row in draw.sample(queue, min(FEW, len(queue)))]
    queues = sorted(by_queue)
    mixed = [row | ({TASK: draw.choice(queues)} if draw.random() < WRONG else {}) for row in rows]
    return (
        Version("first", f"{len(few)} examples", few),
        Version("better", f"{len(rows)} examples", rows),
        Version("worse", f"{len(rows)} examples, half of the labels wrong", mixed),
    )


def read_answers() -> dict[str, str]:
    """Return the right queue of each message that customers write."""
    return {row["text"]: row[TASK] for row in _read(ASKED)}


def few_shot_arguments(file: Path, folder: Path) -> tuple[str, ...]:
    """Return the arguments of `murmura few-shot` that make a version from its rows."""
    return (str(file), "--out", str(folder), "--label", TASK, "--task", TASK, "--max-tokens", "64")


def _read(names: Sequence[str]) -> Iterator[Row]:
    for name in names:
        yield from read_rows(ROWS / f"{name}.jsonl")
