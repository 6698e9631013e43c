"""Builds the outgoing records of a prediction: one result per agent that read the request, and what it publishes."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Final, NamedTuple

import msgspec

from ...schemas.deadletter import DeadLetterReason as Reason
from ...schemas.envelope import CAUSE, CONTENT_TYPE_HEADER, DEADLINE, HOPS, REQUEST_ID, REQUEST_TYPE, TRACEPARENT
from ..agent.agent import Decision
from ..agent.prediction import Output, Prediction
from ..agent.result_envelope import ResultEnvelope
from ..agent.routes import BoundAgent
from ..errors import RecordError
from ..settings.routing_rules import Rule, select_topics
from ..wire.message import Message, Publish, Record
from ..wire.request import Incoming

_encode = msgspec.json.Encoder().encode
_TOPIC: Final = re.compile("[A-Za-z0-9._-]{1,249}")
_OURS: Final = frozenset({REQUEST_ID, CAUSE, HOPS, TRACEPARENT})
"""Reserved headers, which end loops and correlate hops: an agent's own headers of these names are dropped."""


class Answer(NamedTuple):
    """The messages that one agent decided to publish for one request."""

    messages: list[Message]
    result: bool
    """Whether a result is among the messages; False when the agent only forwarded, or published nothing."""


def answer(
    bound: BoundAgent, request: Incoming, prediction: Prediction, time: str, *, same_partition: bool = False
) -> Answer:
    """Call the agent and build what it publishes. Raises RecordError `agent_failed` for any error of its decision.

    With `same_partition` the result goes to the partition number of its request: the results of a key stay together as
    its requests did, and no key has to be hashed.
    """
    agent = bound.agent
    try:
        outputs, published = _split(agent.decide(request, prediction))
    except Exception as error:
        raise RecordError(Reason.AGENT_FAILED, f"{agent.name} raised {type(error).__name__}") from error
    try:
        return _build(bound, request, prediction, outputs, published, time, same_partition)
    except RecordError as error:
        raise RecordError(error.reason, f"{agent.name} {error}") from error
    except Exception as error:
        problem = f"{agent.name} decided what cannot be published: {type(error).__name__}"
        raise RecordError(Reason.AGENT_FAILED, problem) from error


def _build(
    bound: BoundAgent,
    request: Incoming,
    prediction: Prediction,
    outputs: Mapping[str, Output] | None,
    published: list[Publish],
    time: str,
    same_partition: bool,
) -> Answer:
    agent = bound.agent
    messages = [_hand_on(publish, request) for publish in published]
    if outputs is not None and agent.routing:
        messages += _make_routed(agent.routing, outputs, request)
    if outputs is None or agent.output is None:
        return Answer(messages, False)
    result = _result(bound, request, prediction, outputs, time)
    messages.append(_result_message(agent.output, result, request, same_partition))
    return Answer(messages, True)


def expired(
    bound: BoundAgent, request: Incoming, model: tuple[str, int], time: str, *, same_partition: bool = False
) -> Message | None:
    """Build the result of a request that is too old, which no agent was asked about; None without an output topic.

    It differs from another result of the request in `status`, `outputs` and `time`. `model`: name and version of the one that
    serves.
    """
    if bound.agent.output is None:
        return None
    key = (request.topic, *model, "expired")
    envelope = bound.envelopes.get(key)
    if envelope is None:
        envelope = ResultEnvelope(bound.agent.name, request.topic, model, bound.headers, "expired")
        bound.envelopes[key] = envelope
    result = envelope.fill(request, Prediction({}, False, model), {}, time)
    return _result_message(bound.agent.output, result, request, same_partition)


def _result_message(
    topic: str, result: tuple[bytes, list[tuple[str, bytes]]], request: Incoming, same_partition: bool
) -> Message:
    partition = request.partition if same_partition else None
    key = request.key if request.key is not None else request.request_id.encode()
    return Message(topic, result[0], key, result[1], partition)


