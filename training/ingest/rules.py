"""What a verdict says about a text: the target that it stands for, or why it stands for none. Pure."""

import json
import re
from collections.abc import Mapping
from enum import StrEnum
from hashlib import blake2b
from typing import Any, Final, NamedTuple

from ...runtime.model.inputs import Input, TextPair, first_text, plain_key
from ...runtime.model.kinds.forms import Reads
from ...runtime.model.kinds.registry import KINDS
from ...runtime.model.texts.words import trim_blanks
from ...schemas.feedback import LABEL_CHARACTERS
from ..data.near_texts import near_characters, near_form, near_id
from .manifest import Options, TaskLabels

_TASK = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
"""As in a model's manifest: a task's name becomes that of a file."""
UNITS: Final = 1 << 63
TRIMMED_SPANS: Final = "trimmed_spans"
"""Among the counts of a data set: spans, not records."""


class LeftOut(StrEnum):
    """Why feedback is no example."""

    UNREADABLE = "unreadable"
    UNREADABLE_REVIEW = "unreadable_review"
    UNREADABLE_REPLY = "unreadable_reply"
    UNREADABLE_RESULT = "unreadable_result"
    UNREADABLE_REQUEST = "unreadable_request"
    INVALID = "invalid"
    DUPLICATE = "duplicate"
    WITHDRAWN = "withdrawn"
    FOREIGN_WITHDRAWAL = "foreign_withdrawal"
    NOT_FOUND = "prediction_not_found"
    OTHER_AGENT = "other_agent"
    NOT_ASKED = "task_not_asked"
    UNKNOWN_TASK = "unknown_task"
    REQUEST_NOT_FOUND = "request_not_found"
    WRONG_FORM = "wrong_form"
    BLANK_LABEL = "blank_label"
    UNKNOWN_LABEL = "unknown_label"
    SPANS_OUTSIDE = "spans_outside"
    HOLDS_VALUE = "holds_value"
    FIXED_WORDS = "fixed_words"
    CUT_REPLY = "cut_reply"
    REVIEWED_ANSWER = "reviewed_answer"
    NO_REPLY = "no_reply"
    NO_LABEL = "no_label"
    SUPERSEDED = "superseded"
    NO_CONSENT = "no_consent"
    OUTVOTED = "outvoted"
    CONTRADICTION = "contradiction"


MEANING: Final[Mapping[LeftOut, str]] = {
    LeftOut.UNREADABLE: "the client cannot unpack the record",
    LeftOut.UNREADABLE_REVIEW: "a review, not feedback: the same; whether its prediction was drawn at random is not known",
    LeftOut.UNREADABLE_REPLY: "a reply, not feedback: the same; what was said of it finds no prediction",
    LeftOut.UNREADABLE_RESULT: "a result, not feedback: the same; what was said of it finds no prediction",
    LeftOut.UNREADABLE_REQUEST: "a request, not feedback: the same; what was said of it finds no request",
    LeftOut.INVALID: "not feedback",
    LeftOut.DUPLICATE: "the same id once more",
    LeftOut.WITHDRAWN: "taken back",
    LeftOut.FOREIGN_WITHDRAWAL: "somebody else's feedback withdrawn by no operator",
    LeftOut.NOT_FOUND: "no result with this prediction id",
    LeftOut.OTHER_AGENT: "the prediction is another agent's",
    LeftOut.NOT_ASKED: "a task that was not to be ingested",
    LeftOut.UNKNOWN_TASK: "the prediction does not answer this task",
    LeftOut.REQUEST_NOT_FOUND: "no such request where the result says that it lies",
    LeftOut.WRONG_FORM: "a value, or an answer, that is not of the form of the task's kind",
    LeftOut.BLANK_LABEL: "a label of white space alone",
    LeftOut.UNKNOWN_LABEL: "a label that the closed task does not have",
    LeftOut.SPANS_OUTSIDE: "spans outside the text, or of blanks alone",
    LeftOut.HOLDS_VALUE: "a reply with a number, date, amount or address, or with a part of a slot's value, that is the value of none of its slots",
    LeftOut.FIXED_WORDS: "other words for the part of a reply that the policy says itself: change them there",
    LeftOut.CUT_REPLY: "a reply of 2,000 characters, the most: it may have been cut, and what of it the model is to word is then not known",
    LeftOut.REVIEWED_ANSWER: "a reply that was an answer from knowledge: change it there",
    LeftOut.NO_REPLY: "words that are no reply of the dialogue agent: what they answered is not known",
    LeftOut.NO_LABEL: "a verdict that names no label: the confirmation of no answer, or up, down, reward (see preferences.jsonl)",
    LeftOut.SUPERSEDED: "the same person said something later about the same text",
    LeftOut.NO_CONSENT: "without consent",
    LeftOut.OUTVOTED: "most people said something else",
    LeftOut.CONTRADICTION: "people disagree, and there is no majority: see contradictions.jsonl",
}


class Unfit(Exception):
    """A verdict that is no example, with its reason."""

    def __init__(self, reason: LeftOut) -> None:
        super().__init__(reason)
        self.reason = reason


