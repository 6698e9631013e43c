"""`murmura demo-learn` in a process of its own: the whole loop, with MiniLM and the model of the repository."""

import json
import re
import signal
import subprocess
from pathlib import Path

import pytest
import yaml
from cli_in_process import refused_here
from demo_terminal import LAST_LINE, MURMURA, Terminal, environment

from murmura.scenarios.support.job import write_job

pytestmark = pytest.mark.minilm


def run(*arguments: object) -> subprocess.CompletedProcess:
    command = [MURMURA, "demo-learn", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=1700)


@pytest.mark.slow
@pytest.mark.timeout(1800)  # it trains at low priority, beside whatever else the machine does
def test_the_desk_learns_the_new_product_and_loses_nothing(tmp_path: Path):
    done = run("--quick", "--rate", 2, "--keep", tmp_path / "kept")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "topics --create" not in done.stderr
    published, answered, dead, lost = map(int, re.fullmatch(LAST_LINE, done.stdout.splitlines()[-1]).groups())
    assert (answered, dead, lost) == (published, 0, 0)
    outcome = json.loads((tmp_path / "kept/outcome.json").read_text())
    figures = {(each["task"], each["set"]): each for each in outcome["figures"]}
    for task in ("intent", "queue"):
        product = figures[task, "new product"]
        assert product["before"] == 0
        assert product["after"] >= 0.7  # one run of one seed on 90 messages; docs/learning-demo.md has the figures
        assert product["gate"]["low"] > 0
        assert figures[task, "the desk's"]["gate"]["verdict"] != "worse"
    assert outcome["latency_s"]["swap"]["count"] > 0
    assert "version 2 answers instead of 1" in done.stdout
    report = (tmp_path / "kept/job.run/gate/gate.md").read_text()
    assert report.startswith("# Gate: passed")


def test_a_quick_run_differs_in_its_steps_and_in_which_texts_keep_their_answers_how_firmly(tmp_path: Path):
    whole, quick = (
        yaml.safe_load(write_job(tmp_path, "127.0.0.1:9092", "desk", None, quick=each).read_text())
        for each in (False, True)
    )
    assert quick["fit"].pop("epochs") < whole["fit"].pop("epochs")
    assert quick["fit"].pop("encoder_lr") > whole["fit"].pop("encoder_lr")
    assert quick["hold"].pop("weight") > whole["hold"].pop("weight")
    assert lines_of(quick["hold"].pop("texts")) < lines_of(whole["hold"].pop("texts"))
    assert quick == whole


def lines_of(paths: list[str]) -> set[str]:
    return {line for path in paths for line in Path(path).read_text().splitlines()}


def test_on_a_terminal_the_stages_are_shown_and_ctrl_c_ends_the_retraining_too(tmp_path: Path):
    terminal = Terminal([MURMURA, "demo-learn", "--quick", "--keep", str(tmp_path / "kept")])
    try:
        terminal.wait_for("retraining beside the traffic")
        terminal.wait_for("of the new product 0 % right", 90)
        terminal.type("=intent nobody meant\r")
        terminal.wait_for("verdict", 60)
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.process.wait(60) == 1
        terminal.wait_for("lost 0")
        assert not _running(str(tmp_path))
    finally:
        terminal.process.kill()
        terminal.process.wait()


def _running(words: str) -> list[str]:
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if words in line]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--data", "nothing-here"), "--data nothing-here: no such folder"),
        (("--keep", "."), "it exists; name a new folder"),
        (("--http", "somewhere"), "expected HOST:PORT"),
    ],
)
def test_what_is_wrong_is_one_line_and_code_2(arguments, words, tmp_path):
    assert words in refused_here("demo-learn", *arguments, cwd=tmp_path)


def test_without_the_trainer_it_says_what_to_install(tmp_path: Path):
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['torch'] = None\n")
    environ = environment() | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run([MURMURA, "demo-learn"], capture_output=True, text=True, env=environ, timeout=60)
    assert done.returncode == 2
    assert "make demo-learn" in done.stderr
