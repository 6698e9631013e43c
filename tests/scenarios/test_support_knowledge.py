"""The demo's knowledge, and the rows that it is measured on: enough of them, and none that is learned or chosen on."""

import json
from pathlib import Path

from murmura.agents.dialogue.knowledge.entries import plain, read_knowledge

SUPPORT = Path(__file__).parents[2] / "scenarios" / "support"
ENTRIES = read_knowledge(SUPPORT / "faq.yaml")
TEST, VALIDATION = (
    [json.loads(line) for line in (SUPPORT / "rows" / f"{name}.jsonl").read_text().splitlines()]
    for name in ("knowledge", "knowledge-validation")
)


def test_every_answer_is_asked_for_in_other_words_and_as_many_texts_have_none():
    answered = {entry.question for entry in ENTRIES if entry.answer is not None}
    assert {row["question"] for row in TEST} == answered | {None}
    assert sum(row["question"] is not None for row in TEST) >= 200
    assert sum(row["question"] is None for row in TEST) >= 200
    assert {row["question"] for row in VALIDATION} == answered | {None}


def test_no_text_stands_in_the_knowledge_or_in_both_parts():
    known = {plain(question) for entry in ENTRIES for question in entry.questions}
    parts = [[plain(row["text"]) for row in rows] for rows in (TEST, VALIDATION)]
    assert len({*known, *parts[0], *parts[1]}) == len(known) + len(parts[0]) + len(parts[1])
