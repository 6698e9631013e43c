"""The replies of conversations in a join: what was said before each, and slots for the values in what people worded.

Replies are judged like answers: the text is the turn that a reply answers, the answer its words. They are kept with all others of their
conversation, because the turns before belong to what a decoder reads.
"""

import json
import math
import re
import sqlite3
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final

import msgspec

from ...runtime.generation.facts import find_fact
from ...runtime.generation.slot_values import holds_part, put_slots
from ...schemas.dialogue import REPLY_CHARACTERS, Wording
from .manifest import Options
from .results import ResultSource
from .rules import LeftOut, Unfit

EXCHANGES: Final = 4
"""Turns with their replies before a judged one that a row has at most. A task reads as many of them as its recipe says."""
_WORD: Final = re.compile(r"\S+")
REPLY_TABLES: Final = """
CREATE TABLE replies (place INTEGER PRIMARY KEY, prediction BLOB, agent TEXT, conversation TEXT, number INTEGER,
                      request INTEGER, stamp INTEGER, acts TEXT, slots TEXT, text TEXT, wording TEXT,
                      first INTEGER, last INTEGER);
"""
# Of replies that were sent again the first in the topic counts.
_SETTLE: Final = (
    "CREATE INDEX replies_prediction ON replies (prediction, place)",
    "DELETE FROM replies WHERE EXISTS"
    " (SELECT 1 FROM replies AS other WHERE other.prediction = replies.prediction AND other.place < replies.place)",
    "CREATE INDEX replies_number ON replies (agent, conversation, number)",
)
_JUDGED: Final = (
    "SELECT place, prediction, request, stamp, agent, slots, text, first, last FROM replies"
    " WHERE EXISTS (SELECT 1 FROM feedback WHERE feedback.prediction = replies.prediction)"
)
# The requests of the turns before, as results are wanted for: see WANT.
_WANT_BEFORE: Final = (
    "INSERT OR IGNORE INTO wanted SELECT e.request FROM replies AS j JOIN replies AS e ON e.agent = j.agent"
    " AND e.conversation = j.conversation AND e.number BETWEEN j.number - ? AND j.number - 1"
    " WHERE e.request IS NOT NULL AND EXISTS (SELECT 1 FROM feedback WHERE feedback.prediction = j.prediction"
    " AND (feedback.left_out IS NULL OR feedback.left_out = 'withdrawn'))"
)
_BEFORE: Final = (
    "SELECT e.number, e.stamp, q.text, e.text FROM replies AS e"
    " JOIN requests AS q ON q.place = e.request AND q.stamp = e.stamp"
    " WHERE e.agent = ? AND e.conversation = ? AND e.place < ? AND e.number BETWEEN ? AND ? ORDER BY e.place DESC"
)


MOST_INTEGER: Final = 2**63 - 1
"""The highest number that a cell of the join holds."""


class PartRecord(msgspec.Struct):
    """What a join reads of the part of a reply that the model may word."""

    start: Annotated[int, msgspec.Meta(ge=0, le=MOST_INTEGER)]
    end: Annotated[int, msgspec.Meta(ge=0, le=MOST_INTEGER)]
    acts: list[dict[str, str | None]] = []


class ReplyRecord(msgspec.Struct):
    """What a join reads of a reply."""

    prediction_id: str
    agent: str
    conversation: str
    number: Annotated[int, msgspec.Meta(le=MOST_INTEGER)]
    source: ResultSource
    text: str
    acts: list[dict[str, str | None]] = []
    slots: dict[str, str] = {}
    wording: str = Wording.TEMPLATE
    part: PartRecord | None = None


read_reply_record = msgspec.json.Decoder(ReplyRecord).decode


