"""The policy of a desk: the slots, questions, replies and actions of each intent. Pure except `load_policy`."""

import string
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)

from ...runtime.model.kinds.forms import AnswerForm
from ...runtime.model.kinds.registry import kind_of
from ...runtime.settings.settings import KafkaName
from ...runtime.settings.yaml_file import YamlFile
from ...runtime.wire.feedback import known_labels
from ...schemas.manifest import TaskSpec

ABOUT_THE_TURN: Final = ("conversation", "intent", "request_id", "text")
"""Names that an action's fields may use besides the slots."""

Saying = Annotated[str, StringConstraints(min_length=1, max_length=1000)]
Slot = Annotated[str, StringConstraints(pattern="^[A-Za-z_][A-Za-z0-9_]*$", max_length=100)]
Share = Annotated[float, Field(ge=0, le=1)]
DEFAULT_MIN_SCORE: Final = 0.3
"""`min_score` where neither the policy nor the model sets one."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ActionRule(_Frozen):
    """A record to publish when all slots of an intent are filled; its key is the conversation's id."""

    topic: KafkaName
    fields: dict[str, JsonValue] = {}
    """The record's value. `{slot}`, `{conversation}`, `{intent}`, `{request_id}` and `{text}` in strings are replaced."""


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

    @field_validator("needs")
    @classmethod
    def _questions_use_what_is_known(cls, needs: dict[str, str]) -> dict[str, str]:
        known: list[str] = []
        for slot, question in needs.items():
            if slot in ABOUT_THE_TURN:
                raise ValueError(f"a slot cannot be called {slot}: that is a field of the turn")
            _check_names(question, known, "what is asked before it")
            known.append(slot)
        return needs

    @field_validator("reply")
    @classmethod
    def _the_reply_uses_what_is_needed(cls, reply: str | None, info: ValidationInfo) -> str | None:
        if reply is not None:
            _check_names(reply, info.data.get("needs", {}), "its needs")
        return reply

    @field_validator("action")
    @classmethod
    def _actions_use_what_is_needed(cls, actions: list[ActionRule], info: ValidationInfo) -> list[ActionRule]:
        known = [*info.data.get("needs", {}), *ABOUT_THE_TURN]
        for action in actions:
            for text in _strings(action.fields):
                _check_names(text, known, "its needs and the turn")
        return actions

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
    reply: Saying = "I am handing you over to a colleague, who will read what you have written here."
    waiting: Saying = "Thank you. A colleague has your conversation and will answer."
    """Reply to later turns, which also go to the person."""


class Policy(_Frozen):
    intents: Annotated[dict[str, IntentRule], Field(min_length=1)]
    """By label of the intent task. A label without an entry counts as not understood."""
    intent_task: str = "intent"
    entity_task: str | None = "entities"
    """The task with the spans that fill slots; null: none."""
    slots: dict[Slot, str] = {}
    """Slot: the entity label that fills it, if the names differ."""
    min_score: Share | None = None
    """An intent with a lower score is not understood; see `least_score` for the default. An answer that the model
    withholds is never understood."""
    switch_score: Share = 0.5
    """While a question is open, another intent takes over only from this score on."""
    greeting: Saying | None = None
    """Put before the first reply; the whole reply if the first turn is not understood."""
    default: Saying = "Sorry, I did not understand that. Could you put it another way?"
    again: Saying = "Sorry, I did not get that."
    """Put before a repeated question."""
    handover: HandOverRule = HandOverRule()
    expire_after_hours: Annotated[float, Field(gt=0, le=24 * 365)] = 24.0
    """A conversation without turns for longer starts again without state."""
    remember_turns: Annotated[int, Field(ge=1, le=50)] = 10
    """Number of turns and replies to keep, for hand-overs and to recognise repeated turns."""

    @field_validator("greeting", "default", "again")
    @classmethod
    def _no_slots_here(cls, saying: str | None) -> str | None:
        if saying is not None:
            _check_names(saying, (), "slots: nothing is known here")
        return saying

    @model_validator(mode="after")
    def _needs_can_be_filled(self) -> "Policy":
        if self.entity_task is None and any(rule.needs for rule in self.intents.values()):
            raise ValueError("`entity_task` is null, so no slot is ever filled, yet intents have `needs`")
        return self

    @property
    def needed(self) -> frozenset[str]:
        """All slots: those that at least one intent needs."""
        return frozenset(slot for rule in self.intents.values() for slot in rule.needs)

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks to predict for a turn."""
        return (self.intent_task,) if self.entity_task is None else (self.intent_task, self.entity_task)

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


PolicyFile = YamlFile[Policy]


def least_score(policy: Policy, task: TaskSpec) -> float:
    """Return the score from which an intent is understood: the policy's, else the model's accept threshold, else 0.3."""
    if policy.min_score is not None:
        return policy.min_score
    accept = task.thresholds.accept
    return DEFAULT_MIN_SCORE if accept is None else accept


def load_policy(path: Path) -> PolicyFile:
    """Read and check a policy. Raises SetupError with file, line, key and the expected value."""
    file = YamlFile(path, Policy, "policy", requires="intents")
    policy = file.value
    named: list[tuple[str, ...]] = [("slots", slot) for slot in policy.slots]
    named += [("intents", name, "forget", slot) for name, rule in policy.intents.items() for slot in rule.forget]
    for *place, slot in named:
        if slot not in policy.needed:
            known = ", ".join(sorted(policy.needed)) or "none"
            raise file.refusal((*place, slot), f"no intent needs a slot {slot}; those that are needed: {known}")
    return file


def check_topics(file: PolicyFile, own: Mapping[str, str]) -> None:
    """Raise SetupError if an action publishes to one of the agent's own topics. `own`: topic to description."""
    for name, rule in file.value.intents.items():
        for action in rule.action:
            if action.topic in own:
                problem = f"{action.topic} is the agent's own topic of {own[action.topic]}; an action needs another"
                raise file.refusal(("intents", name, "action"), problem)


