"""The policy of a desk: the slots, questions, replies and actions of each intent. Pure."""

from collections.abc import Iterator
from functools import cached_property
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, StringConstraints, model_validator

from ....runtime.settings.settings import KafkaName
from ....schemas.acts import SlotName as Slot
from ....schemas.manifest import TaskSpec
from .phrases import PhraseLists, Phrases
from .sayings import ABOUT_THE_TURN, Saying, Words, check_names, check_saying, find_strings

Share = Annotated[float, Field(ge=0, le=1)]
DEFAULT_MIN_SCORE: Final = 0.3
"""`min_score` where neither the policy nor the model sets one."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ActionRule(_Frozen):
    """A record to publish when all slots of an intent are filled; its key is the conversation's id."""

    topic: KafkaName
    fields: dict[str, JsonValue] = {}
    """The record's value. `{slot}`, `{constant}`, `{conversation}`, `{intent}`, `{request_id}` and `{text}` in strings are
    replaced."""


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, dict) else value


class IntentRule(_Frozen):
    needs: dict[Slot, Saying] = {}
    """Slot: the question that asks for it. Asked in this order; a question may use the slots before its own."""
    reply: Saying | None = None
    """The reply when all slots are filled."""
    action: Annotated[list[ActionRule], BeforeValidator(_as_list)] = []
    """One action or a list."""
    forget: list[Slot] = []
    """Slots to clear when the intent is fulfilled: the amount of one transfer does not apply to the next."""
    to_person: bool = False
    """Hand the conversation over to a person when all slots are filled."""

    @model_validator(mode="after")
    def _says_something(self) -> "IntentRule":
        if self.reply is None and not self.to_person:
            raise ValueError("`reply` is missing; only an intent that goes to a person can do without")
        return self


class HandOverRule(_Frozen):
    """When a conversation goes to a person, and the replies."""

    after: Annotated[int, Field(ge=1)] = 2
    """Number of consecutive turns that are not understood."""
    below: Share = 0.1
    """Hand over at once when the intent's score is lower than this, whatever its label. Not for a turn that is out of
    scope, not while a question is open, and not for a first turn that gets the greeting."""
    filtered: list[str] = []
    """Labels of harmful turns with which a person takes over at once."""
    reply: Saying = Words(template="I am handing you over to a colleague, who will read what you have written here.")
    waiting: Saying = Words(template="Thank you. A colleague has your conversation and will answer.")
    """Reply to later turns, which also go to the person."""


