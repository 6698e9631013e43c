"""`murmura demo` in a process of its own, without and with a terminal."""

import re
import signal
import subprocess
import termios
from urllib.request import urlopen

import pytest
from cli_in_process import run_here
from demo_terminal import LAST_LINE, MURMURA, Terminal, environment

from murmura.runtime.errors import SetupError
from murmura.scenarios.stage.traffic import read_samples
from murmura.scenarios.support.place import MESSAGES


def demo(*arguments: object) -> list[str]:
    return [MURMURA, "demo", *map(str, arguments)]


def counts(line: str) -> list[int]:
    found = re.fullmatch(LAST_LINE, line)
    assert found, line
    return [int(number) for number in found.groups()]


def test_without_a_terminal_it_prints_lines_and_its_books_balance(tiny_model):
    command = demo("--model", tiny_model, "--seconds", 4, "--rate", 30, "--console", "127.0.0.1:0")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(), text=True)
    first = process.stdout.readline()
    before = [process.stdout.readline() for _ in range(3)]
    addresses = next(line for line in before if line.startswith("console http"))
    page = urlopen(addresses.split()[1].rstrip(","), timeout=30).read().decode()
    rest, errors = process.communicate(timeout=60)
    rest = "".join(before) + rest
    lines = rest.splitlines()
    published, answered, dead, lost = counts(lines[-1])
    assert process.returncode == 0
    assert errors == ""
    assert first.startswith("murmura demo: ")
    assert published == answered + dead
    assert lost == 0
    assert dead >= 1
    assert published >= 60
    assert sum(" ms" in line for line in lines) == published
    assert any("/metrics" in line and "/readyz" in line for line in lines)
    assert "murmura serve --bootstrap HOST:PORT" in rest
    assert "classification" in page


def test_on_a_terminal_a_person_can_type_a_message_and_leave(tiny_model):
    terminal = Terminal(demo("--model", tiny_model, "--rate", 2))
    try:
        terminal.wait_for("texts a batch")
        terminal.type("schön, is anybody there?")
        terminal.wait_for("schön, is anybody there?█")
        terminal.type("\r")
        terminal.wait_for("› schön, is anybody there? ")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.process.wait(60) == 0
        terminal.wait_for("lost 0")
        assert termios.tcgetattr(terminal.theirs) == terminal.before
    finally:
        terminal.process.kill()
        terminal.process.wait()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--model", "nothing-here"), "nothing-here"),
        (("--model", ".", "--messages", "none.jsonl"), "none.jsonl: cannot read the sample messages"),
        (("--model", ".", "--http", "somewhere"), "expected HOST:PORT"),
    ],
)
def test_what_is_missing_is_one_line_and_code_2(arguments, words, tmp_path):
    done = run_here("demo", *arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    assert words in done.stderr
    assert done.stdout.startswith("murmura demo: "), "said before anything that takes time"


def test_the_samples_are_many_and_some_are_broken():
    assert len(read_samples(MESSAGES)) >= 60
    assert MESSAGES.read_text().count('{"raw') >= 4


def test_a_sample_that_is_neither_text_nor_raw_is_refused_with_its_line(tmp_path):
    path = tmp_path / "messages.jsonl"
    path.write_text('{"text": "fine"}\n\n{"raw_hex": "zz"}\n')
    with pytest.raises(SetupError, match=r"messages\.jsonl, line 3: expected"):
        read_samples(path)
    path.write_text("\n")
    with pytest.raises(SetupError, match="no messages"):
        read_samples(path)
