"""Settings: precedence of sources, and refusals that say where and what."""

from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from murmura.runtime.errors import SetupError
from murmura.runtime.settings.agent_options import Options, RelativePath, read_options
from murmura.runtime.settings.settings import KafkaSettings, SecuritySettings, Settings
from murmura.runtime.settings.sources import load

pytestmark = pytest.mark.usefixtures("no_settings_environment")


def refusal(config: Path | None = None, flags: dict | None = None) -> str:
    with pytest.raises(SetupError) as caught:
        load(config, flags)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_defaults_are_a_sound_set_up():
    settings = load()
    assert settings.group == "murmura.default"
    assert settings.http_address == ("127.0.0.1", 9464)
    assert settings.dead_letters == "murmura.deadletters"
    assert settings.model.cores >= 1


def test_flags_win_over_environment_over_file_over_defaults(config, monkeypatch):
    path = config("app: file\nprefix: file\nkafka: {drain_s: 5, session_timeout_ms: 6000, group: file}\n")
    monkeypatch.setenv("MURMURA_PREFIX", "environment")
    monkeypatch.setenv("MURMURA_KAFKA__GROUP", "environment")
    monkeypatch.setenv("MURMURA_KAFKA__DRAIN_S", "6")
    settings = load(path, {"kafka": {"drain_s": 7.0, "bootstrap_servers": None}})
    assert settings.kafka.drain_s == 7.0
    assert (settings.prefix, settings.kafka.group) == ("environment", "environment")
    assert (settings.app, settings.kafka.session_timeout_ms) == ("file", 6000)
    assert settings.kafka.bootstrap_servers == "localhost:9092"


def test_the_file_can_be_named_by_the_environment(config, monkeypatch):
    monkeypatch.setenv("MURMURA_CONFIG", str(config("app: named\n")))
    assert load().app == "named"


def test_agents_are_overridden_by_file_and_environment(config, monkeypatch):
    path = config("agents:\n  classification:\n    topics: [mail]\n    thresholds: {intent: {accept: 0.4}}\n")
    monkeypatch.setenv("MURMURA_AGENTS__CLASSIFICATION__OUTPUT", "answers")
    agent = load(path).agents["classification"]
    assert (agent.topics, agent.output, agent.tasks) == (["mail"], "answers", None)
    assert agent.thresholds["intent"].model_fields_set == {"accept"}


def test_constructing_settings_reads_no_environment(monkeypatch):
    monkeypatch.setenv("MURMURA_APP", "elsewhere")
    assert Settings().app == "default"


def test_settings_are_frozen():
    with pytest.raises(ValidationError):
        Settings().app = "other"


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (
            "app: a\nkafka:\n  sesion_timeout_ms: 1\n",
            3,
            "kafka.sesion_timeout_ms is not a setting; did you mean session",
        ),
        ("kafak: {}\n", 1, "kafak is not a setting; did you mean kafka?"),
        ("agents:\n  mine:\n    outptu: x\n", 3, "agents.mine.outptu is not a setting; did you mean output?"),
        ("agents: {mine: {thresholds: {intent: {acept: 1}}}}\n", 1, "did you mean accept?"),
        ("agents:\n  mine:\n    topics: [fine, 'not fine']\n", 3, "agents.mine.topics.1: expected a name"),
        (
            "app: a\n\ncommit_interval_ms: soon\n",
            3,
            "valid integer, unable to parse string as an integer, found a text of 4 characters",
        ),
        ("http: 9464\n", 1, "http: input should be a valid string, found 9464"),
        ("app: a\nprefix: 2024-13-45\n", 2, "prefix: looks like a timestamp and is none; put it in quotes"),
        (f"app: a\ncommit_interval_ms: 1{'0' * 5000}\n", 2, "commit_interval_ms: looks like an int and is none"),
        (f"agents:\n  mine: {'[' * 3000}\n", 2, "nested deeper than 50 levels"),
        ("kafka:\n  group: a\n  drain_s: 2\n  group: b\n", 4, "kafka.group: this key is a duplicate"),
        ("app: a\nkafka: {}\napp: b\n", 3, "app: this key is a duplicate"),
        ('app: a\nagents: {"a\\nb": {outptu: x}}\n', 2, "agents.NAME.outptu is not a setting"),
        ("app: a\nrouting: {agent: a}\n", 2, "routing: input should be a valid list, found a mapping of 1"),
        ("kafka: [\n", 2, "not YAML: expected the node content"),
    ],
)
def test_a_wrong_file_is_refused_with_line_and_key(config, text, line, words):
    message = refusal(config(text))
    assert f"murmura.yaml, line {line}: " in message
    assert words in message


