"""Kinds of tasks are plug-ins: nobody but a kind's own files compares with its name."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
KINDS = {"classification", "generation", "multi_label", "tagging"}
AGENTS = {"classification", "analysis"}
FIELDS = {"generation"}
"""Kinds whose name is a field's name, too, and so a key of tables: a release has a generation."""
HOMES = ("runtime/model/kinds/", "training/kinds/", "schemas/result.py")


def modules() -> dict[str, Path]:
    found = (
        path
        for package in ("agents", "runtime", "scenarios", "schemas", "training")
        for path in (ROOT / package).rglob("*.py")
    )
    return {name: path for path in found if not (name := str(path.relative_to(ROOT))).startswith(HOMES)}


def strings(node: ast.AST) -> set[str]:
    return {each.value for each in ast.walk(node) if isinstance(each, ast.Constant) and isinstance(each.value, str)}


def is_kind(node: ast.expr) -> bool:
    """Whether an expression is `x.kind` or `x["kind"]`."""
    match node:
        case ast.Attribute(attr="kind") | ast.Subscript(slice=ast.Constant(value="kind")):
            return True
    return False


def is_known_not_to_be_a_kind(node: ast.expr) -> bool:
    """Whether it is other words, None, or members of an enumeration: a record's kind, say, not a task's."""
    parts = node.elts if isinstance(node, ast.Set | ast.Tuple) else [node]
    return all(
        isinstance(part, ast.Constant) or (isinstance(part, ast.Attribute) and part.attr.isupper()) for part in parts
    )


def names_kinds(node: ast.AST) -> bool:
    words = strings(node)
    return bool(words & KINDS) and not words & (AGENTS - KINDS)


def compares_kinds(node: ast.AST) -> bool:
    match node:
        case ast.Compare(left=left, comparators=others):
            sides = [left, *others]
            unknown = any(not is_kind(side) and not is_known_not_to_be_a_kind(side) for side in sides)
            both = all(map(is_kind, sides))
            return any(map(names_kinds, sides)) or (any(map(is_kind, sides)) and (unknown or both))
        case ast.Match(cases=cases):
            return any(names_kinds(case.pattern) for case in cases)
        case ast.Dict(keys=keys):
            return any(names_kinds(key) and not strings(key) <= FIELDS for key in keys if key is not None)
    return False


def places(source: str) -> list[int]:
    return [node.lineno for node in ast.walk(ast.parse(source)) if compares_kinds(node)]  # type: ignore[attr-defined]


def test_nobody_compares_with_the_name_of_a_kind():
    found = {name: lines for name, path in modules().items() if (lines := places(path.read_text()))}
    assert found == {}


@pytest.mark.parametrize(
    "source",
    [
        "task.kind == 'tagging'",
        "task.kind != kind",
        "task.kind in {'classification', 'multi_label'}",
        "task.kind in self.kinds",
        "a.kind == b.kind",
        "kind == 'multi_label'",
        "output['kind'] == name",
        "match task.kind:\n    case 'tagging':\n        pass",
        "match output:\n    case {'kind': 'tagging', 'spans': spans}:\n        pass",
        "decoders = {'tagging': Tagging}",
    ],
)
def test_a_comparison_of_a_kind_is_found(source):
    assert places(source) == [1]


@pytest.mark.parametrize(
    "source",
    [
        "record.kind == 'stale'",
        "state.kind in {ReplyKind.ANSWERED, ReplyKind.HANDED_OVER}",
        "kind is None",
        "agent in {'classification', 'analysis'}",
        "kinds.get(task.kind).form is AnswerForm.LABEL",
    ],
)
def test_other_comparisons_are_not_taken_for_one(source):
    assert places(source) == []
