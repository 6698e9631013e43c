"""Customers of the demo's desk for `desk_conversations.py`: what they write, answer by answer, and pairs of turns. Pure."""

import itertools
import json
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from murmura.agents.dialogue.policy.sayings import fill
from murmura.runtime.generation import slot_values

WORDS = Path(__file__).with_name("desk_customers.yaml")
SUPPORT = Path(__file__).parents[1] / "scenarios" / "support"
REAL = ("learn/desk-messages.jsonl", "rows/report-messages.jsonl")
"""Messages that no task is trained on."""
TRAINED = ("replies", "customers", "customers-by-queue", "customers-by-sentiment", "out-of-scope", "filter", "entities")
REAL_SHARE, GREETING_SHARE, UNCLEAR_SHARE = 0.2, 0.25, 0.12
QUESTION_SHARE, OFF_TOPIC_SHARE, SECOND_SHARE = 0.1, 0.08, 0.35
MOST_TURNS = 8

Words = Mapping[str, Any]


def read_words() -> dict[str, Any]:
    """Return what customers write, with the messages of the scenario's files as `real`, by intent."""
    words: dict[str, Any] = yaml.safe_load(WORDS.read_text(encoding="utf-8"))
    words["real"] = {intent: [] for intent in words["openings"]}
    for row in itertools.chain.from_iterable(read_rows(SUPPORT / name) for name in REAL):
        if row.get("intent") in words["real"]:
            words["real"][row["intent"]].append(row["text"])
    return words


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def read_trained() -> set[str]:
    """Return the texts of training rows that lie in the repository, in the form of `normalise`."""
    texts: list[str] = []
    for name in TRAINED:
        for row in read_rows(SUPPORT / "rows" / f"{name}.jsonl"):
            texts += (
                [turn["text"] for turn in row["turns"] if turn["role"] == "user"] if "turns" in row else [row["text"]]
            )
    return {normalise(text) for text in texts}


def normalise(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


@dataclass
class Customer:
    """One conversation: what is said unasked, in this order, and the answers to what the desk asks."""

    said: list[str]
    values: Mapping[str, str]
    answers: Mapping[str, str]
    unclear: list[str]
    """Said before an answer."""
    number: int = 0
    turns: int = 0
    given: Counter[str] = field(default_factory=Counter)
    """How often each slot was answered."""

    def speak(self, asked: str | None) -> str | None:
        """Return the next turn, None at the end of the conversation. `asked`: the slot that the desk asks for."""
        self.turns += 1
        if self.turns > MOST_TURNS:
            return None
        if asked is not None and (wording := self._word_answer(asked)) is not None:
            return fill(wording, self.values)
        if self.number == len(self.said):
            return None
        self.number += 1
        return fill(self.said[self.number - 1], self.values)

    def _word_answer(self, asked: str) -> str | None:
        """Return an answer; to the same question again the bare value, and then none."""
        if self.unclear:
            return self.unclear.pop()
        self.given[asked] += 1
        return {1: self.answers.get(asked), 2: f"{{{asked}}}"}.get(self.given[asked])


def draw_customers(words: Words, count: int) -> list[Customer]:
    """Return so many customers, the intents in turns; the same for the same words."""
    draw = random.Random("customers of the desk")
    intents = itertools.cycle(words["openings"])
    unused = {key: [] for key in [*words["openings"], "questions", *(("real", intent) for intent in words["real"])]}

    def pick(key: Any, texts: list[str]) -> str:
        if not unused[key]:
            unused[key] = draw.sample(texts, len(texts))
        return unused[key].pop()

    def open_about(intent: str) -> str:
        if words["real"][intent] and draw.random() < REAL_SHARE:
            return pick(("real", intent), words["real"][intent])
        return pick(intent, words["openings"][intent])

    customers = []
    for intent in itertools.islice(intents, count):
        said = [draw.choice(words["greetings"])] if draw.random() < GREETING_SHARE else []
        said.append(open_about(intent))
        if draw.random() < QUESTION_SHARE:
            said.append(pick("questions", words["questions"]))
        if draw.random() < OFF_TOPIC_SHARE:
            said.append(draw.choice(words["unclear"]))
        if draw.random() < SECOND_SHARE:
            said.append(open_about(draw.choice([*words["openings"]])))
        if intent in {"compromised_card", "terminate_account"}:
            said.append(draw.choice(words["waiting"]))
        customers.append(
            Customer(
                said,
                {slot: draw.choice(values) for slot, values in words["values"].items()},
                {slot: draw.choice(answers) for slot, answers in words["answers"].items()},
                [draw.choice(words["unclear"])] if draw.random() < UNCLEAR_SHARE else [],
            )
        )
    return customers


class Pair(NamedTuple):
    """Two conversations that differ in a name or a pronoun of their last turn."""

    kind: str
    before: list[str]
    turns: tuple[str, str]


def draw_pairs(words: Words, count: int) -> list[Pair]:
    """Return so many pairs, names and pronouns in turns."""
    draw, pairs = random.Random("pairs"), words["pairs"]
    names = list(itertools.combinations(pairs["names"], 2))
    draw.shuffle(names)
    forms = list(itertools.combinations(pairs["by_pronoun"]["forms"], 2))
    of_pronouns = [
        _make_pair("pronoun", rule, [dict(zip(("they", "them", "their"), each, strict=True)) for each in two])
        for rule, two in itertools.product(pairs["by_pronoun"]["turns"], forms)
    ]
    of_names = (
        _make_pair("name", rule, [{"name": one}, {"name": other}])
        for rule, (one, other) in zip(itertools.cycle(pairs["by_name"]), names, strict=False)
    )
    draw.shuffle(of_pronouns)
    pronouns = of_pronouns[: count // 2]
    return [*itertools.islice(of_names, count - len(pronouns)), *pronouns]


def _make_pair(kind: str, rule: Words, values: list[dict[str, str]]) -> Pair:
    one, other = (fill(rule["turn"], each) for each in values)
    return Pair(kind, list(rule.get("before", ())), (one[0].upper() + one[1:], other[0].upper() + other[1:]))


def put_slots(text: str, values: Mapping[str, str]) -> str:
    """Return a reply with slots for their values."""
    return slot_values.put_slots(text, (), {slot: [value] for slot, value in values.items()})


def find_shared(texts: Iterable[str], trained: set[str]) -> Iterator[str]:
    """Yield the texts that are training texts, too."""
    return (text for text in texts if normalise(text) in trained)