class Policy(_Frozen):
    intents: Annotated[dict[str, IntentRule], Field(min_length=1)]
    """By label of the intent task. A label without an entry counts as not understood."""
    intent_task: str = "intent"
    entity_task: str | None = "entities"
    """The task with the spans that fill slots; null: none."""
    people: str | None = None
    """The entity label of people's names: an intent does not depend on who they are. None: names and pronouns are read."""
    slots: dict[Slot, str] = {}
    """Slot: the entity label that fills it, if the names differ."""
    constants: dict[Slot, Annotated[str, StringConstraints(min_length=1, max_length=200)]] = {}
    """Facts that templates name like slots: a generated reply states none by itself."""
    reply_task: str = "reply"
    """The task that words replies with `generate`."""
    min_reply_score: Share | None = None
    """A generated reply with a lower score is not sent; see `least_reply_score` for the default."""
    words: list[str] = []
    """Capitalised words that a generated reply may have inside a sentence, beside those of templates and constants."""
    filter: str | None = None
    """The task that finds harmful texts: a turn or a generated reply with one of its labels is stopped."""
    stop_words: PhraseLists = {}
    """Phrases that stop a text, too, by the label that they mean; or the path of a file with them."""
    min_score: Share | None = None
    """An intent with a lower score is not understood; see `least_score` for the default. An answer that the model
    withholds is never understood."""
    switch_score: Share = 0.5
    """While a question is open, another intent takes over only from this score on."""
    greeting: Saying | None = None
    """Put before the first reply; the whole reply if the first turn is not understood."""
    default: Saying = Words(template="Sorry, I did not understand that. Could you put it another way?")
    again: Saying = Words(template="Sorry, I did not get that.")
    """Put before a repeated question."""
    handover: HandOverRule = HandOverRule()
    expire_after_hours: Annotated[float, Field(gt=0, le=24 * 365)] = 24.0
    """A conversation without turns for longer starts again without state."""
    remember_turns: Annotated[int, Field(ge=1, le=50)] = 10
    """Number of turns and replies to keep, for hand-overs and to recognise repeated turns."""

    @model_validator(mode="after")
    def _needs_can_be_filled(self) -> "Policy":
        if self.entity_task is None and any(rule.needs for rule in self.intents.values()):
            raise ValueError("`entity_task` is null, so no slot is ever filled, yet intents have `needs`")
        if self.entity_task is None and self.people is not None:
            raise ValueError("`entity_task` is null, so no name of `people` is ever found; leave one of them out")
        return self

    @property
    def needed(self) -> frozenset[str]:
        """All slots: those that at least one intent needs."""
        return frozenset(slot for rule in self.intents.values() for slot in rule.needs)

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks to predict for a turn."""
        return tuple(task for task in (self.intent_task, self.entity_task, self.filter) if task is not None)

    @cached_property
    def phrases(self) -> Phrases:
        """The phrases that stop a text."""
        return Phrases(self.stop_words)

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics that actions are published to."""
        topics = (action.topic for rule in self.intents.values() for action in rule.action)
        return tuple(dict.fromkeys(topics))

    @property
    def expiry_ms(self) -> int:
        return round(self.expire_after_hours * 3_600_000)

    def label_of(self, slot: str) -> str:
        """Return the label of the entity that fills a slot."""
        return self.slots.get(slot, slot)

    @property
    def generates(self) -> bool:
        """Whether the model words some reply."""
        return any(saying.generate for _, saying, _ in self.sayings())

    def sayings(self) -> Iterator[tuple[tuple[str, ...], Words, list[str]]]:
        """Yield every text of a reply: its place in the file, the text, and the slots that are known there."""
        for name in ("greeting", "default", "again"):
            if (saying := getattr(self, name)) is not None:
                yield (name,), saying, []
        yield ("handover", "reply"), self.handover.reply, []
        yield ("handover", "waiting"), self.handover.waiting, []
        for intent, rule in self.intents.items():
            slots = list(rule.needs)
            for number, (slot, question) in enumerate(rule.needs.items()):
                yield ("intents", intent, "needs", slot), question, slots[:number]
            if rule.reply is not None:
                yield ("intents", intent, "reply"), rule.reply, slots


def least_score(policy: Policy, task: TaskSpec) -> float:
    """Return the score from which an intent is understood: the policy's, else the model's accept threshold, else 0.3."""
    if policy.min_score is not None:
        return policy.min_score
    accept = task.thresholds.accept
    return DEFAULT_MIN_SCORE if accept is None else accept


def least_reply_score(policy: Policy, task: TaskSpec) -> float:
    """Return the score from which a generated reply is sent: the policy's, else the model's accept threshold, else 0."""
    return policy.min_reply_score if policy.min_reply_score is not None else task.thresholds.accept or 0.0


def find_problems(policy: Policy) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield what is wrong with names and texts: the place in the file, and the reason."""
    yield from _find_wrong_names(policy)
    constants = list(policy.constants)
    for place, saying, slots in policy.sayings():
        what = (
            "its needs"
            if place[-1] == "reply"
            else "what is asked before it"
            if len(place) > 2
            else "slots: nothing is known here"
        )
        try:
            check_saying(saying, [*slots, *constants], what)
        except ValueError as error:
            yield place, str(error)
    for intent, rule in policy.intents.items():
        try:
            for action in rule.action:
                for text in find_strings(action.fields):
                    check_names(text, [*rule.needs, *constants, *ABOUT_THE_TURN], "its needs and the turn")
        except ValueError as error:
            yield ("intents", intent, "action"), str(error)


def _find_wrong_names(policy: Policy) -> Iterator[tuple[tuple[str, ...], str]]:
    named: list[tuple[str, ...]] = [
        ("intents", name, "needs", slot) for name, rule in policy.intents.items() for slot in rule.needs
    ]
    for place in [*named, *(("constants", name) for name in policy.constants)]:
        if place[-1] in ABOUT_THE_TURN:
            yield place, f"a slot cannot be called {place[-1]}: that is a field of the turn"
    for name in policy.constants:
        if name in policy.needed:
            yield ("constants", name), f"{name} is a slot that an intent needs; call the constant something else"
    named = [("slots", slot) for slot in policy.slots]
    named += [("intents", name, "forget", slot) for name, rule in policy.intents.items() for slot in rule.forget]
    for place in named:
        if place[-1] not in policy.needed:
            known = ", ".join(sorted(policy.needed)) or "none"
            yield place, f"no intent needs a slot {place[-1]}; those that are needed: {known}"
