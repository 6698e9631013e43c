"""No message shows what a setting holds when it may be a secret; secrets come from files; every setting has a source."""

import json
import logging
import time
from pathlib import Path

import pytest
import yaml
from guarded_broker import PLAIN_USERS
from kafka_topics import create_topics
from pydantic import SecretStr
from test_settings_canary import CANARY, KEYS, message_of
from typer.testing import CliRunner

from murmura.runtime.cli import main as cli
from murmura.runtime.errors import MurmuraError, SetupError
from murmura.runtime.observe.logs import configure
from murmura.runtime.release.store_backends import open_storage
from murmura.runtime.settings.agent_options import Options, read_options
from murmura.runtime.settings.redaction import public_address, redact_text
from murmura.runtime.settings.settings import Settings
from murmura.runtime.settings.sources import load

pytestmark = pytest.mark.usefixtures("no_settings_environment")

SASL = {"protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN", "username": "me"}


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("s3://bucket/models", "s3://bucket/models"),
        ("s3://KEY:SECRET@bucket/models", "s3://bucket/models"),
        ("s3://KEY:SEC/RET@bucket/models", "s3://bucket/models"),
        ("s3://KEY:SEC@RET@bucket", "s3://bucket"),
        ("https://store/models?sas=SECRET", "https://store/models"),
        ("https://store/models#SECRET", "https://store/models"),
        ("s3://bucket/team@home", "s3://bucket/team@home"),
        ("simplecache::s3://KEY:SECRET@bucket", "simplecache::s3://bucket"),
        ("s3:KEY:SECRET@bucket", "bucket"),
        ("/srv/models", "/srv/models"),
    ],
)
def test_an_address_is_shown_without_credentials(address, public):
    assert public_address(address) == public


def test_a_librarys_text_is_shown_without_credentials():
    assert redact_text("x?sas=SECRET is missing") == "x is missing"
    text = redact_text("GET https://u:SECRET@host/a?sas=SECRET failed: SECRET:SECRET@bucket/x is not there")
    assert text == "GET https://host/a failed: bucket/x is not there"


@pytest.mark.parametrize("part", ["a", "a:", "a:@", "?a", "://", "a+", "a://b"])
def test_a_long_line_is_redacted_in_no_time(part):
    began = time.thread_time()
    redact_text(part * 50_000)
    assert time.thread_time() - began < 1


@pytest.mark.parametrize(
    "url", [f"nothing://key:{CANARY}/a@bucket", f"s3:/key:{CANARY}@bucket", f"memory://x?sas={CANARY}"]
)
def test_a_store_that_fails_is_named_without_credentials(url):
    try:
        storage = open_storage(url)
        message = storage.address
        storage.open("desk", 1, "manifest.json")
    except MurmuraError as error:
        message = str(error)
    assert CANARY not in message


@pytest.mark.parametrize("format", ["json", "pretty"])
def test_an_address_with_credentials_in_a_log_line_is_shown_without_them(format, capsys):
    handlers, level = logging.getLogger().handlers[:], logging.getLogger().level
    try:
        configure("info", format)
        logging.getLogger("collector").warning("POST http://me:%s@collector/v1?token=%s", CANARY, CANARY)
        logging.getLogger("collector").warning("Max retries exceeded with url: /v1?token=%s", CANARY)
        written = capsys.readouterr().err
    finally:
        logging.getLogger().handlers[:] = handlers
        logging.getLogger().setLevel(level)
    assert "http://collector/v1" in written
    assert "url: /v1" in written
    assert CANARY not in written


def secret_file(tmp_path: Path, content: bytes = CANARY.encode() + b"\n") -> Path:
    path = tmp_path / "secret"
    path.write_bytes(content)
    return path


def password_of(settings: Settings) -> str:
    assert settings.kafka.security.password
    return settings.kafka.security.password.get_secret_value()


def test_a_secret_comes_from_the_file_that_a_variable_names(tmp_path, monkeypatch):
    monkeypatch.setenv("MURMURA_KAFKA__SECURITY__PASSWORD_FILE", str(secret_file(tmp_path)))
    settings = load(flags={"kafka": {"security": SASL}})
    assert password_of(settings) == CANARY
    assert settings.source("kafka.security.password") == "MURMURA_KAFKA__SECURITY__PASSWORD_FILE"


def test_a_secret_comes_from_a_file_beside_the_settings_file(config, tmp_path):
    secret_file(tmp_path)
    assert password_of(load(config({"kafka": {"security": {**SASL, "password_file": "secret"}}}))) == CANARY
    (tmp_path / "secret").write_text(f"s3://key:{CANARY}@bucket")
    store = load(config({"model": {"store_file": "secret", "name": "desk"}})).model.store
    assert store == f"s3://key:{CANARY}@bucket"


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "No such file"), (b"", "is empty"), (b"\n", "is empty"), (b"\xff", "not UTF-8"), (b"x" * 70_000, "65536")],
)
def test_a_secret_that_cannot_be_read_is_one_line_that_names_the_variable(content, words, tmp_path, monkeypatch):
    path = tmp_path / "secret" if content is None else secret_file(tmp_path, content)
    monkeypatch.setenv("MURMURA_KAFKA__SECURITY__PASSWORD_FILE", str(path))
    message = message_of()
    assert message.startswith("MURMURA_KAFKA__SECURITY__PASSWORD_FILE: kafka.security.password_file: ")
    assert words in message


