"""Rows of a task that generates, which a tiny encoder learns in seconds, and the recipe that it learns them by."""

import random
from pathlib import Path
from typing import Any

import yaml
from tiny_training import RECIPE, rows, write_jsonl

from murmura.training.export.export import export
from murmura.training.fit.loop import fit

WORDINGS = {
    "city": ["Which city is it?", "Where do you live?"],
    "date": ["When is it?", "On which day do you come?"],
}
OFFERS = {"city": "I found a table in {city}. Shall I book it?", "date": "There is one on {date}, is that right?"}
TASK: dict[str, Any] = {"kind": "generation", "acts": True, "context": 2, "layers": 1, "train": "replies.jsonl"}
REPLIES: dict[str, Any] = RECIPE | {"max_tokens": 32, "tasks": {"reply": TASK}}


def write_reply_desk(folder: Path) -> Path:
    """Write data, the recipe `base.yaml` of replies and intents, its run, and the model `desk` that comes of it."""
    write_jsonl(folder / "replies.jsonl", reply_rows(240, 0))
    write_jsonl(folder / "later.jsonl", reply_rows(60, 8))
    write_jsonl(folder / "train.jsonl", rows(120, 0))
    write_jsonl(folder / "test.jsonl", rows(60, 2))
    intent = {"train": "train.jsonl", "test": "test.jsonl", "out_of_scope": "other", "open": True}
    tasks = {"reply": TASK | {"test": "later.jsonl"}, "intent": intent}
    # A seed with which a third of unlike turns get a reply above the threshold: with others it is a fifth to a half.
    recipe = REPLIES | {"name": "desk", "seed": 3, "tasks": tasks, "budget": {"epochs": 14, "evaluations": 2}}
    (folder / "base.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    fit(folder / "base.yaml", folder, folder / "run", quiet=True)
    export(folder / "run", folder / "desk")
    return folder


def reply_rows(count: int, seed: int) -> list[dict[str, Any]]:
    """Return rows whose reply follows from acts and turn: the wording from what was said last."""
    draw, made = random.Random(seed), []
    for number in range(count):
        slot, polite = draw.choice(["city", "date"]), draw.choice([0, 1])
        act = ["request", "offer"][number % 2]
        reply = WORDINGS[slot][polite] if act == "request" else OFFERS[slot]
        said = f"{['hey', 'good morning'][polite]} i need {draw.choice(['a table', 'a room', 'help'])} {number}"
        turns = [{"role": "user", "text": said}]
        made.append({"turns": turns, "acts": [{"act": act, "slot": slot}], "reply": reply, "talk": number // 3})
    return made