def test_a_file_that_is_no_mapping_or_not_there_is_refused(config, tmp_path):
    assert "found a list" in refusal(config("- 1\n"))
    assert "no such settings file" in refusal(tmp_path / "none.yaml")


def test_a_wrong_variable_is_named(monkeypatch):
    monkeypatch.setenv("MURMURA_KAFKA__GRUOP", "x")
    assert refusal() == "MURMURA_KAFKA__GRUOP: kafka.gruop is not a setting; did you mean group?"


def test_a_variable_that_holds_a_section_or_a_list_is_named_as_it_was_set(monkeypatch):
    monkeypatch.setenv("MURMURA_AGENTS", '{"mine": {"outptu": "x"}}')
    assert refusal().startswith("MURMURA_AGENTS: agents.mine.outptu is not a setting")
    monkeypatch.setenv("MURMURA_AGENTS", "{}")
    monkeypatch.setenv("MURMURA_ROUTING", '[{"agent": "a", "otherwise": true, "topic": "o o"}]')
    assert refusal().startswith("MURMURA_ROUTING: routing.0.topic: ")


class Shop(Options):
    policy: RelativePath | None = None
    window: int = 5
    names: tuple[str, ...] = ()
    token: SecretStr | None = None


def shop(path: Path | None = None) -> Shop:
    return read_options("shop", Shop, load(path))


def test_an_agents_options_are_those_of_file_and_environment_together(config, monkeypatch):
    path = config("agents: {shop: {topics: [a], options: {window: 7, names: [x]}}}\n")
    monkeypatch.setenv("MURMURA_AGENTS__SHOP__OPTIONS__NAMES", '["y", "z"]')
    assert shop(path) == Shop(window=7, names=("y", "z"))


@pytest.mark.parametrize(
    ("options", "line", "words"),
    [
        ("{windwo: 5}", 3, "agents.shop.options.windwo is not a setting; did you mean window?"),
        ("\n      window: 5\n      names: [a, 1]", 5, "agents.shop.options.names.1: input should be a valid string, found 1"),
        ("\n      window: soon", 4, "agents.shop.options.window: input should be a valid integer"),
        ("\n      token: [canary]", 4, "agents.shop.options.token: input should be"),
    ],
)  # fmt: skip
def test_a_wrong_option_is_refused_with_line_and_key(config, options, line, words):
    with pytest.raises(SetupError) as refused:
        shop(config(f"agents:\n  shop:\n    options: {options}\n"))
    assert f"murmura.yaml, line {line}: " in str(refused.value)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_wrong_option_of_the_environment_names_its_variable(monkeypatch):
    monkeypatch.setenv("MURMURA_AGENTS__SHOP__OPTIONS__WINDWO", "5")
    with pytest.raises(
        SetupError, match=r"^MURMURA_AGENTS__SHOP__OPTIONS__WINDWO: agents\.shop\.options\.windwo is not"
    ):
        shop()


def test_options_of_an_agent_that_has_none_are_refused_at_their_line(config):
    with pytest.raises(SetupError, match=r"line 3: agents\.shop\.options: agent shop has no options"):
        read_options("shop", None, load(config("agents:\n  shop:\n    options: {a: 1}\n")))


def test_options_that_nobody_gave_have_their_defaults(config):
    assert shop() == Shop()
    assert read_options("shop", None, load()) is None


def test_a_required_option_that_nobody_gave_is_named():
    class Needy(Options):
        policy: Path

    with pytest.raises(SetupError, match=r"^settings: agents\.shop\.options\.policy: field required"):
        read_options("shop", Needy, load())


def test_options_are_not_shown_before_a_model_says_which_are_secret(config):
    assert "canary" not in repr(load(config("agents: {shop: {options: {token: canary}}}\n")))


def test_a_file_that_an_option_names_is_found_beside_the_settings_file(config, tmp_path, monkeypatch):
    path = config("agents: {shop: {options: {policy: talk/policy.yaml}}}\n")
    assert shop(path).policy == tmp_path / "talk/policy.yaml"
    monkeypatch.chdir(tmp_path.parent)
    assert shop(Path(tmp_path.name, path.name)).policy == Path(tmp_path.name, "talk/policy.yaml")
    assert shop(config("agents: {shop: {options: {policy: /etc/policy.yaml}}}\n")).policy == Path("/etc/policy.yaml")


def test_a_file_that_a_variable_names_is_found_where_the_command_starts(config, monkeypatch):
    path = config("agents: {shop: {options: {policy: of-the-file.yaml}}}\n")
    monkeypatch.setenv("MURMURA_AGENTS__SHOP__OPTIONS__POLICY", "policy.yaml")
    assert shop(path).policy == Path("policy.yaml")


