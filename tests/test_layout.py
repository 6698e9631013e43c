"""The rules of the house that a tool can check: names, sizes, arrows, and what an import may bring along."""

import ast
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import murmura

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = ("agents", "console", "runtime", "scenarios", "schemas", "training")
FOLDERS = {
    "agents",
    "agents/dialogue",
    "agents/dialogue/commands",
    "agents/dialogue/knowledge",
    "agents/dialogue/policy",
    "agents/dialogue/turn",
    "agents/feedback",
    "console",
    "console/dead_letters",
    "console/experiments",
    "console/live",
    "console/overview",
    "console/reading",
    "console/review",
    "console/trying",
    "console/versions",
    "console/web",
    "runtime",
    "runtime/agent",
    "runtime/batching",
    "runtime/batching/callers",
    "runtime/batching/costs",
    "runtime/batching/device",
    "runtime/batching/queues",
    "runtime/cli",
    "runtime/cli/experiments",
    "runtime/cli/records",
    "runtime/cli/releases",
    "runtime/experiment_holder",
    "runtime/experiments",
    "runtime/flow",
    "runtime/flow/fetching",
    "runtime/flow/handlers",
    "runtime/flow/retries",
    "runtime/generation",
    "runtime/kafka",
    "runtime/kafka/sending",
    "runtime/model",
    "runtime/model/deltas",
    "runtime/model/folders",
    "runtime/model/graph",
    "runtime/model/kinds",
    "runtime/model/replies",
    "runtime/model/texts",
    "runtime/observe",
    "runtime/output",
    "runtime/redrive",
    "runtime/release",
    "runtime/settings",
    "runtime/shadow",
    "runtime/testing",
    "runtime/wire",
    "scenarios",
    "scenarios/stage",
    "scenarios/support",
    "scenarios/support/experiment",
    "schemas",
    "training",
    "training/cli",
    "training/compute",
    "training/data",
    "training/data/formats",
    "training/evaluate",
    "training/export",
    "training/few_shot",
    "training/fit",
    "training/fit/few_labels",
    "training/fit/finish",
    "training/fit/label_quality",
    "training/fit/probe",
    "training/fit/progress",
    "training/fit/rows",
    "training/fit/self_training",
    "training/fit/start",
    "training/fit/state",
    "training/fit/steps",
    "training/fit/teachers",
    "training/fit/weights",
    "training/gate",
    "training/ingest",
    "training/kinds",
    "training/kinds/figures",
    "training/kinds/replies",
    "training/mix",
    "training/model",
    "training/model/methods",
    "training/prepare",
    "training/pretrain",
    "training/pretrain/objectives",
    "training/recipe",
    "training/recipe/idle",
    "training/recipe/keys",
    "training/report",
    "training/report/sections",
    "training/retrain",
    "training/run_folders",
    "training/search",
    "training/smaller",
    "training/suggest",
    "training/transfer",
}
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
SCRIPTS = sorted(path for folder in ("benchmarks", "examples", "tests") for path in (ROOT / folder).rglob("*.py"))
LONGEST = 350
SAYS_NOTHING = {"util", "utils", "common", "helper", "helpers", "misc", "core", "base"}
SLOW = {"transformers", "sklearn", "peft", "pandas", "pyarrow", "datasets"}
"""They take seconds to import, and most commands need none of them."""
TORCH = {"torch", "transformers", "pandas", "sklearn", "peft", "tensorboard", "onnx"}


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imported_by(statement: str) -> set[str]:
    """The top-level modules that a fresh interpreter holds after a statement."""
    ask = f"import json, sys; {statement}; print(json.dumps([n.split('.')[0] for n in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", ask], check=True, capture_output=True, text=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_a_file_can_be_read_in_one_go():
    lines = {relative(path): len(path.read_text().splitlines()) for path in MODULES + SCRIPTS}
    assert {name: count for name, count in lines.items() if count > LONGEST} == {}


def test_a_module_is_named_for_what_it_holds():
    assert [relative(path) for path in MODULES if {path.stem, path.parent.name} & SAYS_NOTHING] == []


def test_every_module_says_what_it_is_for():
    silent = [relative(path) for path in MODULES if not ast.get_docstring(ast.parse(path.read_text()))]
    assert silent == []


def test_modules_lie_in_the_known_folders_and_one_at_the_root():
    assert [path.name for path in ROOT.glob("*.py")] == ["__init__.py"]
    assert {relative(path.parent) for path in MODULES} == FOLDERS


def test_the_packages_are_listed_as_they_are():
    listed = PYPROJECT["tool"]["setuptools"]["packages"]
    assert sorted(listed) == ["murmura", *sorted(f"murmura.{folder.replace('/', '.')}" for folder in FOLDERS)]


def test_what_takes_seconds_to_import_is_imported_where_it_is_used():
    modules = {relative(path): ast.parse(path.read_text()).body for path in MODULES}
    at_once = [
        (name, node.lineno)
        for name, body in modules.items()
        for node in body
        if (isinstance(node, ast.Import) and {each.name.split(".")[0] for each in node.names} & SLOW)
        or (isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in SLOW)
    ]
    assert at_once == []


def test_the_import_contracts_hold():
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_every_module_of_ours_is_imported_relatively():
    """`import murmura.x` inside the package would find another installation of it."""
    absolute = [
        relative(path)
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.ImportFrom) and node.level == 0 and (node.module or "").split(".")[0] == "murmura")
        or (isinstance(node, ast.Import) and any(name.name.split(".")[0] == "murmura" for name in node.names))
    ]
    assert absolute == []


@pytest.mark.parametrize(
    "module",
    [
        "runtime.serve",
        "runtime.cli.main",
        "runtime.model.model",
        "runtime.model.folders.folder",
        "agents.classification",
        "agents.analysis",
    ],
)
def test_serving_imports_no_torch(module):
    assert not imported_by(f"import murmura.{module}") & TORCH


def test_the_contract_brings_neither_kafka_nor_onnxruntime():
    """Whoever only reads results installs and imports little."""
    brought = imported_by("import murmura.schemas.generate, murmura.schemas.topics")
    assert not brought & (TORCH | {"aiokafka", "faststream", "onnxruntime", "numpy", "tokenizers"})


@pytest.mark.parametrize("module", ["aiokafka", "faststream", "onnxruntime", "tokenizers", "numpy"])
def test_the_command_line_starts_without(module):
    """`murmura --help` is asked for often: what a command needs is imported when it runs."""
    assert module not in imported_by("import murmura.runtime.cli.main")


def test_nothing_reads_the_environment_at_import():
    def reads(path: Path) -> bool:
        body = ast.parse(path.read_text()).body
        later = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
        nodes = [node for top in body if not isinstance(top, later) for node in ast.walk(top)]
        return any(isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv"} for node in nodes)

    assert [relative(path) for path in MODULES if reads(path)] == []


def test_every_entry_point_can_be_loaded():
    groups = PYPROJECT["project"]["entry-points"]
    targets = [target for group in groups.values() for target in group.values()]
    for target in [*targets, *PYPROJECT["project"]["scripts"].values()]:
        module, _, name = target.partition(":")
        assert hasattr(__import__(module, fromlist=[name]), name), target


def test_the_names_that_users_need_come_from_the_package_itself():
    assert all(hasattr(murmura, name) for name in murmura.__all__)
    assert not hasattr(murmura, "nothing")


def test_importing_the_package_brings_nothing_along():
    assert not imported_by("import murmura") & {"aiokafka", "faststream", "onnxruntime", "numpy", "pydantic"}
