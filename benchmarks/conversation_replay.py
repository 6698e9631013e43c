"""Computes what a log of turns should have led to, with the pure step alone; `conversations.py` compares the published records with it."""

import json
from collections import defaultdict

from aiokafka.structs import ConsumerRecord

from murmura.agents.dialogue.policy.policy import Policy, least_score
from murmura.agents.dialogue.turn.changed_steps import put_wording
from murmura.agents.dialogue.turn.people import predict_turn
from murmura.agents.dialogue.turn.step import ReceivedTurn, Step, classify_delivery, goes_to_person, step
from murmura.agents.dialogue.turn.wording import Worded
from murmura.runtime.agent.prediction import Prediction
from murmura.runtime.model.model import Model
from murmura.schemas.dialogue import ConversationState
from murmura.schemas.ids import prediction_id
from murmura.schemas.result import Source


class _Answers:
    """A model as what reads turns; texts that it has read are not read again."""

    def __init__(self, model: Model, texts: list[str], tasks: tuple[str, ...]) -> None:
        self._model, self._reference = model, (model.manifest.name, model.manifest.version)
        self._outputs = dict(zip(texts, model.predict(texts, tasks), strict=True))

    async def predict(self, text: str, tasks: tuple[str, ...]) -> Prediction:
        if any(task not in self._outputs.get(text, ()) for task in tasks):
            self._outputs[text] = self._outputs.get(text, {}) | self._model.predict([text], tasks)[0]
        return Prediction({task: self._outputs[text][task] for task in tasks}, False, self._reference)


async def replay(
    records: list[ConsumerRecord], model: Model, policy: Policy, recorded: dict[str, ConversationState]
) -> dict[str, list[Step]]:
    """Return for each conversation what each turn should have led to, by the pure step and the recorded wordings."""
    min_score = least_score(policy, model.manifest.task(policy.intent_task))
    said = [json.loads(record.value) for record in records]
    texts = sorted({one["text"] for one in said})
    answers = _Answers(model, texts, policy.tasks)
    steps: dict[str, list[Step]] = defaultdict(list)
    for record, one in zip(records, said, strict=True):
        conversation = record.key.decode()
        source = Source(
            topic=record.topic, partition=record.partition, offset=record.offset, timestamp=record.timestamp
        )
        this = prediction_id("dialogue", record.topic, one["id"])
        turn = ReceivedTurn("dialogue", conversation, one["text"], one["id"], this, source, one.get("metadata", {}))
        state = steps[conversation][-1].state if steps[conversation] else None
        assert classify_delivery(state, turn) is None
        now, prediction = record.timestamp, None
        if not goes_to_person(state, turn, policy, now):
            prediction = await predict_turn(one["text"], policy, answers)
        result = step(state, turn, prediction, policy, now, min_score=min_score)
        if result.brief is not None and (kept := recorded.get(this)) is not None:
            reply = kept.turns[-1].reply
            worded = Worded(
                reply,
                kept.wording,
                kept.wording_reason,
                truncated=kept.truncated,
                model=kept.worded_by,
                words=reply if kept.part is None else reply[kept.part.start : kept.part.end],
            )
            result = put_wording(result, turn, worded, kept.stopped)
        steps[conversation].append(result)
    return steps


def read_wordings(states: list[ConversationState]) -> tuple[dict[str, ConversationState], int]:
    """Return the first state after each turn, by the turn's id, and the number of turns with a second one that differs."""
    first: dict[str, ConversationState] = {}
    for state in states:
        first.setdefault(state.turns[-1].id, state)
    return first, len({state.turns[-1].id for state in states if state != first[state.turns[-1].id]})
