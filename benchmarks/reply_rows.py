"""Rows of replies to dialogues of a Schema-Guided Dialogue subset, for `generation.py`: parts, files, and baselines without a decoder.

Every eighth training dialogue is held out: `seen`, the services of training. `test` is the subset's test part, most of whose
services training lacks. Replies have slots for values.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from murmura.schemas.manifest import GenerationSpec
from murmura.training.data.example import Example
from murmura.training.data.files import find_source, read_rows
from murmura.training.data.replies import DIALOGUE, read_reply
from murmura.training.data.rules import Rules
from murmura.training.fit.rows.encoding import encode_ids
from murmura.training.kinds.replies.baselines import Contexts, answer_baselines
from murmura.training.model.encoders import Checkpoint, build_encoder
from murmura.training.model.padding import in_order, pad
from murmura.training.recipe.keys.reading import Columns, Reading

SUBSET = "sgd_subset"
SETS = {"train": "train.jsonl", "test": "test.jsonl"}
SCORED = ("seen", "test")
HELD_OUT = 8
TASKS = {
    "acts": GenerationSpec(context=1, acts=True, layers=3, slots=[]),
    "context": GenerationSpec(context=3, acts=False, layers=3, slots=[]),
}
MAX_TOKENS = 128


def read(data: Path, name: str, spec: GenerationSpec) -> list[Example]:
    """Return the replies of one file of the subset."""
    reading = Reading(format="sgd")
    rules = Rules(reading, Columns(), None, None, generation=spec)
    path = find_source(data / SUBSET, name)
    return [read_reply(row, rules) for row in read_rows(path, reading) if row.left_out is None]


def read_parts(data: Path, spec: GenerationSpec, most: int | None = None) -> dict[str, list[Example]]:
    """Return the parts `train`, `seen` and `test`; of each at most `most` rows."""
    every = read(data, SETS["train"], spec)
    numbers = {name: number for number, name in enumerate(dict.fromkeys(dialogue_of(row) for row in every))}
    held = [numbers[dialogue_of(row)] % HELD_OUT == HELD_OUT - 1 for row in every]
    parts = {
        "train": [row for row, out in zip(every, held, strict=True) if not out],
        "seen": [row for row, out in zip(every, held, strict=True) if out],
        "test": read(data, SETS["test"], spec),
    }
    return {name: rows[:most] for name, rows in parts.items()}


def dialogue_of(row: Example) -> str:
    return str(row.meta[DIALOGUE])


def write_rows(rows: Sequence[Example], path: Path) -> None:
    """Write dialogues as they were read, a reply a line."""
    path.write_text("".join(json.dumps(row_of(row)) + "\n" for row in rows))


def row_of(row: Example) -> dict[str, object]:
    """Return a reply as a row of JSON lines, with the turns that its task reads."""
    turns = [line.split(": ", 1) for line in (row.second or "").split("\n")]
    return {
        "dialogue": dialogue_of(row),
        "turns": [{"role": role, "text": text} for role, text in turns if text],
        "acts": [act.model_dump(mode="json", exclude_none=True) for act in row.acts],
        "reply": row.reply,
    }


def answer_without_decoder(
    parts: Mapping[str, Sequence[Example]], spec: GenerationSpec, checkpoint: Checkpoint | None
) -> dict[str, dict[str, list[str]]]:
    """Return the replies of the baselines by part and name; `consensus` where a checkpoint embeds the rows."""
    vectors = None if checkpoint is None else {name: embed(rows, checkpoint) for name, rows in parts.items()}
    found = {}
    for part in SCORED:
        contexts = None if vectors is None else Contexts(parts["train"], vectors["train"], vectors[part])
        found[part] = answer_baselines(parts["train"], parts[part], acts=spec.acts, contexts=contexts)
    return found


def embed(rows: Sequence[Example], checkpoint: Checkpoint) -> np.ndarray:
    """Return the mean of the tokens' states of what a task reads: [N, H]."""
    encoder = build_encoder(checkpoint.spec, checkpoint.weights, dropout=0.0).eval()
    checkpoint.tokenizer.enable_truncation(MAX_TOKENS)
    ids = encode_ids([row.given for row in rows], checkpoint.tokenizer)
    checkpoint.tokenizer.no_truncation()
    vectors = np.empty((len(rows), checkpoint.spec.hidden_size), np.float32)
    for chosen in in_order(ids, 64):
        tokens, mask = pad([ids[row] for row in chosen])
        with torch.no_grad():
            states = encoder(input_ids=tokens, attention_mask=mask).last_hidden_state
        counted = mask.unsqueeze(-1).float()
        vectors[chosen] = ((states * counted).sum(1) / counted.sum(1)).numpy()
    return vectors
