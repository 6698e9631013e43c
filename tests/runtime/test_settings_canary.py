"""A canary in every setting, in every wrong shape and from every source, is shown by no message and no report."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import get_args, get_origin

import pytest
from pydantic import BaseModel

from murmura.runtime.agent.discovery import find_agents
from murmura.runtime.agent.handler import Handler
from murmura.runtime.agent.settings_report import report
from murmura.runtime.errors import SetupError
from murmura.runtime.settings.settings import Settings
from murmura.runtime.settings.sources import load

pytestmark = pytest.mark.usefixtures("no_settings_environment")

CANARY = "hunter2canary"


Path_ = tuple[str | int, ...]


def keys_of(model: type[BaseModel] = Settings, prefix: Path_ = ()) -> Iterator[Path_]:
    """Every section and every setting, as paths: below `mine` in a mapping by name, below 0 in a list."""
    for name, field in model.model_fields.items():
        if name == "options":  # only their agent knows them
            continue
        path = (*prefix, name)
        yield path
        within = {dict: "mine", tuple: 0, list: 0}.get(get_origin(field.annotation))
        inner = [kind for kind in (field.annotation, *get_args(field.annotation)) if is_model(kind)]
        for kind in inner:
            yield from keys_of(kind, path if within is None else (*path, within))


def is_model(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


OPTIONS = [
    ("agents", each.name, "options", *key)
    for each in find_agents(["dialogue", "feedback"])
    if isinstance(each, Handler) and each.options_model
    for key in [(), *keys_of(each.options_model)]
]
KEYS = [*keys_of(), *OPTIONS]
SHAPES = {
    "text": CANARY,
    "text with blanks": f"SASL_SSL user {CANARY}",
    "list": [CANARY],
    "list in list": [[CANARY]],
    "mapping": {"password": CANARY},
    "key": {CANARY: 1},
    "key with blanks": {f"SASL_SSL user {CANARY}": {}},
    "key of a mapping": {f"user:{CANARY}": {"password": CANARY}},
    "list of mappings": [{"topic": CANARY}],
    "address": f"s3://key:{CANARY}@bucket",
    "address with a query": f"https://host/x?sas={CANARY}",
}


RULE = {"agent": "a", "topic": "t", "otherwise": True}
"""What a rule needs, so that the message is about the key that is tried."""


def nested(path: Path_, value: object) -> dict:
    for at in reversed(range(len(path))):
        value = [RULE | value] if isinstance(path[at], int) else {path[at]: value}
    return value


def variable(path: Path_, value: object) -> tuple[str, str]:
    """The name and the text of the variable that sets a key; what lies in a list is set with it, as JSON."""
    end = next((at for at, part in enumerate(path) if isinstance(part, int)), len(path))
    if end < len(path):
        value = nested(path[end:], value)
    name = "MURMURA_" + "__".join(map(str, path[:end])).upper()
    return name, value if isinstance(value, str) else json.dumps(value)


def message_of(config: Path | None = None, flags: dict | None = None) -> str:
    """What the settings are refused with, else all that `murmura config show` says of them."""
    try:
        return json.dumps([row.value for row in report(load(config, flags))])
    except SetupError as error:
        message = str(error)
    assert "\n" not in message
    return message


NAMES = {
    **dict.fromkeys(("app", "prefix", "kafka.group", "kafka.group_instance_id", "kafka.client_rack"), "text"),
    **dict.fromkeys(("agents.mine.output", "routing.0.topic", "routing.0.agent"), "text"),
    **dict.fromkeys(("agents.mine.topics", "agents.mine.tasks", "agents.feedback.options.agents"), "list"),
    "agents.dialogue.options.generated_replies_off": "list",
    **dict.fromkeys(("console.user_header", "console.roles_header", "console.group", "agents.mine.model"), "text"),
    "console.hosts": "list",
    "experiments.ratios": "text",
    "agents.mine.thresholds.mine.labels": "key",
    "agents.dialogue.options.state": "text",
    "agents.dialogue.options.handoffs": "text",
}
"""Settings that a name fits, and the shape that is one: of topics, groups, agents, tasks, labels. A name has to be shown: it is
what is looked for on the broker, in the model or in the metrics, and nothing tells it from a secret of the same characters."""
ANY_TEXT = {
    "kafka.security.username",
    "model.folder",
    "models.mine.folder",
    "models.mine.store",
    "console.guidelines",
    "agents.dialogue.options.policy",
    "agents.dialogue.options.knowledge",
}
"""Settings that every text fits: the name of a user, a path. Both are shown, because the refusal of a login or a folder is
about them; a variable holds a text whatever it looks like. Addresses with credentials are refused there too."""


def is_right(path: str, shape: str, source: str) -> bool:
    """Whether a setting may take what it is given, which is then no wrong shape."""
    if path in ANY_TEXT:
        return shape in {"text", "text with blanks"} or (source == "variable" and "address" not in shape)
    return NAMES.get(path) == shape


@pytest.mark.parametrize("source", ["file", "variable", "flag"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_secret_in_any_setting_in_any_wrong_shape_is_never_shown(shape, source, config, monkeypatch):
    shown = []
    for path in KEYS:
        value = SHAPES[shape]
        with monkeypatch.context() as patch:
            if source == "variable":
                patch.setenv(*variable(path, value))
            given = {"config": config(nested(path, value))} if source == "file" else {}
            message = message_of(**given, flags=nested(path, value) if source == "flag" else None)
        name = ".".join(map(str, path))
        if CANARY in message and not is_right(name, shape, source):
            shown.append((name, message))
    assert shown == []


@pytest.mark.parametrize("section", ["dialogue", "feedback"])
@pytest.mark.parametrize("value", [CANARY, [CANARY], {CANARY: 1}, {f"a {CANARY}": 1}, {"policy": CANARY}])
def test_a_section_that_moved_is_named_without_what_stands_in_it(section, value):
    message = message_of(flags={section: value})
    assert f"is now agents.{section}.options" in message
    assert CANARY not in message


def test_settings_below_names_and_in_lists_are_tried():
    assert {("inputs", "mine", "text"), ("agents", "mine", "retries", "attempts"), ("routing", 0, "label")} <= set(KEYS)
    assert ("agents", "mine", "thresholds", "mine", "accept") in KEYS


@pytest.mark.parametrize("file", ["cafile", "certfile", "keyfile"])
def test_an_address_in_the_place_of_a_file_is_refused_and_not_shown(file):
    security = {"protocol": "SSL", "certfile": "c", file: f"https://host/x?sas={CANARY}"}
    message = message_of(flags={"kafka": {"security": security}})
    assert message == f"command line: kafka.security.{file}: expected the path of a file, found an address"


@pytest.mark.parametrize("lead", ["*", "&", "!", "%", "@", "`", "{", "[", "'", '"', "- ", "? ", ": ", "|", ">"])
def test_a_password_that_is_no_yaml_is_not_quoted(config, lead):
    assert CANARY not in message_of(config=config(f"kafka:\n  security:\n    password: {lead}{CANARY}\n"))


@pytest.mark.parametrize("value", [12345678, 1.5, True, None])
def test_nothing_below_the_security_of_the_broker_is_described(value):
    message = message_of(flags={"kafka": {"security": {"username": [value], "password": value}}})
    assert repr(value) not in message


def test_a_misspelt_key_of_the_security_is_named_and_another_one_is_not():
    misspelt = message_of(flags={"kafka": {"security": {"pasword": CANARY}}})
    assert misspelt == "command line: kafka.security.pasword is not a setting; did you mean password?"
    assert message_of(flags={"kafka": {"security": {CANARY: 1}}}) == (
        "command line: a key in kafka.security is not a setting"
    )


def test_all_shapes_are_tried_on_all_sections():
    assert ("kafka",) in KEYS
    assert ("kafka", "security") in KEYS
    assert len(KEYS) * len(SHAPES) > 400
