"""The AsyncAPI 3 document of a serving process: its topics, their records, and their readers and writers.

Payload schemas are the committed ones of `schemas/`. Built with FastStream's specification objects, without a broker.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from importlib.resources import files
from typing import Any, Final

from faststream.specification.asyncapi.v3_0_0 import schema as spec
from faststream.specification.asyncapi.v3_0_0.schema.bindings import ChannelBinding, OperationBinding, kafka
from faststream.specification.asyncapi.v3_0_0.schema.operations import Action

from ...schemas.envelope import APP, ATTEMPTS, CONTENT_TYPE, NOT_BEFORE, REQUEST_HEADERS, RETRY_HEADERS
from ...schemas.topics import Topic, named_topics
from ..agent.agent import Agent
from ..agent.handler import Handler
from ..settings.settings import Settings

_SCHEMAS: Final[Mapping[str, tuple[str, ...]]] = {
    "request": ("request.v1",),
    "result": ("result.v1",),
    "turn": ("turn.v1",),
    "reply": ("reply.v1",),
    "conversation state": ("conversation_state.v1",),
    "hand-over": ("hand_over.v1",),
    "release state": ("release.v1",),
    "training event": ("training_event.v1",),
    "serving event": ("serving_event.v1",),
    "feedback": ("feedback.v1",),
    "review": ("review.v1",),
    "shadow difference": ("shadow_difference.v1", "shadow_counts.v1"),
    "experiment state": ("experiment_state.v1", "entered_chunk.v1"),
}
"""By the record type in the table of topics: what a value may be."""
_RETRY: Final = "request that waits for its next attempt"
_DEAD_LETTER: Final = "dead letter"
_ANY: Final = "record"
"""The record type of a topic that is neither in the table nor read by a predicting agent."""
_SENT: Final = ("deadletters", "retries", "events", "reviews", "shadow", "models", "experiments")
_RECEIVED: Final = ("models", "retries", "experiments")

Operations = dict[str, spec.Operation]


def document(settings: Settings, agents: Iterable[Agent | Handler]) -> dict[str, Any]:
    """Return the document as JSON-compatible values. `agents` must be configured: with the topics of the settings."""
    agents = tuple(agents)
    topics = dict(named_topics(settings.prefix))
    channels = {name: _channel(name, topic.record, topic) for name, topic in topics.items()}
    for name, record in _other_topics(settings, agents):
        channels.setdefault(name, _channel(name, record))
    operations = {**_operations_of_agents(settings, agents), **_operations_of_runtime(settings)}
    records = sorted({record for channel in channels.values() for record in channel.messages})
    application = spec.ApplicationSchema(
        info=spec.ApplicationInfo(
            title=f"Murmura, app {settings.app}",
            version=version("murmura"),
            description="Agents on Kafka, answered by one multitask model.",
            license=spec.License(name="Apache-2.0"),
        ),
        defaultContentType=CONTENT_TYPE,
        servers=dict(_servers(settings)),
        channels=channels,
        operations=operations,
        components=spec.Components(
            messages={record: _message(record) for record in records}, schemas=dict(_components(records))
        ),
    )
    content: dict[str, Any] = application.to_jsonable()
    return content


def as_text(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _servers(settings: Settings) -> Iterator[tuple[str, spec.Server]]:
    security = settings.kafka.security
    protocol = "kafka-secure" if security.protocol.endswith("SSL") else "kafka"
    for number, host in enumerate(settings.kafka.bootstrap_servers.split(","), start=1):
        described = f"{security.protocol}{f', {security.sasl_mechanism}' if security.sasl_mechanism else ''}"
        yield f"kafka-{number}", spec.Server(host=host.strip(), pathname="", protocol=protocol, description=described)


def _channel(name: str, record: str, topic: Topic | None = None) -> spec.Channel:
    """Return the channel of a topic, with the partition count for topics that Murmura creates."""
    key = _key(record)
    return spec.Channel(
        address=name,
        description=f"Keyed by: {topic.key}." if topic else None,
        messages={key: spec.Reference(**{"$ref": f"#/components/messages/{key}"})},
        bindings=ChannelBinding(
            kafka=kafka.ChannelBinding(topic=name, partitions=topic.partitions() if topic else None)
        ),
    )


def _key(record: str) -> str:
    return "retry" if record == _RETRY else record.replace(" ", "_").replace("-", "_")


def _other_topics(settings: Settings, agents: tuple[Agent | Handler, ...]) -> Iterator[tuple[str, str]]:
    """Yield topics that may be missing in the table, with their record types."""
    for agent in agents:
        asks = isinstance(agent, Agent)
        yield from ((name, "request" if asks else _ANY) for name in agent.topics)
        if isinstance(agent, Agent) and agent.output:
            yield agent.output, "result"
    yield from ((rule.topic, "request") for rule in settings.routing)
    for agent in agents:
        yield from ((name, _ANY) for name in agent.outputs)


def _operations_of_agents(settings: Settings, agents: tuple[Agent | Handler, ...]) -> Operations:
    records = {name: topic.record for name, topic in named_topics(settings.prefix)}
    for name, record in _other_topics(settings, agents):
        records.setdefault(name, record)
    operations: Operations = {}
    for agent in agents:
        sent = dict.fromkeys(agent.outputs)
        handed_on = {rule.topic: None for rule in settings.routing if rule.agent == agent.name}
        for name in agent.topics:
            operations[f"{agent.name}.receive.{name}"] = _operation(Action.RECEIVE, name, records[name], settings.group)
        for name in sent | handed_on:
            operations[f"{agent.name}.send.{name}"] = _operation(Action.SEND, name, records[name])
    return operations


def _operations_of_runtime(settings: Settings) -> Operations:
    topics = {topic.name: (name, topic.record) for name, topic in named_topics(settings.prefix)}
    received = {f"runtime.receive.{topics[name][0]}": _operation(Action.RECEIVE, *topics[name]) for name in _RECEIVED}
    return received | {f"runtime.send.{topics[name][0]}": _operation(Action.SEND, *topics[name]) for name in _SENT}


def _operation(action: Action, topic: str, record: str, group: str | None = None) -> spec.Operation:
    binding = kafka.OperationBinding(groupId={"type": "string", "enum": [group]}) if group else None
    return spec.Operation(
        action=action,
        channel=spec.Reference(**{"$ref": f"#/channels/{topic}"}),
        messages=[spec.Reference(**{"$ref": f"#/channels/{topic}/messages/{_key(record)}"})],
        bindings=OperationBinding(kafka=binding) if binding else None,
    )


def _message(key: str) -> spec.Message:
    names = next((names for record, names in _SCHEMAS.items() if _key(record) == key), ())
    references = [{"$ref": f"#/components/schemas/{name}"} for name in names]
    payload: dict[str, Any] = {"oneOf": references} if len(references) > 1 else references[0] if references else {}
    headers: dict[str, Any] = {}
    if key == _key(_DEAD_LETTER):
        headers = {"headers": {"$ref": "#/components/schemas/deadletter.v1"}}
    elif key == _key(_RETRY):
        headers = {"headers": _text_headers(RETRY_HEADERS, required=(APP, NOT_BEFORE, ATTEMPTS))}
    elif key == "request":
        headers = {"headers": _text_headers(REQUEST_HEADERS)}
    original = "Key and value are the original's, byte for byte." if key in {"retry", _key(_DEAD_LETTER)} else None
    content_type = None if original else CONTENT_TYPE
    return spec.Message(name=key, title=key, description=original, contentType=content_type, payload=payload, **headers)


def _text_headers(names: Iterable[str], required: tuple[str, ...] = ()) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object", "properties": {name: {"type": "string"} for name in sorted(names)}}
    return {**schema, "required": list(required)} if required else schema


def _components(keys: Iterable[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the schemas of the records, each with the definitions that it refers to."""
    names = {_key(record): names for record, names in _SCHEMAS.items()} | {_key(_DEAD_LETTER): ("deadletter.v1",)}
    for name in sorted(name for key in keys for name in names.get(key, ())):
        schema = json.loads((files("murmura.schemas") / f"{name}.json").read_text(encoding="utf-8"))
        definitions = schema.pop("$defs", {})
        # Both would change the base of the references in it.
        del schema["$id"], schema["$schema"]
        yield name, _rebase_references(schema, name)
        yield from (
            (f"{name}.{inner}", _rebase_references(definition, name)) for inner, definition in definitions.items()
        )


def _rebase_references(part: Any, name: str) -> Any:
    """Return a part of a schema with references to `#/$defs/X` redirected to the components of the document.

    `discriminator` is left out: OpenAPI's is an object, AsyncAPI's is a name, and each form in `oneOf` has its own `kind`.
    """
    if isinstance(part, dict):
        return {
            key: f"#/components/schemas/{name}.{value.removeprefix('#/$defs/')}"
            if key == "$ref" and isinstance(value, str)
            else _rebase_references(value, name)
            for key, value in part.items()
            if key != "discriminator" or isinstance(value, str)
        }
    return [_rebase_references(item, name) for item in part] if isinstance(part, list) else part