def check_against_model(file: PolicyFile, tasks: Iterable[TaskSpec], model: str) -> None:
    """Raise SetupError if the policy names a task, an intent or an entity that the model does not have."""
    policy, specs = file.value, {task.name: task for task in tasks}
    forms = [("intent_task", policy.intent_task, AnswerForm.LABEL, "a label")]
    if policy.entity_task is not None:
        forms.append(("entity_task", policy.entity_task, AnswerForm.SPANS, "spans"))
    for key, name, form, answer in forms:
        fitting = [task.name for task in specs.values() if kind_of(task).form is form]
        if name not in fitting:
            known = ", ".join(fitting) or "none"
            raise file.refusal(
                (key,), f"model {model} has no task {name} that is answered with {answer}; it has {known}"
            )
    _check_labels(file, specs)


def _check_labels(file: PolicyFile, specs: Mapping[str, TaskSpec]) -> None:
    policy = file.value
    intents = specs[policy.intent_task].labels
    entities = known_labels(specs[policy.entity_task]) if policy.entity_task else frozenset()
    for name, rule in policy.intents.items():
        if name not in intents:
            raise file.refusal(("intents", name), f"not a label of task {policy.intent_task}")
        for slot in rule.needs:
            if (label := policy.label_of(slot)) not in entities:
                known = ", ".join(sorted(entities))
                raise file.refusal(
                    ("intents", name, "needs", slot),
                    f"task {policy.entity_task} has no entity {label}; it has {known} (`slots` maps slots to entities)",
                )


class _Known(dict[str, str]):
    """Replaces unknown names by nothing: after a change of the policy a conversation may lack a slot."""

    def __missing__(self, name: str) -> str:
        return ""


def fill(saying: str, known: Mapping[str, str]) -> str:
    """Replace the names in a text by their values. Braces in the values are kept."""
    return saying.format_map(_Known(known))


def fill_fields(value: JsonValue, known: Mapping[str, str]) -> JsonValue:
    """Replace the names in every string of an action's fields."""
    if isinstance(value, str):
        return fill(value, known)
    if isinstance(value, list):
        return [fill_fields(item, known) for item in value]
    if isinstance(value, dict):
        return {key: fill_fields(item, known) for key, item in value.items()}
    return value


def _strings(value: JsonValue) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, int) and not -(2**63) <= value < 2**64:
        raise ValueError("a whole number of more than 64 bits cannot be published")
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            if not name.isprintable():
                raise ValueError(f"{name!r} is no name for a field")
            yield from _strings(item)


def _check_names(saying: str, known: Iterable[str], what: str) -> None:
    """Raise ValueError for a text that `fill` could not fill, or that would access attributes of Python objects."""
    names = list(known)
    if any("\ud800" <= character <= "\udfff" for character in saying):
        raise ValueError("a lone surrogate is no text")
    try:
        parts = list(string.Formatter().parse(saying))
    except ValueError:
        raise ValueError("a brace stands alone; write {{ and }} for braces that are meant as such") from None
    for _, name, spec, conversion in parts:
        if name is None:
            continue
        if spec or conversion or not name.isidentifier():
            raise ValueError(f"{{{name}}} must be the plain name of a slot in braces")
        if name not in names:
            raise ValueError(f"{{{name}}} is not one of {what}{': ' + ', '.join(names) if names else ''}")
