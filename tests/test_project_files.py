"""The files around the code agree with each other: workflow, hooks, dependency group, image."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())


def test_the_workflow_runs_what_ci_runs_on_every_supported_python():
    job = WORKFLOW["jobs"]["test"]
    steps = [step.get("run") for step in job["steps"]]
    assert ".ci/run" in steps
    supported = {
        name.rpartition(" ")[2]
        for name in PYPROJECT["project"]["classifiers"]
        if re.fullmatch(r"Programming Language :: Python :: 3\.\d+", name)
    }
    assert set(job["strategy"]["matrix"]["python"]) == supported


def test_the_hooks_run_the_tools_that_lint_runs():
    makefile = (ROOT / "Makefile").read_text()
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repository["repo"] == "local"
    tools = {hook["entry"].split()[0].removeprefix(".venv/bin/") for hook in repository["hooks"]}
    assert tools == {"ruff", "mypy", "lint-imports"}
    assert all(f"$(BIN)/{tool}" in makefile for tool in tools)


def test_development_dependencies_are_a_group_and_no_extra():
    assert "dev" not in PYPROJECT["project"]["optional-dependencies"]
    names = {re.split("[=<>\\[]", requirement)[0] for requirement in PYPROJECT["dependency-groups"]["dev"]}
    assert {"pytest", "ruff", "mypy", "import-linter", "hypothesis"} <= names
    assert "--group dev" in (ROOT / "Makefile").read_text()


@pytest.mark.parametrize("name", ["title", "licenses", "version", "revision", "base.name"])
def test_the_image_is_labelled(name):
    assert f"org.opencontainers.image.{name}=" in (ROOT / "deploy/Dockerfile").read_text()