@pytest.mark.parametrize(
    ("text", "line", "moved"),
    [
        ("app: a\ndialogue:\n  policy: p.yaml\n", 3, "dialogue.policy is now agents.dialogue.options.policy"),
        ("feedback: {window: 5}\n", 1, "feedback.window is now agents.feedback.options.window"),
        ("app: a\nfeedback:\n", 2, "feedback is now agents.feedback.options"),
    ],
)
def test_a_key_that_moved_is_refused_with_its_new_place(config, text, line, moved):
    message = refusal(config(text))
    assert message.endswith(f"murmura.yaml, line {line}: {moved}")


def test_a_variable_whose_key_moved_is_refused_with_its_new_name(monkeypatch):
    monkeypatch.setenv("MURMURA_DIALOGUE__POLICY", "policy.yaml")
    assert refusal() == (
        "MURMURA_DIALOGUE__POLICY: dialogue.policy is now agents.dialogue.options.policy "
        "(MURMURA_AGENTS__DIALOGUE__OPTIONS__POLICY)"
    )


def test_a_variable_of_an_unknown_section_is_named(monkeypatch):
    monkeypatch.setenv("MURMURA_KAFAK__GROUP", "x")
    assert refusal().startswith("MURMURA_KAFAK__GROUP: kafak is not a section")


def test_variables_that_others_set_are_left_alone(monkeypatch):
    monkeypatch.setenv("MURMURA_PORT", "tcp://10.0.0.1:9464")
    monkeypatch.setenv("MURMURA_KAFKA_SERVICE_HOST", "10.0.0.1")
    assert load().app == "default"


def test_a_wrong_flag_is_named():
    assert refusal(flags={"http": "9464"}).startswith("command line: http: expected HOST:PORT")


@pytest.mark.parametrize(
    ("values", "first", "second"),
    [
        ({"kafka": {"heartbeat_interval_ms": 9000}}, "heartbeat_interval_ms", "session_timeout_ms"),
        ({"kafka": {"drain_s": 30}}, "drain_s", "rebalance_timeout_ms"),
        ({"kafka": {"fetch_max_wait_ms": 30000}}, "fetch_max_wait_ms", "request_timeout_ms"),
        ({"kafka": {"fetch_max_bytes": 1000}}, "max_partition_fetch_bytes", "fetch_max_bytes"),
        ({"limits": {"max_value_bytes": 2**30}}, "limits.max_value_bytes", "producer.max_request_bytes"),
        ({"producer": {"batch_bytes": 2**30}}, "producer.batch_bytes", "producer.max_request_bytes"),
        ({"commit_interval_ms": 20000}, "commit_interval_ms", "kafka.session_timeout_ms"),
        ({"kafka": {"security": {"protocol": "SSL", "sasl_mechanism": "PLAIN"}}}, "sasl_mechanism", "protocol"),
        ({"kafka": {"security": {"protocol": "SASL_SSL", "username": "me"}}}, "sasl_mechanism", "password"),
        ({"kafka": {"security": {"cafile": "ca.pem"}}}, "cafile", "protocol"),
    ],
)
def test_settings_that_clash_are_both_named(values, first, second):
    message = refusal(flags=values)
    assert first in message
    assert second in message


def test_a_password_is_never_shown(monkeypatch):
    monkeypatch.setenv("MURMURA_KAFKA__SECURITY__PASSWORD", "hush-hush")
    settings = load(
        flags={"kafka": {"security": {"protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN", "username": "me"}}}
    )
    assert "hush-hush" not in f"{settings!r} {settings.model_dump_json()}"
    assert settings.kafka.client_options()["sasl_plain_password"] == "hush-hush"
    assert "hush-hush" not in refusal(flags={"kafka": {"security": {"password": ["hush-hush"]}}})


def test_a_password_that_looks_like_a_date_is_not_shown_either(config):
    message = refusal(config("kafka:\n  security:\n    password: 2024-13-45\n"))
    assert "line 3: kafka.security.password: looks like a timestamp" in message
    assert "2024" not in message.rpartition("murmura.yaml")[2]


def test_client_options_carry_address_and_security():
    assert KafkaSettings(bootstrap_servers="a:1,b:2").client_options() == {
        "bootstrap_servers": ["a:1", "b:2"],
        "security_protocol": "PLAINTEXT",
        "metadata_max_age_ms": 5_000,
    }
    assert "ssl_context" in KafkaSettings(security=SecuritySettings(protocol="SSL")).client_options()
