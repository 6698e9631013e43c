"""Makes the rows of replies from the desk's wordings and customers' turns: `python -m murmura.scenarios.support.reply_rows`.

A row is a conversation up to a reply, the acts of the reply, and one of its wordings. The same files give the same rows.
"""

import json
import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from tokenizers import Tokenizer

from ...runtime.generation.reply_vocabulary import ReplyCutter, list_slots
from ...runtime.settings.yaml_file import read_yaml
from .place import HERE, MODEL, ROWS

WORDINGS: Final = HERE / "wordings.yaml"
TURNS: Final = HERE / "turns.yaml"
MOST_PIECES: Final = 35
"""Wordings behind a greeting or an apology that are longer than this are left out, and so are those that thank again."""
HELD_OUT: Final = "held_out"
ROWS_OF_AN_ACT_SET: Final = {"train": 44, "validation": 6, "test": 12}
FILES: Final = {
    "train": ROWS / "replies.jsonl",
    "validation": ROWS / "replies-validation.jsonl",
    "test": ROWS / "replies-test.jsonl",
}
GREET: Final = {"act": "greet"}
NOT_UNDERSTOOD: Final = {"act": "not_understood"}
_PRELUDE_SHARE: Final = 0.5
_MISLEADING_SHARE: Final = 0.2
"""Training rows whose last turn is about something else: it is the acts that say what is to be said, not the turn."""
_ALWAYS_MISLEADING_SHARE: Final = 0.5
"""The same of rules that belong to no intent: a greeting asks for nothing, whatever the turn is about."""
_MISSED_SHARE: Final = 0.15
"""Training rows without the values of their slots: some are not recognised."""
_THANKS: Final = re.compile(r"\bthanks?\b", re.IGNORECASE)
_MOOD_SHARE: Final = 0.65
"""How often a wording answers the mood, or the detail just given, where it can."""

Turn = dict[str, str]
Spoken = dict[str, Sequence[str]]
"""Wordings by manner: `plain`, `sorry` and `thanks`."""


class Course(NamedTuple):
    """A conversation up to a reply."""

    turns: list[Turn]
    upset: bool = False
    answers: bool = False
    """Whether its last turn gives the detail that was asked for."""
    values: Mapping[str, str] = MappingProxyType({})
    """What the customer means, by slot."""


def read_wordings() -> dict[str, Any]:
    """Return what the desk says, by rule of its policy."""
    found: dict[str, Any] = read_yaml(WORDINGS.read_text(encoding="utf-8"))[1]
    return found


def select_wordings(rule: Mapping[str, Any], part: str) -> Spoken:
    """Return a rule's wordings by manner; validation and test share out the ones held out."""
    if part == "train":
        return {manner: rule[manner] for manner in ("plain", "sorry", "thanks") if manner in rule}
    first = 0 if part == "validation" else 1
    held_out = rule[HELD_OUT] if isinstance(rule[HELD_OUT], dict) else {"plain": rule[HELD_OUT]}
    return {manner: wordings[first::2] for manner, wordings in held_out.items()}


