"""What trains a kind of task is named by the class that serves it, and imported to train only."""

import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from installed_package import installed

from murmura.runtime.errors import SetupError
from murmura.runtime.model.kinds.registry import KINDS as SERVED
from murmura.training.kinds.registry import KINDS

SERVING = """
from murmura.runtime.model.kinds.classification import Classification

class Grade(Classification):
    name = "grade"
    {training}
"""
TRAINING = """
from murmura.training.kinds.classification import Classification

class Grade(Classification):
    name = "{name}"

class Other:
    name = "grade"
"""


@pytest.fixture
def install(tmp_path: Path):
    """Install a package with a kind `grade` that has this line, and a module of this name to train it."""
    with ExitStack() as stack:

        def add(line: str, name: str = "grade") -> None:
            package = tmp_path / "grades"
            package.mkdir()
            (package / "__init__.py").write_text("")
            (package / "serving.py").write_text(SERVING.format(training=line))
            (package / "training.py").write_text(TRAINING.format(name=name))
            points = {"murmura.kinds": {"grade": "grades.serving:Grade"}}
            stack.enter_context(installed("grades", tmp_path, points, tmp_path / "installed"))

        yield add


def test_one_line_registers_what_serves_and_what_trains(install) -> None:
    install('training = "grades.training:Grade"')
    assert SERVED.get("grade").name == KINDS.get("grade").name == "grade"
    assert KINDS.get("grade").serving is SERVED.get("grade")
    assert KINDS.names() == SERVED.names()


@pytest.mark.parametrize(
    ("line", "name", "problem"),
    [
        ('training = ""', "grade", r"kind of task grade cannot be trained: .* of grades.serving:Grade is '', expected"),
        ('training = "a/b.py"', "grade", "is 'a/b.py', expected what trains it, as package.module:Class"),
        ("", "grade", "Classification\\) calls itself 'classification': name both the same"),
        ('training = "grades.training:Grade"', "grades", "calls itself 'grades': name both the same"),
        ('training = "grades.trainer:Grade"', "grade", "cannot be loaded: ModuleNotFoundError: No module named"),
        ('training = "grades.training:Grades"', "grade", "cannot be loaded: AttributeError"),
        ('training = "grades.training"', "grade", "is a builtins.module, expected a murmura.training.kinds.kind.Kind"),
        ('training = "grades.training:Other"', "grade", "is a grades.training.Other, expected a murmura.training"),
        ('training = "grades.serving:Grade"', "grade", "is a grades.serving.Grade, expected a murmura.training"),
    ],
)
def test_what_cannot_train_a_kind_is_named_in_one_line_and_harms_no_serving(install, line, name, problem) -> None:
    install(line, name)
    with pytest.raises(SetupError, match=problem) as refused:
        KINDS.get("grade")
    assert "kind of task grade" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert SERVED.get("grade").name == "grade"
    assert KINDS.get("tagging").name == "tagging"


def test_serving_a_kind_does_not_import_what_trains_it() -> None:
    script = """
import sys
from murmura.runtime.model.kinds.registry import KINDS
assert all(KINDS.get(name).training for name in KINDS.names())
assert "torch" not in sys.modules and "murmura.training" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True)
