"""The command line as a user meets it, on the embedded broker or a real Kafka."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from importlib.metadata import version
from pathlib import Path

import pytest
from cli_in_process import refused_here, run_here

from murmura.runtime.kafka.embedded_broker import EmbeddedBroker
from murmura.schemas.topics import named_topics

MURMURA = str(Path(sys.executable).with_name("murmura"))
NOWHERE = "127.0.0.1:1"


def environment() -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MURMURA_")}
    return clean | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "COLUMNS": "120"}


@pytest.fixture(scope="module")
def broker():
    with EmbeddedBroker(
        {name: 2 for name, _ in named_topics()} | {"lines": 3, "watched": 1, "typed": 1, "empty": 1}
    ) as embedded:
        yield embedded.bootstrap


def test_help_lists_every_command_and_comes_at_once():
    before = os.times()
    command = [sys.executable, "-X", "importtime", MURMURA, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment(), check=False)
    after = os.times()
    cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
    assert done.returncode == 0
    commands = ["demo", "serve", "publish", "tail", "topics", "train", "export", "evaluate", "models", "doctor"]
    assert all(re.search(rf"^│ {command} ", done.stdout, re.MULTILINE) for command in commands), done.stdout
    assert cpu_s < 2, "half a second on a quiet machine"
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "typer" in imported
    assert not imported & {"numpy", "tokenizers", "onnxruntime", "torch", "aiokafka", "starlette"}


def test_the_version_is_printed():
    done = run_here("--version")
    assert (done.returncode, done.stdout) == (0, f"murmura {version('murmura')}\n")


@pytest.mark.parametrize("command", ["serve", "publish", "feedback", "tail", "topics", "doctor", "demo", "ingest"])
def test_each_command_teaches_with_an_example(command):
    done = run_here(command, "--help")
    assert f"Example: murmura {command}" in done.stdout or "| murmura" in done.stdout


def test_lines_of_text_go_in_and_come_out(broker, tmp_path):
    texts = tmp_path / "texts.txt"
    texts.write_text("where is my card?\n\nzażółć\n")
    done = run_here("publish", "lines", texts, "--bootstrap", broker)
    assert (done.returncode, done.stderr) == (0, "published 2 records to lines\n")
    lines = tmp_path / "lines.jsonl"
    lines.write_text('{"text": "one", "id": "k1"}\n{"text":"two","id":"k2"}\n')
    assert run_here("publish", "lines", lines, "--key-field", "id", "--bootstrap", broker).returncode == 0
    assert run_here("publish", "lines", "-", "--bootstrap", broker, stdin="from a pipe\n").returncode == 0
    seen = run_here("tail", "lines", "--from-beginning", "--json", "--count", 5, "--bootstrap", broker)
    assert {json.loads(line)["text"] for line in seen.stdout.splitlines()} == {
        "where is my card?",
        "zażółć",
        "one",
        "two",
        "from a pipe",
    }
    pretty = run_here("tail", "lines", "--from-beginning", "--count", 5, "--bootstrap", broker).stdout
    assert re.search(r'^\d\d:\d\d:\d\d  \d/\d  k2  {"text":"two","id":"k2"}$', pretty, re.MULTILINE)


def test_a_broken_line_is_named(broker, tmp_path):
    lines = tmp_path / "lines.jsonl"
    lines.write_text('{"text": "one"}\n{"text": \n')
    message = refused_here("publish", "empty", lines, "--bootstrap", broker)
    assert f"{lines}, line 2: not JSON" in message
    assert "no field id to use as the key" in refused_here(
        "publish", "empty", lines, "--key-field", "id", "--bootstrap", broker
    )


def test_ctrl_c_ends_a_publish_that_waits_for_a_person(broker):
    command = [MURMURA, "publish", "typed", "-", "--bootstrap", broker]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(), text=True, bufsize=1
    )
    process.stdin.write("one\n")
    arguments = ("tail", "typed", "--from-beginning", "--count", 1, "--bootstrap", broker)
    assert "one" in run_here(*arguments).stdout
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 0
    assert process.stderr.read() == "published 1 records to typed\n"


def test_a_record_that_is_too_large_is_said_in_a_line(broker, tmp_path):
    texts = tmp_path / "texts.txt"
    texts.write_text("small\n" + "x" * 13_000_000)
    assert "MessageSizeTooLargeError" in refused_here("publish", "empty", texts, "--bootstrap", broker)


def test_ctrl_c_ends_a_tail_cleanly(broker):
    assert run_here("publish", "watched", "-", "--bootstrap", broker, stdin="one\n").returncode == 0
    command = [MURMURA, "tail", "watched", "--from-beginning", "--bootstrap", broker]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(), text=True, bufsize=1
    )
    assert "one" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 0
    assert process.stderr.read() == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ("serve", "--model", "m"),
        ("publish", "lines", "-"),
        ("tail", "lines"),
        ("topics",),
        ("topics", "--create"),
    ],
)
def test_without_a_broker_it_is_one_line_and_what_to_do(arguments, tmp_path):
    message = refused_here(*arguments, "--bootstrap", NOWHERE, cwd=tmp_path)
    assert f"no Kafka broker at {NOWHERE}: connection refused" in message
    assert "--bootstrap HOST:PORT" in message


def test_a_missing_topic_is_named(broker):
    for arguments in (("publish", "nowhere", "-"), ("tail", "nowhere")):
        assert "topic nowhere is not on" in refused_here(*arguments, "--bootstrap", broker)


def test_serve_without_a_model_says_how_to_name_one(broker):
    assert "--model FOLDER" in refused_here("serve", "--bootstrap", broker)
    assert "nothing-here" in refused_here(
        "serve", "--bootstrap", broker, "--model", "nothing-here", "--http", "127.0.0.1:0"
    )


def test_serve_refuses_what_is_no_agent(tmp_path):
    (tmp_path / "number_shop.py").write_text("number = 5\n")
    assert "did you mean analysis?" in refused_here("serve", "analsis", "--model", "m")
    assert "no module nowhere here" in refused_here("serve", "nowhere:agent", "--model", "m", cwd=tmp_path)
    assert "number_shop has no router" in refused_here("serve", "number_shop:router", "--model", "m", cwd=tmp_path)
    assert "number_shop:number is a int, expected an Agent" in refused_here(
        "serve", "number_shop:number", "--model", "m", cwd=tmp_path
    )


def test_settings_are_refused_with_file_and_line(tmp_path):
    config = tmp_path / "murmura.yaml"
    config.write_text("kafka:\n  bootstrap_server: x\n")
    message = refused_here("serve", "--config", config, "--model", "m")
    assert f"{config}, line 2: kafka.bootstrap_server is not a setting; did you mean bootstrap_servers?" in message
    config.write_text("agents: {summary: {tasks: [intent]}}\n")
    assert "agents.summary: no such agent" in refused_here("serve", "--config", config, "--model", "m")


def test_serve_answers_until_sigterm_and_ends_with_zero(tiny_model, tmp_path):
    """On a broker of its own: results of both agents, health while it runs, a clean end."""
    with EmbeddedBroker({name: 2 for name, _ in named_topics()}) as embedded:
        bootstrap = embedded.bootstrap
        (tmp_path / "murmura.yaml").write_text("kafka: {fetch_max_wait_ms: 5}\n")
        (tmp_path / "shop.py").write_text(
            "from murmura.runtime.agent import agent\n"
            '@agent(topics=["murmura.classification.requests"], output="murmura.analysis.results")\n'
            "def shop(request, prediction):\n    return prediction.outputs\n"
        )
        command = [MURMURA, "serve", "classification", "shop:shop", "--config", "murmura.yaml"]
        command += ["--bootstrap", bootstrap, "--model", str(tiny_model), "--http", "127.0.0.1:0"]
        server = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=environment())
        try:
            url = None
            while url is None:
                line = json.loads(server.stderr.readline())
                url = line.get("http") if line["event"] == "serving" else None
            with urllib.request.urlopen(f"{url}/readyz", timeout=5) as answer:
                assert json.load(answer)["ready"] is True
            run_here("publish", "murmura.classification.requests", "-", "--bootstrap", bootstrap, stdin="my card\n")
            for topic, agent in (("classification", "classification"), ("analysis", "shop")):
                arguments = (f"murmura.{topic}.results", "--from-beginning", "--json", "--count", 1)
                assert json.loads(run_here("tail", *arguments, "--bootstrap", bootstrap).stdout)["agent"] == agent
            server.send_signal(signal.SIGTERM)
            assert server.wait(20) == 0
            said = server.stderr.read()
            assert "Traceback" not in said
            assert "stopping" in said
        finally:
            server.kill()
            server.wait()


def test_doctor_finds_everything_well(broker, tiny_model):
    done = run_here("doctor", "--bootstrap", broker, "--model", tiny_model, "--device", "cpu")
    assert done.returncode == 0, done.stdout
    assert "FAIL" not in done.stdout
    assert re.search(r"^ok +device +answers on cpu$", done.stdout, re.MULTILINE)


def test_doctor_says_what_is_wrong_and_goes_on(tiny_model):
    with EmbeddedBroker({"other": 1}) as bare:
        done = run_here("doctor", "--bootstrap", bare.bootstrap, "--model", "nothing-here")
    assert done.returncode == 1
    assert re.search(r"^FAIL +model .*nothing-here", done.stdout, re.MULTILINE)
    assert re.search(r"^ok +broker ", done.stdout, re.MULTILINE)
    assert re.search(r"^FAIL +topics .*murmura topics --create", done.stdout, re.MULTILINE)
    assert re.search(r"^FAIL +broker ", run_here("doctor", "--bootstrap", NOWHERE).stdout, re.MULTILINE)


def test_topics_are_shown_and_made_on_a_real_kafka(kafka, unique, tmp_path):
    prefix = unique("desk")
    config = tmp_path / "murmura.yaml"
    config.write_text(f"prefix: {prefix}\nagents: {{classification: {{topics: [{prefix}.mail]}}}}\n")
    before = run_here("topics", "--config", config, "--bootstrap", kafka)
    assert before.stdout.count("missing") == len(list(named_topics())) + 1
    made = run_here("topics", "--create", "--partitions", 5, "--config", config, "--bootstrap", kafka)
    assert made.returncode == 0, made.stderr
    after = run_here("topics", "--config", config, "--bootstrap", kafka).stdout
    assert "missing" not in after
    assert re.search(rf"^{prefix}\.mail +any +5 partitions$", after, re.MULTILINE)
    assert re.search(rf"^{prefix}\.deadletters +dead letter +3 partitions$", after, re.MULTILINE)


def test_a_model_of_the_store_needs_no_folder(tmp_path: Path):
    (tmp_path / "store.yaml").write_text(f"model: {{store: {tmp_path}, name: desk}}\n")
    assert "no Kafka broker" in refused_here("serve", "--config", tmp_path / "store.yaml", "--bootstrap", NOWHERE)
    assert "no model to serve" in refused_here("serve", "--bootstrap", NOWHERE)
