"""Treats people alike: the intent of a turn is read without who they are, and a name that the model misses is known by its form."""

from typing import Final

from ....runtime.agent.handler import Predicts
from ....runtime.agent.prediction import Output, Prediction
from ....runtime.generation.names import find_names, mask_pronouns
from ..policy.policy import Policy

SOMEONE: Final = "someone"
_MOST_READ: Final = 10_000
"""Characters of a turn that are looked at for people. Models read fewer, and a turn may have a megabyte."""


async def predict_turn(text: str, policy: Policy, engine: Predicts) -> Prediction:
    """Return the outputs for a turn, read as `read_alike` does. Raises what the engine raises."""
    return await read_alike(text, await engine.predict(text, policy.tasks), policy, engine)


async def read_alike(text: str, prediction: Prediction, policy: Policy, engine: Predicts) -> Prediction:
    """Return the outputs for a turn, from those that it has as it is; with `people` the intent is that of the turn with
    `someone` and `they`.

    A turn that names or means a person costs a forward pass more, and so does one that is not understood and has a name
    which the entity task has not found: read with `someone`, it may be about an intent that needs a person. Raises what the
    engine raises.
    """
    if policy.people is None or policy.entity_task is None:
        return prediction
    entities = prediction[policy.entity_task]
    read = name_nobody(text, entities, policy.people)
    if read != text:
        prediction = await _read_again(read, prediction, policy, engine)
    missed = _find_missed_name(text, entities, policy.people)
    if missed is None or prediction[policy.intent_task]["label"] in policy.intents:
        return prediction
    entities = add_name(text, missed, entities, policy.people)
    again = await _read_again(name_nobody(text, entities, policy.people), prediction, policy, engine)
    if not _needs_person(again[policy.intent_task]["label"], policy):
        return prediction
    outputs = {**again.outputs, policy.entity_task: entities}
    return Prediction(outputs, again.truncated, again.model, again.vector, again.variant)


def name_nobody(text: str, entities: Output, label: str) -> str:
    """Return a text with `someone` for each span of the label, and `they` for he, she and they in all their forms."""
    for span in sorted(entities["spans"], key=lambda span: -span["start"]):
        if span["label"] == label:
            text = f"{text[: span['start']]}{SOMEONE}{text[span['end'] :]}"
    return mask_pronouns(text[:_MOST_READ])


def add_name(text: str, place: tuple[int, int], entities: Output, label: str) -> Output:
    """Return the entities with a person's name at a place, and without those that overlap it."""
    start, end = place
    others = [span for span in entities["spans"] if span["end"] <= start or end <= span["start"]]
    name = {"label": label, "start": start, "end": end, "text": text[start:end], "score": 0.0}
    return {**entities, "spans": sorted([*others, name], key=lambda span: span["start"])}


def find_entities(text: str, prediction: Prediction, policy: Policy, intent: str | None, asked: str | None) -> Output:
    """Return the entities of a turn; where a person's name was asked for and none was found, with the name that it has.

    A turn that asks something, or that is surely about another intent, answers nothing.
    """
    entities = prediction[policy.entity_task or ""]
    if policy.people is None or asked is None or policy.label_of(asked) != policy.people or "?" in text:
        return entities
    answer = prediction[policy.intent_task]
    if answer["label"] not in {None, intent} and answer["score"] >= policy.switch_score:
        return entities
    missed = _find_missed_name(text, entities, policy.people)
    return entities if missed is None else add_name(text, missed, entities, policy.people)


def _find_missed_name(text: str, entities: Output, label: str) -> tuple[int, int] | None:
    """Return the place of the only name of a text in which the entity task has found no person; None where there is none."""
    if any(span["label"] == label for span in entities["spans"]):
        return None
    names = find_names(text[:_MOST_READ])
    return names[0] if len(names) == 1 else None


def _needs_person(intent: str | None, policy: Policy) -> bool:
    rule = policy.intents.get(intent or "")
    return rule is not None and any(policy.label_of(slot) == policy.people for slot in rule.needs)


async def _read_again(text: str, prediction: Prediction, policy: Policy, engine: Predicts) -> Prediction:
    again = await engine.predict(text, (policy.intent_task,))
    # A version that was swapped in meanwhile has the thresholds that the intent was held to.
    outputs = {**prediction.outputs, **again.outputs}
    return Prediction(outputs, prediction.truncated, again.model, prediction.vector, again.variant)
