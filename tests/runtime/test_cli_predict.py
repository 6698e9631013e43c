"""`murmura predict`: what a model answers, without Kafka."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import Result
from installed_package import PAIRS, installed_example
from tiny_decoder import end_sooner, reply_task
from tiny_model import TASKS, write_tiny_model
from typer.testing import CliRunner

from murmura.runtime.cli import main as cli
from murmura.runtime.cli.predict_inputs import read_parts
from murmura.runtime.errors import SetupError
from murmura.runtime.generation.input_format import format_input
from murmura.runtime.model.model import Model
from murmura.schemas.acts import Act, ActName, Utterance
from murmura.schemas.manifest import TaskSpec

REPLY = reply_task(max_tokens=16)
FOLLOWS = TaskSpec(name="follows", kind="entailment", labels=["yes", "no", "perhaps"])


@pytest.fixture(scope="module")
def generating(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "talk"
    return write_tiny_model(folder, [*TASKS, REPLY], name="talk", added=end_sooner(REPLY, by=2.0))


def invoke(*arguments: object, given: str | bytes | None = None) -> Result:
    result = CliRunner().invoke(cli.build(), ["predict", *map(str, arguments)], input=given)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def rows(result: Result) -> list[dict]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_a_text_is_answered_on_every_task_in_a_table_and_the_time_is_told(tiny_model: Path) -> None:
    result = invoke("--model", tiny_model, "my card was lost")
    lines = [line.split("\t") for line in result.stdout.splitlines()]
    assert [line[:2] for line in lines] == [["my card was lost", task.name] for task in TASKS]
    assert lines[0][2].split()[-1].startswith("0.")
    assert "1 texts of 6 tokens in " in result.stderr
    assert "cpu, loaded in " in result.stderr


def test_json_lines_hold_what_the_model_answers(tiny_model: Path, tmp_path: Path) -> None:
    file = tmp_path / "messages.txt"
    file.write_text("my card was lost\n\n  hello  \n" + "please help me " * 40 + "\n")
    found = rows(invoke("--model", tiny_model, "--json", file))
    model = Model.load(tiny_model, device="cpu")
    texts = ["my card was lost", "hello", ("please help me " * 40).strip()]
    assert [each["text"] for each in found] == texts
    for each, want in zip(found, model.predict(texts), strict=True):
        assert each["outputs"]["intent"]["label"] == want["intent"]["label"]
        assert each["outputs"]["entities"] == want["entities"]
        assert each["ms"] > 0
    assert [each["truncated"] for each in found] == [False, False, True]
    assert [each["tokens"] for each in found] == [6, 3, 32]


def test_standard_input_is_read_line_by_line_texts_and_objects(tiny_model: Path) -> None:
    found = rows(invoke("--model", tiny_model, "--json", "--task", "intent", "-", given='hello\n{"text": "thanks"}\n'))
    assert [(each["text"], [*each["outputs"]]) for each in found] == [("hello", ["intent"]), ("thanks", ["intent"])]


def test_replies_are_generated_from_turns_acts_and_slots(generating: Path) -> None:
    turns = [
        {"role": "user", "text": "i want a card"},
        {"role": "agent", "text": "when?"},
        {"role": "user", "text": "monday"},
    ]
    line = {"turns": turns, "acts": [{"act": "request", "slot": "city"}], "slots": ["city"]}
    result = invoke("--model", generating, "--json", "-", given=json.dumps(line) + "\nhello\n")
    first, second = rows(result)
    assert REPLY.generation is not None
    model = Model.load(generating, device="cpu")
    given = [Utterance.model_validate(turn) for turn in turns]
    pairs = [
        format_input(given, [Act(act=ActName.REQUEST, slot="city")], REPLY.generation),
        format_input([Utterance(role="user", text="hello")], [], REPLY.generation),
    ]
    replies = model.generate(pairs, [{"city"}, None])
    assert [each["outputs"]["reply"]["text"] for each in (first, second)] == [reply.text for reply in replies]
    assert first["text"] == "monday"
    assert first["outputs"]["intent"] == model.predict(["monday"], ["intent"])[0]["intent"]
    assert first["reply_ms"] > 0
    assert "2 replies of " in result.stderr
    assert [each["reply_truncated"] for each in (first, second)] == [reply.truncated for reply in replies]
    only = rows(invoke("--model", generating, "--json", "--task", "reply", "hello"))[0]
    assert [*only["outputs"]] == ["reply"]


@pytest.mark.parametrize(
    ("arguments", "given", "message"),
    [
        (["--task", "mood", "hello"], None, "model tiny has no task mood; its tasks are intent"),
        (["missing.jsonl"], None, r"there is no file missing\.jsonl"),
        (["missing.TSV"], None, r"there is no file missing\.TSV"),
        (["/tmp/no-such-folder/file"], None, "there is no file /tmp/no-such-folder/file"),
        (["mails/7"], None, "there is no file mails/7"),
        ([str(Path(__file__).parent)], None, "is a folder; name its files"),
        (["-"], '{"txt": "a"}\n', "standard input line 1: txt: Extra inputs are not permitted"),
        (["-"], '{"text_pair": "a"}\n', "standard input line 1 has neither a `text` nor `turns`"),
        (["-"], '{"text": " "}\n', "standard input line 1: text: is empty; expected a text"),
        (["-"], '{"text": "a", "text_pair": "\\t"}\n', "standard input line 1: text_pair: is empty"),
        (
            ["-"],
            '{"turns": [{"role": "agent", "text": ""}, {"role": "user", "text": "a"}]}\n',
            r"line 1: turns\.0\.text: is empty",
        ),
        (
            ["-"],
            '{"text": "b", "turns": [{"role": "user", "text": "a"}]}\n',
            "standard input line 1 has `text` and `turns`; give one of them",
        ),
        (["-"], '{"text": "a", "slots": ["date"]}\n', "line 1: no reply names slot 'date'; expected none"),
        (["-"], 'hello\n{"text": 5}\n', "standard input line 2: text: Input should be a valid string"),
        (["-"], "{no json\n", "standard input line 1 begins with a brace and is no JSON object"),
        (["-"], b"hello\n\xff\xfe\n", "standard input, after line [01]: not UTF-8"),
        (
            ["-"],
            '{"turns": [{"role": "user", "text": "a"}], "acts": [{"act": "shout"}]}\n',
            r"acts\.0\.act: Input should be",
        ),
        (["-"], '{"text": "a\\ud800"}\n', "standard input line 1: text: has a lone surrogate"),
        (["a\udcff"], None, "text 1 has a lone surrogate"),
        (["  "], None, "text 1 is empty"),
    ],
)
def test_what_cannot_be_answered_is_one_line(tiny_model: Path, arguments, given, message) -> None:
    with pytest.raises(SetupError, match=message):
        invoke("--model", tiny_model, *arguments, given=given)


def test_a_slot_that_no_reply_names_and_an_invalid_text_are_refused_for_a_decoder_alone(generating: Path) -> None:
    arguments = ("--model", generating, "--task", "reply")
    with pytest.raises(SetupError, match="line 1: no reply names slot 'dates'; expected city, date"):
        invoke(*arguments, "-", given='{"text": "a", "slots": ["city", "dates"]}\n')
    with pytest.raises(SetupError, match="text 1 has a lone surrogate"):
        invoke(*arguments, "a\udcff")


def test_a_reply_says_whether_its_turns_were_truncated(generating: Path) -> None:
    turns = [{"role": "user", "text": "help me " * 40}, {"role": "user", "text": "hello"}]
    lines = [{"turns": turns}, {"turns": turns[1:]}, {"turns": [{"role": "user", "text": " ".join(["x" * 400])}]}]
    given = "\n".join(map(json.dumps, lines))
    found = rows(invoke("--model", generating, "--json", "--task", "reply", "-", given=given))
    assert [each["reply_truncated"] for each in found] == [True, False, True]


def test_a_text_with_a_slash_and_a_pipe_instead_of_a_file_are_answered(tiny_model: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    writer = subprocess.Popen(["sh", "-c", 'echo hello > "$0"', tmp_path / "pipe"])
    found = rows(invoke("--model", tiny_model, "--json", "card and/or money", tmp_path / "pipe"))
    assert writer.wait(60) == 0
    assert [each["text"] for each in found] == ["card and/or money", "hello"]


def test_only_what_is_typed_is_answered_line_by_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "messages.txt"
    file.write_text("hello\n" * 70)
    keyboard, terminal = os.openpty()
    with os.fdopen(keyboard, "wb", buffering=0) as typing, os.fdopen(terminal, encoding="utf-8") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert stdin.isatty()
        typing.write(b"one\ntwo\n\x04")
        parts = list(read_parts(["thanks", str(file), "-", "bye"], ()))
    assert [len(part) for part in parts] == [64, 7, 1, 1, 1]
    assert [part[-1].place for part in parts[-2:]] == ["standard input line 2", "text 4"]


def test_times_count_the_tokenising_of_texts_as_of_replies(generating: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encode = Model.encode
    monkeypatch.setattr(Model, "encode", lambda model, texts: time.sleep(0.2) or encode(model, texts))
    found = rows(invoke("--model", generating, "--json", "hello"))[0]
    assert found["ms"] >= 200
    assert found["reply_ms"] >= 200


def test_a_task_that_reads_two_texts_asks_for_the_second(tmp_path: Path) -> None:
    with installed_example(tmp_path / "package", PAIRS):
        folder = write_tiny_model(tmp_path / "m", [*TASKS, FOLLOWS])
        found = rows(
            invoke("--model", folder, "--json", "-", given='{"text": "hello", "text_pair": "thanks"}\nhello\n')
        )
        assert ["follows" in each["outputs"] for each in found] == [True, False]
        with pytest.raises(SetupError, match="text 1: task follows reads two texts; give a JSON object"):
            invoke("--model", folder, "--task", "follows", "hello")


def test_no_model_is_one_line_on_standard_error(tmp_path: Path) -> None:
    murmura = Path(sys.executable).with_name("murmura")
    done = subprocess.run([murmura, "predict", "hello"], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "murmura: no model is named: add --model FOLDER\n"
