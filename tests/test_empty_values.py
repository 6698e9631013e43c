"""0 and an empty text are values that somebody gave: they mean what they say, or are refused, and never count as not given."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, get_args

import pytest
import yaml
from cli_in_process import run_here
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from murmura.runtime.errors import SetupError
from murmura.runtime.settings.settings import Settings
from murmura.training.recipe.job import Job
from murmura.training.recipe.recipe import Recipe, load_recipe

ROOT = Path(__file__).parents[1]
OPTIONAL = {"str | None", "int | None", "float | None"}
CHECKED_TOGETHER = {"username", "password"}
"""Where a mechanism needs them, an empty one is refused like a missing one."""


def asked_for_truth(node: ast.AST) -> Iterator[ast.expr]:
    """Yield what is asked whether it is true, not whether it is None."""
    if isinstance(node, ast.If | ast.IfExp | ast.While):
        yield from parts(node.test)
    elif isinstance(node, ast.BoolOp):
        for each in node.values[:-1]:
            yield from parts(each)


def parts(test: ast.expr) -> Iterator[ast.expr]:
    if isinstance(test, ast.BoolOp):
        for each in test.values:
            yield from parts(each)
    else:
        yield test.operand if isinstance(test, ast.UnaryOp) else test


def options_of(function: ast.FunctionDef) -> set[str]:
    """Return the options of a command that are a text or a number, or are not given."""
    given = (each for each in (*function.args.args, *function.args.kwonlyargs) if each.annotation is not None)
    return {
        each.arg
        for each in given
        if (text := ast.unparse(each.annotation)).startswith("Annotated[") and any(kind in text for kind in OPTIONAL)
    }


def test_no_command_takes_a_zero_or_an_empty_text_for_an_option_that_is_not_given() -> None:
    files = [path for room in ("runtime", "training", "agents", "scenarios") for path in (ROOT / room).rglob("*.py")]
    commands = [
        (path, node)
        for path in files
        if "typer" in (text := path.read_text(encoding="utf-8"))
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef)
    ]
    found = [
        f"{path.relative_to(ROOT)}:{each.lineno}: {each.id}"
        for path, command in commands
        for node in ast.walk(command)
        for each in asked_for_truth(node)
        if isinstance(each, ast.Name) and each.id in options_of(command)
    ]
    assert len(commands) > 50
    assert not found


def models_of(kind: Any) -> Iterator[type[BaseModel]]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield kind
        for field in kind.model_fields.values():
            yield from models_of(field.annotation)
    for each in get_args(kind):
        yield from models_of(each)


def test_no_setting_that_may_be_left_out_takes_an_empty_text() -> None:
    found = set()
    for model in {each for root in (Recipe, Job, Settings) for each in models_of(root)}:
        for name, field in model.model_fields.items():
            if field.default is not None or field.is_required() or name in CHECKED_TOGETHER:
                continue
            try:
                value = TypeAdapter(Annotated[field.annotation, *field.metadata, Field()]).validate_python("")
            except ValidationError:
                continue
            if value == "":
                found.add(f"{model.__name__}.{name}")
    assert not found


@pytest.mark.parametrize(
    "changed",
    [{"labels": []}, {"validation": []}, {"test": []}, {"group": ""}, {"thresholds": {"data": []}}, {"format": ""}],
)
def test_an_empty_key_of_a_task_is_refused_by_name(tmp_path: Path, changed: dict[str, Any]) -> None:
    path = tmp_path / "desk.yaml"
    path.write_text(yaml.safe_dump({"tasks": {"intent": {"train": "a.csv", **changed}}}))
    with pytest.raises(SetupError, match=rf"desk.yaml:\d+: tasks.intent.{next(iter(changed))}.*at least 1"):
        load_recipe(path)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["few-shot", "a.csv", "--out", "m", "--max-tokens", "0"], "greater than or equal to 3"),
        (["models", "list", "--store", ""], "found an empty one"),
    ],
)
def test_an_empty_option_is_refused(words: list[str], says: str) -> None:
    done = run_here(*words)
    assert (done.returncode, says in done.stderr) == (2, True), done.stderr
