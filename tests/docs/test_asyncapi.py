"""The committed AsyncAPI document is the one of the shipped agents, sound in itself, and describes real records."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faststream.specification.asyncapi.v3_0_0.schema import ApplicationSchema
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from murmura.runtime.agent.agent import Agent
from murmura.runtime.agent.handler import Handler
from murmura.runtime.cli import main as cli
from murmura.runtime.cli.asyncapi_document import document
from murmura.runtime.settings.routing_rules import Rule
from murmura.runtime.settings.settings import KafkaSettings, SecuritySettings, Settings
from murmura.schemas.topics import named_topics

PATH = Path(__file__).resolve().parents[2] / "docs/asyncapi.json"
POLICY = PATH.parents[1] / "scenarios/support/policy.yaml"
SHIPPED = ("classification", "analysis", "dialogue", "feedback")
DOCUMENT = json.loads(PATH.read_text())


def parts(value: Any, key: str) -> Iterator[Any]:
    """Every value that stands at `key`, at any depth."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in items:
        if name == key:
            yield inner
        yield from parts(inner, key)


def plain(schema: Any) -> Any:
    """A schema with the last name of each reference, and without OpenAPI's discriminators."""
    if isinstance(schema, dict):
        kept = {key: value for key, value in schema.items() if key != "discriminator"}
        return {key: re.split(r"[/.]", value)[-1] if key == "$ref" else plain(value) for key, value in kept.items()}
    return [plain(item) for item in schema] if isinstance(schema, list) else schema


def resolved(reference: str, content: dict[str, Any]) -> Any:
    assert reference.startswith("#/")
    found: Any = content
    for part in reference[2:].split("/"):
        found = found[part.replace("~1", "/").replace("~0", "~")]
    return found


def problems(content: dict[str, Any]) -> list[str]:
    """What AsyncAPI 3 does not allow."""
    found = [] if re.fullmatch(r"3\.0\.\d+", content["asyncapi"]) else ["asyncapi: not 3.0"]
    found += [f"info.{name} is missing" for name in ("title", "version") if not content["info"].get(name)]
    for reference in [ref for ref in parts(content, "$ref") if isinstance(ref, str)]:
        try:
            resolved(reference, content)
        except (KeyError, AssertionError):
            found.append(f"{reference} leads nowhere")
    if found:
        return found
    for name, operation in content["operations"].items():
        if operation["action"] not in {"send", "receive"}:
            found.append(f"{name}: no action")
        messages = [ref["$ref"] for ref in operation["messages"]]
        if not messages or any(not ref.startswith(f"{operation['channel']['$ref']}/messages/") for ref in messages):
            found.append(f"{name}: its messages are not its channel's")
    for name, server in content["servers"].items():
        if not server["host"] or not server["protocol"]:
            found.append(f"{name}: host or protocol is missing")
    found += [
        f"discriminator {each} is no name" for each in parts(content, "discriminator") if not isinstance(each, str)
    ]
    sections = content["components"]
    found += [
        f"components: {key!r}" for part in sections.values() for key in part if not re.fullmatch(r"[\w.\-]+", key)
    ]
    for name, schema in sections["schemas"].items():
        Draft202012Validator.check_schema(schema)
        if "$defs" in schema or "$id" in schema:
            found.append(f"{name}: references would have another base")
    return found


def test_the_committed_document_is_that_of_the_shipped_agents(monkeypatch):
    monkeypatch.setenv("MURMURA_AGENTS__DIALOGUE__OPTIONS__POLICY", str(POLICY))
    done = CliRunner().invoke(cli.build(), ["asyncapi", *SHIPPED])
    assert done.output == PATH.read_text(), (
        "write it: MURMURA_AGENTS__DIALOGUE__OPTIONS__POLICY=scenarios/support/policy.yaml "
        f"murmura asyncapi {' '.join(SHIPPED)} --output docs/asyncapi.json"
    )


def test_the_document_is_sound():
    assert problems(DOCUMENT) == []
    assert ApplicationSchema.model_validate(DOCUMENT).to_jsonable() == DOCUMENT


@pytest.mark.parametrize("lost", ["info", "channels", "components", "operations"])
def test_the_check_sees_a_document_that_is_not(lost):
    broken = {**DOCUMENT, lost: {name: {} for name in DOCUMENT[lost]} if lost != "info" else {}}
    try:
        found = problems(broken)
    except KeyError:
        found = ["a required key is missing"]
    assert found != []


def test_every_topic_is_a_channel_with_its_address():
    assert {name for name, _ in named_topics()} <= set(DOCUMENT["channels"])
    assert all(channel["address"] == name for name, channel in DOCUMENT["channels"].items())


def test_every_payload_schema_is_that_of_its_file():
    folder = PATH.parents[1] / "schemas"
    for name, schema in DOCUMENT["components"]["schemas"].items():
        if (folder / f"{name}.json").is_file():
            committed = json.loads((folder / f"{name}.json").read_text())
            definitions = committed.pop("$defs", {})
            assert plain(schema) == plain(
                {key: value for key, value in committed.items() if key not in {"$id", "$schema"}}
            )
            for inner, definition in definitions.items():
                assert plain(DOCUMENT["components"]["schemas"][f"{name}.{inner}"]) == plain(definition)


def test_a_published_result_fits_the_schema_of_its_channel():
    message = resolved(DOCUMENT["channels"]["murmura.classification.results"]["messages"]["result"]["$ref"], DOCUMENT)
    validator = Draft202012Validator({**DOCUMENT, **message["payload"]})
    assert not validator.is_valid({"agent": 1})
    wire = (PATH.parent / "wire.md").read_text()
    (example,) = re.findall(r'^```json\n(\{\n  "request_id".*?)^```$', wire, re.DOTALL | re.MULTILINE)
    assert validator.is_valid(json.loads(example))


def test_ones_own_agents_routing_and_broker_are_in_it():
    class Router(Handler):
        name, topics, outputs = "router", ("shop.raw",), ("shop.mail",)

        async def handle(self, record, engine):
            return []

    mail = Agent(name="mail", topics=("shop.mail",), decide=lambda request, prediction: None, output="shop.answers")
    settings = Settings(
        app="shop",
        kafka=KafkaSettings(bootstrap_servers="a:1,b:2", security=SecuritySettings(protocol="SSL")),
        routing=(Rule(agent="mail", otherwise=True, topic="shop.people"),),
    )
    content = document(settings, [Router(), mail])
    assert problems(content) == []
    assert [server["host"] for server in content["servers"].values()] == ["a:1", "b:2"]
    assert {server["protocol"] for server in content["servers"].values()} == {"kafka-secure"}
    actions = {name: operation["action"] for name, operation in content["operations"].items()}
    assert actions["router.receive.shop.raw"] == "receive"
    assert actions["router.send.shop.mail"] == "send"
    assert actions["mail.send.shop.answers"] == "send"
    assert actions["mail.send.shop.people"] == "send"
    assert "result" in content["channels"]["shop.answers"]["messages"]
    messages, schemas = content["components"]["messages"], content["components"]["schemas"]
    for name, kinds in (("shadow_difference", ("shadow_counts",)), ("experiment_state", ("entered_chunk",))):
        found = [each["$ref"].rpartition("/")[2] for each in messages[name]["payload"]["oneOf"]]
        assert found == [f"{kind}.v1" for kind in (name, *kinds)]
        assert set(found) <= schemas.keys()
    assert actions["runtime.receive.murmura.experiments"] == "receive"
    assert content["operations"]["mail.receive.shop.mail"]["bindings"]["kafka"]["groupId"]["enum"] == ["murmura.shop"]