class Replies:
    """The table of replies."""

    def __init__(self, db: sqlite3.Connection, options: Options) -> None:
        self._db, self._task, self._constants = db, options.reply_task, options.constants
        self._expiry_ms = math.inf if options.reply_expiry_ms is None else options.reply_expiry_ms
        db.executescript(REPLY_TABLES)

    def add(self, rows: Iterable[tuple[int, int | None, ReplyRecord]]) -> None:
        """Keep replies; each comes with its place and that of its turn, None where the turn is not to be read."""
        self._db.executemany(
            "INSERT INTO replies VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [_row_of(here, request, reply) for here, request, reply in rows],
        )

    def as_results(self, first_place: int) -> None:
        """Add the judged ones to the results, from a place on behind all of these."""
        for statement in _SETTLE:
            self._db.execute(statement)
        judged = self._db.execute(_JUDGED).fetchall()
        self._db.executemany(
            "INSERT INTO results VALUES (?, ?, ?, ?, ?, ?)",
            (
                (first_place + here, prediction, request, stamp, agent, self._output_of(slots, text[first:last]))
                for here, prediction, request, stamp, agent, slots, text, first, last in judged
            ),
        )

    def want_before(self) -> None:
        """Want the turns before the judged ones, too."""
        self._db.execute(_WANT_BEFORE, (EXCHANGES,))

    def read_words(self, prediction: bytes, worded: str | None = None) -> str:
        """Return the words of a reply, or what a person `worded` instead, with slots for the values of that reply; of one that the policy
        words in part itself, the rest.

        Unfit for what a decoder must not learn: other words for the policy's own, values that are left, reviewed answers, replies that
        may have been cut, and what is no reply of the dialogue agent.
        """
        found = self._db.execute(
            "SELECT slots, wording, text, first, last FROM replies WHERE prediction = ?", (prediction,)
        ).fetchone()
        if found is None:
            raise Unfit(LeftOut.NO_REPLY)
        slots, (wording, said, first, last) = json.loads(found[0]), found[1:]
        if wording == Wording.KNOWLEDGE:
            raise Unfit(LeftOut.REVIEWED_ANSWER)
        if len(said) >= REPLY_CHARACTERS:
            raise Unfit(LeftOut.CUT_REPLY)
        words = said[first:last] if worded is None else take_off(worded, said[:first], said[last:])
        if words is None:
            raise Unfit(LeftOut.FIXED_WORDS)
        text = self._put_slots(slots, words)
        if find_fact(text) is not None or holds_part(text, slots.values()):
            raise Unfit(LeftOut.HOLDS_VALUE)
        return text

    def row_of(self, prediction: str) -> dict[str, Any]:
        """Return the turns before a reply, its acts and the values of its slots, as the trainer reads them.

        Those from before the conversation began again are left out: the agent did not know them.
        """
        raw = bytes.fromhex(prediction)
        here, agent, conversation, number, stamp, acts, slots, turn = self._db.execute(
            "SELECT r.place, r.agent, r.conversation, r.number, r.stamp, r.acts, r.slots, q.text FROM replies AS r"
            " JOIN requests AS q ON q.place = r.request WHERE r.prediction = ?",
            (raw,),
        ).fetchone()
        turns = [{"role": "user", "text": turn}]
        known = agent, conversation, here, number - EXCHANGES, number - 1
        for before, at, said, reply in self._db.execute(_BEFORE, known):
            if before != number - (len(turns) + 1) // 2 or stamp - at > self._expiry_ms:
                break  # a turn in between is not known any more, or the conversation had expired
            stamp = at
            turns = [{"role": "user", "text": said}, {"role": "agent", "text": reply}, *turns]
        return {
            "turns": turns,
            "acts": [_without_nulls(act) for act in json.loads(acts)],
            "slots": json.loads(slots),
        }

    def _output_of(self, slots: str, text: str) -> bytes:
        reply = {"kind": "generation", "text": self._put_slots(json.loads(slots), text)}
        return msgspec.json.encode({self._task: reply})

    def _put_slots(self, slots: Mapping[str, str], text: str) -> str:
        return put_slots(text, (), {name: [value] for name, value in {**self._constants, **slots}.items()})


def take_off(text: str, before: str, after: str) -> str | None:
    """Return what stands between two texts, whatever white space these have; None where it does not stand between them."""
    words, first, last = [*_WORD.finditer(text)], before.split(), after.split()
    rest = words[len(first) : len(words) - len(last)]
    expected = [*first, *(word[0] for word in rest), *last]
    if [word[0] for word in words] != expected:
        return None
    return text[rest[0].start() : rest[-1].end()] if rest else ""


def _row_of(here: int, request: int | None, reply: ReplyRecord) -> tuple[Any, ...]:
    """Return the row of a reply; `acts` are those that its words stand for, from `first` to `last`."""
    part = reply.part or PartRecord(0, len(reply.text), reply.acts)
    said = (json.dumps(part.acts), json.dumps(reply.slots), reply.text, reply.wording, part.start, part.end)
    ids = (bytes.fromhex(reply.prediction_id), reply.agent, reply.conversation, reply.number)
    return (here, *ids, request, reply.source.timestamp, *said)


def _without_nulls(act: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in act.items() if value is not None}
