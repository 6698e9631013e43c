"""Rows of a task that generates, which a tiny encoder learns in seconds, and the recipe that it learns them by."""

import random
from typing import Any

from tiny_training import RECIPE

WORDINGS = {
    "city": ["Which city is it?", "Where do you live?"],
    "date": ["When is it?", "On which day do you come?"],
}
OFFERS = {"city": "I found a table in {city}. Shall I book it?", "date": "There is one on {date}, is that right?"}
TASK: dict[str, Any] = {"kind": "generation", "acts": True, "context": 2, "layers": 1, "train": "replies.jsonl"}
REPLIES: dict[str, Any] = RECIPE | {"max_tokens": 32, "tasks": {"reply": TASK}}


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
