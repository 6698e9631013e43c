"""From predictions to the records that go out: one result for each agent that read the request, and what it hands on."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from ..schemas.deadletter import DeadLetterReason as Reason
from ..schemas.envelope import CAUSE, CE_ID, CE_SUBJECT, CE_TIME, HOPS, REQUEST_ID, TRACEPARENT
from ..schemas.ids import prediction_id
from .agent import Decision, Incoming, Output, Prediction, Publish
from .deadletters import Message
from .errors import RecordError
from .routes import BoundAgent
from .routing import Rule, topics

_encode = msgspec.json.Encoder().encode


class Answer(NamedTuple):
    """What was decided on one request by one agent."""

    messages: list[Message]
    result: bool
    """A result is among the messages; False when the agent only handed on, or said nothing."""


def answer(
    bound: BoundAgent, request: Incoming, prediction: Prediction, time: str, *, same_partition: bool = False
) -> Answer:
    """Ask the agent and build what it publishes; RecordError `agent_failed` for whatever its decision raises.

    With `same_partition` the result goes to the partition number of its request: then a key's results stay together
    as its requests did, and no key has to be hashed.
    """
    agent = bound.agent
    try:
        decision = agent.decide(request, prediction)
        outputs, published = _split(decision)
        messages = [_hand_on(publish, request) for publish in published]
    except Exception as error:
        raise RecordError(Reason.AGENT_FAILED, f"{agent.name} raised {type(error).__name__}") from error
    if outputs is not None and agent.routing:
        messages += _routed(agent.routing, outputs, request)
    if outputs is None or agent.output is None:
        return Answer(messages, False)
    result = _result(bound, request, prediction, outputs, time)
    partition = request.partition if same_partition else None
    key = request.key if request.key is not None else request.request_id.encode()
    messages.append(Message(agent.output, result[0], key, result[1], partition))
    return Answer(messages, True)


def _split(decision: Decision) -> tuple[Mapping[str, Output] | None, list[Publish]]:
    if decision is None:
        return None, []
    if isinstance(decision, Publish):
        return None, [decision]
    if isinstance(decision, Mapping):
        return decision, []
    outputs: Mapping[str, Output] | None = None
    published = []
    for part in decision:
        if isinstance(part, Publish):
            published.append(part)
        elif isinstance(part, Mapping) and outputs is None:
            outputs = part
        else:
            raise TypeError(f"a decision is outputs (once), Publish, or a tuple of them, found {type(part).__name__}")
    return outputs, published


def _result(
    bound: BoundAgent, request: Incoming, prediction: Prediction, outputs: Mapping[str, Output], time: str
) -> tuple[bytes, list[tuple[str, bytes]]]:
    name, version = prediction.model
    request_id = request.request_id
    this = prediction_id(bound.agent.name, request.source, request_id)
    value: dict[str, Any] = {
        "request_id": request_id,
        "prediction_id": this,
        "agent": bound.agent.name,
        "status": "ok",
        "model": {"name": name, "version": version},
        "source": {
            "topic": request.topic,
            "partition": request.partition,
            "offset": request.offset,
            "timestamp": request.timestamp,
        },
        "outputs": outputs,
        "truncated": prediction.truncated,
        "metadata": request.metadata or {},
        "time": time,
    }
    subject = request_id.encode()
    headers = [
        *bound.headers,
        (CE_ID, this.encode()),
        (CE_SUBJECT, subject),
        (CE_TIME, time.encode()),
        (CAUSE, subject),
        (HOPS, b"%d" % (request.hops + 1)),
    ]
    if request.traceparent is not None:
        headers.append((TRACEPARENT, request.traceparent))
    return _encode(value), headers


def _routed(rules: tuple[Rule, ...], outputs: Mapping[str, Output], request: Incoming) -> list[Message]:
    return [_hand_on(Publish(topic, request.value, request.key), request) for topic in topics(rules, outputs)]


def _hand_on(publish: Publish, request: Incoming) -> Message:
    return hand_on(publish, request.request_id, request.hops, request.traceparent)


def hand_on(publish: Publish, request_id: str, hops: int, traceparent: bytes | None) -> Message:
    """Build the record for another topic: it keeps the request's id, names its cause and counts the hop."""
    value = _encode(publish.value) if isinstance(publish.value, dict) else publish.value
    key = publish.key.encode() if isinstance(publish.key, str) else publish.key
    subject = request_id.encode()
    headers = {REQUEST_ID: subject, CAUSE: subject, HOPS: b"%d" % (hops + 1)}
    if traceparent is not None:
        headers[TRACEPARENT] = traceparent
    headers.update(publish.headers)
    return Message(publish.topic, value, key, list(headers.items()), publish.partition)