def _split(decision: Decision) -> tuple[Mapping[str, Output] | None, list[Publish]]:
    if type(decision) is dict:  # the usual case; an isinstance check against Mapping takes three times as long
        return decision, []
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
    key = (request.topic, *prediction.model)
    envelope = bound.envelopes.get(key)
    if envelope is None:
        envelope = ResultEnvelope(
            bound.agent.name, request.topic, prediction.model, bound.headers, variant=bound.variant
        )
        bound.envelopes[key] = envelope
    return envelope.fill(request, prediction, outputs, time)


def _make_routed(rules: tuple[Rule, ...], outputs: Mapping[str, Output], request: Incoming) -> list[Message]:
    return [_hand_on(Publish(topic, request.value, request.key), request) for topic in select_topics(rules, outputs)]


def _hand_on(publish: Publish, request: Incoming) -> Message:
    if publish.value and publish.value == request.value:
        publish = _make_readable(publish, request)
    deadline = None if request.deadline is None else dict(request.headers).get(DEADLINE)
    return hand_on(publish, request.request_id, request.hops, request.traceparent, deadline)


def _make_readable(publish: Publish, request: Incoming) -> Publish:
    """Return the request for a reader that knows nothing of its topic: neither field paths nor its content type."""
    headers = ((CONTENT_TYPE_HEADER, REQUEST_TYPE.encode()), *publish.headers)
    return replace(publish, value=request.plain_value(), headers=headers)


def keep_format(publish: Publish, record: Record) -> Publish:
    """Return a handler's message with the record's content type, where it has the record's own value."""
    if not publish.value or publish.value != record.value:
        return publish
    stated = tuple((name, raw) for name, raw in record.headers or () if name == CONTENT_TYPE_HEADER and raw is not None)
    return replace(publish, headers=(*stated, *publish.headers)) if stated else publish


def hand_on(
    publish: Publish, request_id: str, hops: int, traceparent: bytes | None, deadline: bytes | None = None
) -> Message:
    """Build the record for another topic: it keeps the request's id and deadline, names its cause and increments the hop
    count.

    Raises RecordError `agent_failed` for a record that cannot be sent.
    """
    _check(publish)
    value = _encode(publish.value) if isinstance(publish.value, dict) else publish.value
    key = publish.key.encode() if isinstance(publish.key, str) else publish.key
    subject = request_id.encode()
    headers = {REQUEST_ID: subject, CAUSE: subject, HOPS: b"%d" % (hops + 1)}
    if traceparent is not None:
        headers[TRACEPARENT] = traceparent
    if deadline is not None:
        headers[DEADLINE] = deadline
    headers.update((name, raw) for name, raw in publish.headers if name not in _OURS)
    return Message(publish.topic, value, key, list(headers.items()), publish.partition)


def _check(publish: Publish) -> None:
    """Refuse what the producer could not send, here, where the agent that published it is known."""
    topic, value, key, partition = publish.topic, publish.value, publish.key, publish.partition
    if not isinstance(topic, str) or not _TOPIC.fullmatch(topic):
        raise _unfit("topic", "the name of one", topic)
    if not (value is None or isinstance(value, bytes | dict)):
        raise _unfit("value", "bytes, a dict or None", value)
    if not (key is None or isinstance(key, bytes | str)):
        raise _unfit("key", "bytes, a str or None", key)
    if partition is not None and (type(partition) is not int or partition < 0):
        raise _unfit("partition", "a number from 0 on", partition)
    for header in publish.headers:
        if not _is_header(header):
            raise _unfit("header", "a name and bytes", header)


def _is_header(found: object) -> bool:
    if not isinstance(found, tuple | list) or len(found) != 2:
        return False
    name, raw = found
    return isinstance(name, str) and name.isprintable() and isinstance(raw, bytes)


def _unfit(field: str, expected: str, found: object) -> RecordError:
    # Name the type, not the value: the value may be a text.
    parts = ", ".join(type(part).__name__ for part in found) if isinstance(found, tuple | list) else ""
    kinds = f"({parts})" if parts else type(found).__name__
    return RecordError(
        Reason.AGENT_FAILED, f"published a record with a wrong {field}: expected {expected}, found {kinds}"
    )
