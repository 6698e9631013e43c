"""The net below replies that a model words: each is checked, and its template is sent where it fails. Pure."""

import re
from collections.abc import Collection, Iterable
from typing import Final, NamedTuple

from ....runtime.generation.facts import find_fact
from ....runtime.generation.names import begins_sentence
from ....runtime.model.generated import Generated
from ....schemas.acts import SLOT, SLOT_MARK
from ....schemas.dialogue import REPLY_CHARACTERS, Wording
from ....schemas.dialogue import WordingReason as Reason
from ....schemas.result import ModelRef, Variant
from ..policy.policy import Policy
from .draft import Brief

_WORD: Final = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_ALWAYS_KNOWN: Final = frozenset({"I", "I'm", "I'll", "I've", "I'd", "OK"})
_GLUED: Final = re.compile(rf"\w{SLOT_MARK}|{SLOT_MARK}[\w{SLOT_MARK}]")
"""A slot without a border between its value and what stands beside it: `{amount}k` would be another amount."""


class Worded(NamedTuple):
    """The text of a reply, where its words come from, and why they are not the model's."""

    text: str
    wording: Wording
    reason: Reason | None = None
    score: float | None = None
    """Of the model's words, whether they are sent or not."""
    truncated: bool = False
    """Whether the model's words are sent, and the turn itself, or the acts beside it, was cut for it."""
    model: ModelRef | None = None
    """That worded what is sent; None: the policy."""
    words: str = ""
    """The part of the text between the policy's own words, also what is cut of it."""


class Net(NamedTuple):
    """What a generated reply is held to."""

    least_score: float
    names: frozenset[str]
    """Capitalised words that it may have inside a sentence."""
    vocabulary: frozenset[str] | None
    """Words that its sentences may begin with, in lower case; None: any."""


def make_net(policy: Policy, least_score: float, pieces: Iterable[str] | None = None) -> Net:
    """Return the net of a policy. `pieces`: those of the decoder; whole words among them may begin a sentence.

    A name that was no word of its training is spelt in several pieces.
    """
    texts = [*(saying.template for _, saying, _ in policy.sayings()), *policy.constants.values(), *policy.words]
    names = {word for text in texts for word in _WORD.findall(text)} | _ALWAYS_KNOWN
    vocabulary = None
    if pieces is not None:
        vocabulary = frozenset(piece[1:].lower() for piece in pieces if len(piece) > 2 and piece[0] == " ")
        vocabulary |= {name.lower() for name in names}
    return Net(least_score, frozenset(names), vocabulary)


def choose_wording(found: Generated | Reason, brief: Brief, net: Net) -> Worded:
    """Return the reply in the words of the model, or its template with the reason. `found`: what the model gave, or why not."""
    reason, score = (found, None) if isinstance(found, Reason) else (find_fault(found, brief, net), found.score)
    if reason is None and not isinstance(found, Reason):
        words = SLOT.sub(lambda slot: brief.values[slot[1]], found.text.strip())
        text = _join(brief, words)
        if len(text) <= REPLY_CHARACTERS:
            model = None if found.model is None else _name_model(found.model, found.variant)
            return Worded(text, Wording.GENERATED, None, score, found.cut, model, words)
        reason = Reason.TOO_LONG
    text = _join(brief, brief.words)[:REPLY_CHARACTERS]
    return Worded(text, Wording.TEMPLATE, reason, score, words=brief.words)


def _name_model(model: tuple[str, int], variant: Variant) -> ModelRef:
    return ModelRef(name=model[0], version=model[1], variant=variant)


def find_fault(reply: Generated, brief: Brief, net: Net) -> Reason | None:
    """Return why a reply is not sent, None if it may be."""
    words = SLOT.sub(SLOT_MARK, reply.text)
    return _find_weakness(reply, net) or _find_wrong_slot(reply.text, words, brief) or _find_wrong_word(words, net)


def _find_weakness(reply: Generated, net: Net) -> Reason | None:
    if reply.finish == "length":
        return Reason.TOO_LONG
    if not reply.text.strip():
        return Reason.EMPTY
    return None if reply.score >= net.least_score else Reason.LOW_SCORE  # NaN is no score either


def _find_wrong_word(words: str, net: Net) -> Reason | None:
    if find_fact(words) is not None or _GLUED.search(words) is not None:
        return Reason.FACT
    return Reason.UNKNOWN_NAME if find_unknown_name(words, net.names, net.vocabulary) is not None else None


def find_unknown_name(text: str, names: Collection[str], vocabulary: Collection[str] | None = None) -> str | None:
    """Return the first capitalised word that is not known; at the beginning of a sentence all words are capitalised."""
    for found in _WORD.finditer(text):
        word = found[0]
        if word == word.lower() or word in names:
            continue
        begins = word[1:] == word[1:].lower() and begins_sentence(text, found.start())
        if not begins or (vocabulary is not None and re.split("['’-]", word.lower())[0] not in vocabulary):
            return word
    return None


def _find_wrong_slot(text: str, words: str, brief: Brief) -> Reason | None:
    named = {found[1] for found in SLOT.finditer(text)}
    if not named <= brief.values.keys() or "{" in words or "}" in words:
        return Reason.UNKNOWN_SLOT
    needed = {found[1] for found in SLOT.finditer(brief.template)} & brief.values.keys()
    return None if needed <= named else Reason.MISSING_SLOT


def _join(brief: Brief, text: str) -> str:
    return " ".join(filter(None, (brief.before, text, brief.after)))