def test_a_folder_in_a_secrets_place_is_refused(tmp_path):
    assert "Is a directory" in message_of(flags={"kafka": {"security": {"password_file": str(tmp_path)}}})
    assert "expected the path" in message_of(flags={"kafka": {"security": {"password_file": [CANARY]}}})


def test_a_secret_and_its_file_together_are_refused_with_both_places(tmp_path, config, monkeypatch):
    monkeypatch.setenv("MURMURA_KAFKA__SECURITY__PASSWORD_FILE", str(secret_file(tmp_path)))
    message = message_of(config=config({"kafka": {"security": {"password": CANARY}}}))
    assert "MURMURA_KAFKA__SECURITY__PASSWORD_FILE" in message
    assert "murmura.yaml, line 3: kafka.security.password" in message
    assert CANARY not in message


class Shop(Options):
    token: SecretStr | None = None
    name: str = ""


def test_a_secret_option_of_an_agent_comes_from_a_file_too(tmp_path, monkeypatch):
    monkeypatch.setenv("MURMURA_AGENTS__SHOP__OPTIONS__TOKEN_FILE", str(secret_file(tmp_path)))
    options = read_options("shop", Shop, load())
    assert isinstance(options, Shop)
    assert options.token == SecretStr(CANARY)
    monkeypatch.setenv("MURMURA_AGENTS__SHOP__OPTIONS__NAME_FILE", "x")
    with pytest.raises(SetupError, match="name_file is not a setting"):
        read_options("shop", Shop, load())


def run(*arguments: str):
    return CliRunner().invoke(cli.build(), ["config", *arguments])


def test_config_show_names_value_and_source_of_every_setting(config, monkeypatch):
    monkeypatch.setenv("MURMURA_KAFKA__SECURITY__PASSWORD", CANARY)
    monkeypatch.setenv("MURMURA_MODEL__STORE", f"s3://key:{CANARY}@bucket/models")
    agents = {"mine": {"topics": ["a"], "options": {"token": CANARY}}, "feedback": {"options": {"window": 7}}}
    path = config({"app": "desk", "kafka": {"security": SASL}, "model": {"name": "m"}, "agents": agents})
    done = run("show", "--json", "--config", str(path))
    shown = json.loads(done.output)
    assert CANARY not in done.output
    assert shown["kafka.group"] == {"value": None, "source": "default"}
    line = path.read_text().splitlines().index("app: desk") + 1
    assert shown["app"] == {"value": "desk", "source": f"{path}, line {line}"}
    assert shown["kafka.security.password"] == {"value": "***", "source": "MURMURA_KAFKA__SECURITY__PASSWORD"}
    assert shown["model.store"] == {"value": "s3://bucket/models", "source": "MURMURA_MODEL__STORE"}
    assert shown["agents.mine.topics"]["value"] == ["a"]
    assert shown["agents.mine.options.token"]["value"] == "***"
    assert shown["agents.feedback.options.window"]["value"] == 7
    sections = {path[:length] for path in KEYS for length in range(1, len(path))}
    assert {
        ".".join(path) for path in KEYS if path not in sections and not {"agents", "inputs", "models", 0} & {*path}
    } <= set(shown)


def test_config_show_is_lines_of_yaml_with_a_source_on_request(config):
    path = config({"app": "desk"})
    plain, sourced = (run("show", *more, "--config", str(path)).output for more in ((), ("--origin",)))
    assert yaml.safe_load(plain) == yaml.safe_load(sourced)
    assert 'app: "desk"' in plain
    assert f"# {path}, line 1" in sourced
    assert "# default" in sourced


def test_config_check_says_how_many_settings_were_given_or_what_is_wrong(config):
    done = run("check", "--config", str(config({"app": "desk"})))
    assert done.output.startswith("the settings are sound: 1 given, ")
    refused = run("check", "--config", str(config({"agents": {"feedback": {"options": {"windwo": 1}}}})))
    assert "did you mean window?" in str(refused.exception)


def test_a_threshold_of_a_label_is_shown_with_its_source(config):
    path = config({"agents": {"mine": {"thresholds": {"intent": {"labels": {"refund": 0.7}}}}}})
    shown = json.loads(run("show", "--json", "--config", str(path)).output)
    assert shown["agents.mine.thresholds.intent.labels"]["value"] == {"refund": 0.7}


async def test_the_log_at_its_most_detailed_has_no_password_and_no_text(guarded_kafka, unique, capfd):
    from aiokafka import AIOKafkaProducer

    user, password = "alice", PLAIN_USERS["alice"]
    security = {"protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN", "username": user, "password": password}
    settings = Settings(kafka={"bootstrap_servers": guarded_kafka.sasl, "security": security})
    topic = unique("secret")
    await create_topics(guarded_kafka.bootstrap, [topic], 1, {})
    handlers, level = logging.getLogger().handlers[:], logging.getLogger().level
    try:
        configure("debug", "json")
        async with AIOKafkaProducer(**settings.kafka.client_options()) as producer:
            await producer.send_and_wait(topic, CANARY.encode(), key=CANARY.encode())
    finally:
        configure("info")
        logging.getLogger().handlers[:] = handlers
        logging.getLogger().setLevel(level)
    written = capfd.readouterr().err
    assert '"logger": "aiokafka' in written
    assert password not in written
    assert CANARY not in written
