"""The parts of an answer while a step composes it, and what of it the model may word. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from ....schemas.acts import SLOT, Act
from ....schemas.dialogue import Action, HandOverReason, ReplyKind, WordedPart
from ..policy.policy import Policy
from ..policy.sayings import Words, fill


class Brief(NamedTuple):
    """What the model is to word: the part of a reply that its policy lets it."""

    template: str
    acts: list[Act]
    values: Mapping[str, str]
    """Of the template's slots and constants, as far as they are known; the model may name no others."""
    before: str = ""
    """What the policy says itself before and after it."""
    after: str = ""

    @property
    def words(self) -> str:
        """The template with its values."""
        return fill(self.template, self.values)


def find_part(brief: Brief | None, words: str, text: str) -> WordedPart | None:
    """Return where in a reply the words stand that a brief asks for; None where they are all of it, or none.

    A reply may be cut, in the words or behind them.
    """
    if brief is None or not (brief.before or brief.after):
        return None
    start = min(len(brief.before) + 1 if brief.before else 0, len(text))
    return WordedPart(start=start, end=min(start + len(words), len(text)), acts=brief.acts)


@dataclass
class Draft:
    """The parts of the answer while `step` composes it."""

    intent: str | None = None
    slots: dict[str, str] = field(default_factory=dict)
    asked: str | None = None
    misunderstood: int = 0
    understood: str | None = None
    kind: ReplyKind = ReplyKind.ANSWERED
    said: list[tuple[Words, list[Act]]] = field(default_factory=list)
    """The texts of the reply, in their order, and their acts."""
    actions: list[Action] = field(default_factory=list)
    handover: HandOverReason | None = None
    has_rule: bool = True
    """Whether the policy says what to do about the turn, or a question is open."""
    is_known: bool = False
    """Whether knowledge answers."""

    def fill(self, policy: Policy) -> str:
        """Return the reply as its templates word it."""
        values = {**policy.constants, **self.slots}
        return " ".join(fill(saying.template, values) for saying, _ in self.said)

    def brief(self, policy: Policy) -> Brief | None:
        """Return what the model is to word: the texts with `generate`, which stand together."""
        if self.is_known:
            return None
        numbers = [number for number, (saying, _) in enumerate(self.said) if saying.generate]
        if not numbers:
            return None
        values = {**policy.constants, **self.slots}
        first, last = numbers[0], numbers[-1] + 1
        before, after = (
            " ".join(fill(saying.template, values) for saying, _ in part)
            for part in (self.said[:first], self.said[last:])
        )
        template = " ".join(saying.template for saying, _ in self.said[first:last])
        named = {found[1] for found in SLOT.finditer(template)}
        own = {name: value for name, value in values.items() if name in named}
        return Brief(template, [act for _, acts in self.said[first:last] for act in acts], own, before, after)
