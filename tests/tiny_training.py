"""Rows that a tiny encoder learns in seconds, and the recipe that it learns them by."""

import gzip
import json
import random
from pathlib import Path
from typing import Any

PLACES = ["london", "paris", "new york", "rome"]
SENTENCES = {
    "lost": ["i lost my card in {}", "my card is gone, {} took it", "somebody stole my card in {}"],
    "transfer": ["send money to {}", "please transfer cash to {}", "move my money to {} today"],
    "other": ["what is the weather in {}", "tell me a joke about {}", "who won the game in {}"],
}
BEFORE = ["", "", "hello ", "please ", "hi there ", "excuse me ", "good morning "]
BEHIND = ["", "", " please", " thank you", " right now", " by friday", " once more"]
"""Without them there would be 36 texts, of which validation would hold back four."""
RECIPE: dict[str, Any] = {
    "encoder": {
        "source": "scratch",
        "hidden_size": 32,
        "layers": 2,
        "heads": 2,
        "vocab_size": 300,
        "max_positions": 32,
    },
    "max_tokens": 24,
    "threads": 1,
    "dropout": 0.0,
    "optimiser": {"encoder_lr": 3e-3, "head_lr": 1e-2},
    "budget": {"epochs": 10, "evaluations": 2},
    "tasks": {
        "intent": {"out_of_scope": "other", "train": "train.jsonl", "test": "test.jsonl"},
        "topics": {"kind": "multi_label", "columns": {"label": "topics"}, "train": "train.jsonl", "test": "test.jsonl"},
        "places": {"kind": "tagging", "train": "train.jsonl", "test": "test.jsonl"},
    },
}


def say(sentence: str, draw: random.Random) -> str:
    """Return a sentence with other words before and behind it, which say nothing about its label."""
    return f"{draw.choice(BEFORE)}{sentence}{draw.choice(BEHIND)}"


def rows(count: int, seed: int) -> list[dict[str, Any]]:
    draw = random.Random(seed)
    made = []
    for number in range(count):
        label = list(SENTENCES)[number % 3]
        place = draw.choice(PLACES)
        text = say(draw.choice(SENTENCES[label]).format(place), draw)
        topics = [t for t, word in (("cards", "card"), ("money", "money"), ("travel", "paris")) if word in text]
        start = text.index(place)
        spans = [{"start": start, "end": start + len(place), "label": "place"}]
        made.append({"text": text, "label": label, "topics": topics, "spans": spans})
    return made


def write_jsonl(path: Path, items: list[dict[str, Any]]) -> Path:
    text = "".join(json.dumps(item) + "\n" for item in items)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path