def check_task(task: str, options: Options) -> None:
    """Unfit for a task that nobody wants, or whose name no task can have."""
    if _TASK.fullmatch(task) is None:
        raise Unfit(LeftOut.UNKNOWN_TASK)
    if options.tasks is not None and task not in options.tasks:
        raise Unfit(LeftOut.NOT_ASKED)


class Target(NamedTuple):
    """What a verdict stands for."""

    kind: str
    value: str
    """Canonical JSON: a label, a sorted list of labels, or a sorted list of [start, end, label]."""
    trimmed_spans: int = 0
    """Spans that had blanks or invisible characters at their ends."""


def target_of(
    verdict: str, value: Any, output: Mapping[str, Any], text: str, labels: TaskLabels | None
) -> Target | None:
    """Return the target of a correction or a confirmation; None for verdicts that name no label.

    Unfit when the value does not go with the output's kind, with the labels or with the text. `down` has the target of a
    confirmation: what it denies.
    """
    kind = KINDS.find(str(output.get("kind")))
    if kind is None:
        raise Unfit(LeftOut.WRONG_FORM)
    if verdict not in {"correction", "confirmed", "down"}:
        return None
    try:
        target = (
            kind.target_of_correction(_stripped(value)) if verdict == "correction" else kind.target_of_answer(output)
        )
        if target is None:
            return None
        named = kind.labels_of_target(target)
        fitted = kind.fit_to_text(target, text)
    except (KeyError, TypeError, ValueError, IndexError):  # a result that is none of ours
        raise Unfit(LeftOut.WRONG_FORM) from None
    if fitted is None:
        raise Unfit(LeftOut.SPANS_OUTSIDE)
    trimmed = sum(one != other for one, other in zip(fitted, target, strict=True)) if fitted != target else 0
    if not all(trim_blanks(label) for label in named):
        raise Unfit(LeftOut.BLANK_LABEL)
    if any(len(label) > LABEL_CHARACTERS for label in named):
        raise Unfit(LeftOut.WRONG_FORM)
    if labels is not None and not labels.open and not named <= set(labels.labels):
        raise Unfit(LeftOut.UNKNOWN_LABEL)
    return Target(kind.name, json.dumps(fitted, ensure_ascii=False, separators=(",", ":")), trimmed)


def _stripped(value: Any) -> Any:
    """Return a correction's value without the white space and invisible characters around its labels: a slip of whoever typed it."""
    if isinstance(value, str):
        return trim_blanks(value)
    if isinstance(value, list):
        return [_stripped(each) for each in value]
    return {**value, "label": _stripped(value["label"])} if isinstance(value, dict) else value


def row_of(kind: str, target: str) -> dict[str, Any]:
    """Return the fields of a training row that say what is right, in the trainer's format."""
    return KINDS.get(kind).fields_of_target(json.loads(target))


def input_of(output: Mapping[str, Any], text: str, second: str | None) -> Input:
    """Return what an answer was given to. Unfit for one to two texts where the request has one.

    What a decoder reads beside the turn is what was said before it, which no record holds as one text.
    """
    kind = KINDS.find(str(output.get("kind")))
    if kind is None or kind.reads is not Reads.PAIR or kind.generates:
        return text
    if second is None:
        raise Unfit(LeftOut.WRONG_FORM)
    return TextPair(text, second)


def is_worded(kind: str) -> bool:
    """Return whether answers of a kind are words of a reply, each judged by itself."""
    found = KINDS.find(kind)
    return found is not None and found.generates


def second_read(kind: str, second: str | None) -> str | None:
    """Return the second text for a kind that reads two, else None."""
    return second if second is not None and KINDS.get(kind).reads is Reads.PAIR else None


def fields_of_input(text: str, second: str | None) -> dict[str, str]:
    """Return the fields of a training row that hold what is read."""
    return {"text": text} if second is None else {"text": text, "text_pair": second}


def text_id(given: Input, kind: str) -> bytes:
    """Return what is equal for texts of which the verdicts are counted together: those of one near form.

    Where a target has offsets into the text, these have to hold in each of the spellings.
    """
    found = KINDS.find(kind)
    has_offsets = found is not None and found.reads is Reads.TOKENS
    return near_id(near_characters(first_text(given)) if has_offsets else near_form(given))


def spelling_id(given: Input) -> bytes:
    """Return what is equal for equal texts."""
    return blake2b(plain_key(given).encode(), digest_size=16).digest()


def conversation_id(key: bytes) -> bytes:
    """Return what tells conversations apart without naming them. Equal keys have equal ids."""
    return blake2b(key, digest_size=8, person=b"conversation").digest()


def unit_of(key: bytes | None, near: bytes, options: Options) -> int:
    """Return where a conversation (or a text) lies in [0, 2^63), the same for ever; what is below a share is held out."""
    raw = b"key\0" + key if options.split == "conversation" and key else b"text\0" + near
    return int.from_bytes(blake2b(raw, digest_size=8).digest(), "big") >> 1


def held_out_below(options: Options) -> int:
    """Return the unit from which on a text is trained on.

    The greatest of the units that a text was seen in decides, so one of several conversations is held out only when each
    of them is.
    """
    return int(options.heldout * UNITS)