class Desk:
    """Draws the conversations and replies of one part."""

    def __init__(self, wordings: Mapping[str, Any], turns: Mapping[str, Any], part: str, tokenizer: Tokenizer) -> None:
        self._wordings, self._part = wordings, part
        self._turns = turns if part == "train" else turns[HELD_OUT]
        self._values, self._answers, self._openings = (
            turns[name] if part == "train" else turns[name][HELD_OUT] for name in ("values", "answers", "openings")
        )
        slots = {slot for rule in wordings["rules"] for slot in list_slots(rule["template"])}
        self._cutter = ReplyCutter(tokenizer, slots)
        self._draw = random.Random(f"replies {part}")
        self._used = Counter[str]()

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the rows of every act set: each rule alone, behind the greeting, and behind an apology where it can be."""
        rows = ROWS_OF_AN_ACT_SET[self._part]
        greeting = self._wordings["greeting"] | {"acts": [GREET]}
        yield from self._rows_of(greeting, rows, first=False)
        for rule in self._wordings["rules"]:
            yield from self._rows_of(rule, rows, first=False)
            if rule["at"][0] == "intents":
                yield from self._rows_of(rule, rows, first=True)
            if "needs" in rule["at"]:
                yield from self._repeated_questions(rule, rows)

    def _rows_of(self, rule: Mapping[str, Any], rows: int, *, first: bool) -> Iterator[dict[str, Any]]:
        before = [("greeting", GREET)] if first else []
        yield from self._distinct(rows, lambda: self._row(rule, self._course(rule, first=first), before))

    def _repeated_questions(self, rule: Mapping[str, Any], rows: int) -> Iterator[dict[str, Any]]:
        def draw() -> dict[str, Any] | None:
            course = self._course(rule, first=False)
            question = self._pick(select_wordings(rule, self._part)["plain"])
            asked = _agent(_put_values(question, course.values))
            turns = [*course.turns, asked, self._user(self._turns["unclear"])]
            return self._row(rule, Course(turns), [("again", NOT_UNDERSTOOD)])

        yield from self._distinct(rows, draw)

    def _distinct(self, rows: int, draw: Any) -> Iterator[dict[str, Any]]:
        known: set[str] = set()
        for _ in range(50 * rows):
            row = draw()
            if row is not None and (key := json.dumps(row)) not in known:
                known.add(key)
                yield row
            if len(known) == rows:
                return

    def _row(
        self, rule: Mapping[str, Any], course: Course, before: Sequence[tuple[str, dict[str, str]]]
    ) -> dict[str, Any] | None:
        slots = {slot: value for slot, value in course.values.items() if _is_said(value, course.turns)}
        if self._part == "train":
            slots = {} if self._draw.random() < _MISSED_SHARE else slots
            share = _MISLEADING_SHARE if rule["at"][0] == "intents" else _ALWAYS_MISLEADING_SHARE
            course = self._mislead(course) if self._draw.random() < share else course
        spoken = select_wordings(rule, self._part)
        manner = self._manner(spoken, course)
        reply = self._pick(spoken[manner if not before or before[0][0] == "greeting" else "plain"])
        for name, _ in before:
            reply = f"{self._pick(select_wordings(self._wordings[name], self._part)['plain'])} {reply}"
        if len(self._cutter.cut(reply)) > MOST_PIECES or len(_THANKS.findall(reply)) > 1:
            return None
        acts = [*(act for _, act in before), *rule["acts"]]
        name = ".".join([*(name for name, _ in before), *rule["at"]])
        return {"turns": course.turns, "acts": acts, "slots": slots, "reply": reply, "rule": name}

    def _mislead(self, course: Course) -> Course:
        """Let the last turn open a conversation about any intent, calmly."""
        text = self._draw.choice(
            [text for moods in self._openings.values() for each in moods.values() for text in each]
        )
        values = {slot: self._draw.choice(self._values[slot]) for slot in list_slots(text)}
        return Course([*course.turns[:-1], {"role": "user", "text": _put_values(text, values)}], values=course.values)

    def _manner(self, spoken: Spoken, course: Course) -> str:
        fitting = [
            manner
            for manner, fits in (("sorry", course.upset), ("thanks", course.answers))
            if fits and spoken.get(manner)
        ]
        return fitting[0] if fitting and self._draw.random() < _MOOD_SHARE else "plain"

    def _course(self, rule: Mapping[str, Any], *, first: bool) -> Course:
        match rule["at"]:
            case ["intents", intent, "needs", slot]:
                return self._pursue(intent, slot, first=first)
            case ["intents", intent, *_]:
                return self._pursue(intent, None, first=first)
            case ["greeting"]:
                return Course([self._user([*self._turns["greetings"], *self._turns["unclear"]])])
            case ["handover", "waiting"]:
                handed = next(rule for rule in self._wordings["rules"] if rule["at"] == ["handover", "reply"])
                unclear = self._user(self._turns["unclear"])
                return Course([unclear, self._say(handed), self._user(self._turns["waiting"])])
            case ["handover", "reply"]:
                default = self._wordings["rules"][0]
                turns = [self._user(self._turns["unclear"]), self._say(default)]
                return Course([*turns, self._user(self._turns["unclear"])])
            case _:
                return Course([*self._prelude(), self._user(self._turns["unclear"])])

    def _pursue(self, intent: str, asked: str | None, *, first: bool) -> Course:
        """Draw a conversation about an intent, up to the question for a slot, or to the reply when all are known."""
        questions = self._questions(intent)
        needs = list(questions)
        before = needs if asked is None else needs[: needs.index(asked)]
        openings = [
            (text, mood == "upset")
            for mood, texts in self._openings[intent].items()
            for text in texts
            if asked not in (named := list_slots(text)) and (not first or set(before) <= set(named))
        ]
        text, upset = self._draw.choice(openings)
        values = {slot: self._draw.choice(self._values[slot]) for slot in needs}
        turns = [] if first else self._prelude()
        turns.append({"role": "user", "text": _put_values(text, values)})
        missing = [slot for slot in before if slot not in list_slots(text)]
        for slot in missing:
            question = self._pick(select_wordings(questions[slot], self._part)["plain"])
            turns.append(_agent(_put_values(question, values)))
            turns.append({"role": "user", "text": _put_values(self._draw.choice(self._answers[slot]), values)})
        return Course(turns, upset and not missing, bool(missing), values)

    def _questions(self, intent: str) -> dict[str, Mapping[str, Any]]:
        """Return the rules of an intent's questions by slot, in the order in which they are asked."""
        return {
            rule["at"][3]: rule for rule in self._wordings["rules"] if rule["at"][:3] == ["intents", intent, "needs"]
        }

    def _prelude(self) -> list[Turn]:
        if self._draw.random() > _PRELUDE_SHARE:
            return []
        return [self._user(self._turns["greetings"]), self._say(self._wordings["greeting"])]

    def _say(self, rule: Mapping[str, Any]) -> Turn:
        return _agent(self._draw.choice(select_wordings(rule, self._part)["plain"]))

    def _user(self, texts: Sequence[str]) -> Turn:
        return {"role": "user", "text": self._draw.choice(texts)}

    def _pick(self, wordings: Sequence[str]) -> str:
        """Return one of the wordings used least so far, so that all are used."""
        least = min(self._used[wording] for wording in wordings)
        chosen = self._draw.choice([wording for wording in wordings if self._used[wording] == least])
        self._used[chosen] += 1
        return chosen


def _agent(text: str) -> Turn:
    return {"role": "agent", "text": text}


def _is_said(value: str, turns: Sequence[Turn]) -> bool:
    return any(value in turn["text"] for turn in turns)


def _put_values(text: str, values: Mapping[str, str]) -> str:
    for slot, value in values.items():
        text = text.replace(f"{{{slot}}}", value)
    return text


def make_rows(part: str) -> list[dict[str, Any]]:
    """Return the rows of `train`, `validation` or `test`."""
    turns: dict[str, Any] = read_yaml(TURNS.read_text(encoding="utf-8"))[1]
    tokenizer = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    return [*Desk(read_wordings(), turns, part, tokenizer).rows()]


def write_rows(part: str, path: Path) -> int:
    """Write the rows of a part as JSON lines, and return their number."""
    rows = make_rows(part)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return len(rows)


if __name__ == "__main__":
    for part, path in FILES.items():
        print(f"{path.name}: {write_rows(part, path)} rows")
