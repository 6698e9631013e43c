"""The demo's own rows, messages and model, as they lie in the repository."""

import json
from collections import Counter
from typing import Any

import pytest

from murmura.runtime.model.folders.folder import check_folder
from murmura.scenarios.support.place import MESSAGES, MODEL, RECIPE, ROWS
from murmura.training.recipe.recipe import load_recipe

SETS = ("dev-messages", "report-messages")
TRAINED_ON = ("customers", "customers-by-queue", "customers-by-sentiment", "out-of-scope", "entities")
OUT_OF_SCOPE = "out_of_scope"
SENTIMENTS = {"negative", "neutral", "positive"}


def rows_of(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (ROWS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def plain(text: str) -> str:
    return "".join(c for c in text.lower() if c.isalnum())


def queues() -> dict[str, list[str]]:
    merge = load_recipe(RECIPE).tasks["queue"].train[0].merge
    assert merge is not None
    return merge


@pytest.mark.parametrize("name", SETS)
def test_a_set_has_genuine_messages_of_every_queue_and_off_topic_ones_with_their_sentiment(name: str) -> None:
    rows = rows_of(name)
    found = Counter(row["queue"] for row in rows)
    assert found.pop(OUT_OF_SCOPE) >= 60
    assert set(found) == set(queues())
    assert min(found.values()) >= 14
    assert {row["sentiment"] for row in rows} == SENTIMENTS


def test_the_report_set_has_every_task_labelled_on_200_genuine_and_100_off_topic_messages() -> None:
    rows, shared_out = rows_of("report-messages"), queues()
    assert all(set(row) == {"text", "intent", "queue", "sentiment", "slots"} for row in rows)
    genuine = [row for row in rows if row["queue"] != OUT_OF_SCOPE]
    assert len(genuine) >= 200
    assert len(rows) - len(genuine) >= 100
    assert all(row["intent"] in shared_out[row["queue"]] for row in genuine)
    assert len({row["intent"] for row in genuine}) == 77


def test_no_message_stands_in_both_sets_or_among_the_training_rows() -> None:
    held_out = [plain(row["text"]) for name in SETS for row in rows_of(name)]
    trained_on = {plain(row["text"]) for name in TRAINED_ON for row in rows_of(name)}
    assert len(set(held_out)) == len(held_out)
    assert not trained_on & set(held_out)


def test_the_queues_share_out_77_intents_and_each_has_training_rows_of_ours() -> None:
    shared_out = [intent for intents in queues().values() for intent in intents]
    assert len(shared_out) == len(set(shared_out)) == 77
    assert {row["intent"] for row in rows_of("customers")} == set(shared_out)
    assert {row["queue"] for row in rows_of("customers-by-queue")} == set(queues())


@pytest.mark.parametrize("name", ["entities", "report-messages"])
def test_entity_spans_lie_on_words(name: str) -> None:
    for row in rows_of(name):
        for span in row["slots"]:
            word = row["text"][span["start"] : span["end"]]
            assert word == word.strip() != ""


def test_the_sample_messages_are_sixty_and_some_are_broken_on_purpose() -> None:
    lines = MESSAGES.read_text(encoding="utf-8").splitlines()
    messages = [json.loads(line) for line in lines]
    assert sum(isinstance(message.get("text"), str) for message in messages) >= 60
    assert sum("raw" in message or "raw_hex" in message for message in messages) >= 4
    assert all(len({"text", "raw", "raw_hex"} & set(message)) == 1 for message in messages)


def test_the_model_is_a_sound_delta_of_at_most_ten_megabytes() -> None:
    manifest = check_folder(MODEL)
    assert manifest.is_delta
    assert [task.name for task in manifest.tasks] == ["intent", "queue", "sentiment", "entities", "reply"]
    assert sum(file.stat().st_size for file in MODEL.iterdir()) <= 10_000_000
