"""What the documents say exists: settings, metrics, topics, reasons, commands, options, files."""

import json
import re
from collections.abc import Iterator
from importlib.metadata import entry_points
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import typer
from pydantic import BaseModel

from murmura.agents.metrics_table import METRICS
from murmura.runtime.agent.discovery import AGENTS, find_agents
from murmura.runtime.agent.handler import Handler
from murmura.runtime.cli import main as cli
from murmura.runtime.settings.models import NamedModelSettings
from murmura.runtime.settings.retries import AgentRetrySettings
from murmura.runtime.settings.routing_rules import Rule
from murmura.runtime.settings.settings import AgentSettings, InputSettings, Settings
from murmura.runtime.settings.sources import load
from murmura.schemas.deadletter import BYTES, CUT, SHA256, DeadLetter, DeadLetterReason
from murmura.schemas.envelope import REQUEST_HEADERS
from murmura.schemas.topics import DAY_MS, Topic, named_topics
from murmura.training.recipe.recipe import load_recipe

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    ROOT / "examples/README.md",
    *sorted(DOCS.glob("*.md")),
    *sorted((DOCS / "decisions").glob("*.md")),
]
CALCULATED = {"model.cores": "the process's", "model.token_budget": "measured"}


def rows(document: str) -> Iterator[list[str]]:
    """The cells of every table row, backticks removed."""
    for line in (DOCS / document).read_text().splitlines():
        if line.startswith("|") and not line.startswith("| ---"):
            yield [cell.strip().strip("`") for cell in line[1:-1].split("|")]


def settings_of(model: type[BaseModel], section: str = "") -> Iterator[tuple[str, str]]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from settings_of(field.annotation, f"{section}{name}.")
        elif section + name not in {"agents", "inputs", "models", "routing"}:
            default = field.get_default(call_default_factory=True)
            shown = (
                ""
                if default in (None, (), {}) or field.is_required()
                else f"{default:g}"
                if isinstance(default, float)
                else str(default)
            )
            yield section + name, CALCULATED.get(section + name, shown)


def test_every_setting_stands_in_the_documents_with_its_default():
    written = {cells[0]: cells[1] for cells in rows("configuration.md") if cells[0] != "setting"}
    agents = {f"agents.NAME.{name}": "" for name in AgentSettings.model_fields if name != "retries"}
    agents |= dict(settings_of(AgentRetrySettings, "agents.NAME.retries."))
    options = {
        name: shown
        for agent in find_agents([point.name for point in entry_points(group=AGENTS)])
        if isinstance(agent, Handler) and agent.options_model
        for name, shown in settings_of(agent.options_model, f"agents.{agent.name}.options.")
    }
    rules = {f"routing[].{name}": shown for name, shown in settings_of(Rule)}
    inputs = {f"inputs.TOPIC.{name}": "" for name in InputSettings.model_fields}
    models = {f"models.NAME.{name}": shown for name, shown in settings_of(NamedModelSettings)}
    assert written == {**dict(settings_of(Settings)), **agents, **options, **rules, **inputs, **models}


def test_every_metric_stands_in_the_documents_with_its_labels():
    written = {tuple(cells[:3]) for cells in rows("metrics.md") if cells[0].startswith("murmura_")}
    assert written == {(metric.name, metric.kind, ", ".join(metric.labels)) for metric in METRICS}


def test_every_metric_stands_in_the_operations_too():
    (section,) = re.findall(r"^## Metrics\n(.*?)^## ", (DOCS / "operations.md").read_text(), re.DOTALL | re.MULTILINE)
    assert [metric.name for metric in METRICS if f"`{metric.name}`" not in section] == []


def test_every_module_of_the_runtime_stands_in_the_architecture():
    text = (DOCS / "architecture.md").read_text()
    folder = ROOT / "runtime"
    modules = [str(path.relative_to(folder)) for path in folder.rglob("*.py") if path.name != "__init__.py"]
    modules = [name for name in modules if not name.startswith("cli/")]
    assert [name for name in modules if f"`{name}`" not in text] == []
    assert [
        name
        for name in re.findall(r"`([\w/]+)\.py`", text)
        if not [*ROOT.glob(f"*/{name}.py"), *ROOT.glob(f"{name}.py")]
    ] == []


def test_every_topic_stands_in_the_documents_as_it_is_made():
    def kept(topic: Topic) -> str:
        return "the latest of a key" if topic.compacted else f"{(topic.retention_ms or 0) // DAY_MS} days"

    written = {tuple(cells) for cells in rows("wire.md") if len(cells) == 5 and cells[0] != "topic"}
    assert written == {(name, t.record, t.key, str(t.partitions()), kept(t)) for name, t in named_topics()}


def test_every_reason_and_header_stands_in_the_documents():
    text = (DOCS / "wire.md").read_text()
    headers = {DeadLetter.model_fields[name].alias or f"murmura_dl_{name}" for name in DeadLetter.model_fields}
    names = chain((reason.value for reason in DeadLetterReason), headers, (CUT, SHA256, BYTES), REQUEST_HEADERS)
    assert [name for name in names if f"`{name}`" not in text] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(document: Path):
    lost = []
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        name, _, anchor = target.partition("#")
        if "://" in name:
            continue
        file = document if not name else (document.parent / name)
        if not file.exists() or (anchor and anchor not in anchors(file)):
            lost.append(target)
    assert lost == []


def anchors(file: Path) -> set[str]:
    """How forges call the headings of a document."""
    headings = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_and_option_is_one_that_there_is(document: Path):
    group = typer.main.get_command(cli.build())
    wrong = [line for line in commands(document.read_text()) if not is_command(group, line)]
    assert wrong == []


def test_the_recipes_in_the_documents_can_be_read(tmp_path: Path):
    found = []
    for document in DOCUMENTS:
        for block in re.findall(r"^```yaml\n(.*?)^```$", document.read_text(), re.DOTALL | re.MULTILINE):
            if re.search("^tasks:", block, re.MULTILINE):
                path = tmp_path / "recipe.yaml"
                path.write_text(block)
                found.append(load_recipe(path))
    assert len(found) >= 1


def test_the_settings_in_the_documents_are_sound(tmp_path: Path):
    loaded = []
    for block in re.findall(r"^```yaml\n(.*?)^```$", (DOCS / "configuration.md").read_text(), re.DOTALL | re.MULTILINE):
        (tmp_path / "murmura.yaml").write_text(block)
        loaded.append(load(tmp_path / "murmura.yaml"))
    assert [(settings.group, settings.model_names) for settings in loaded] == [
        ("murmura.desk", ("",)),
        ("murmura.default", ("desk", "spam")),
    ]


def test_the_agent_in_the_readme_is_the_one_of_the_examples():
    (block,) = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    body = block[block.index("from murmura") :]
    assert body in (ROOT / "examples/e03_own_agent.py").read_text()


def test_the_figures_of_the_demos_model_are_those_of_its_manifest():
    metrics = json.loads((ROOT / "scenarios/support/model/manifest.json").read_text())["metrics"]
    written = dict(
        re.findall(r"^\| `(\w+)`, .* \| ([\d.]+) (?:%|BLEU) ", (ROOT / "README.md").read_text(), re.MULTILINE)
    )
    shares = {task: found.get("accuracy", found.get("f1")) for task, found in metrics.items()}
    percent = {task: metrics[task]["bleu"] if share is None else 100 * share for task, share in shares.items()}
    assert written == {task: f"{value:.1f}" for task, value in percent.items()}


def commands(text: str) -> Iterator[list[str]]:
    """The words behind `murmura` in code blocks, up to a comment or a pipe."""
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines() if language in {"", "sh"} else ():
            if found := re.match(r"(?:\$ )?(?:.*\| )?(?:[A-Z_]+=\S+ )*(?:\S*/)?murmura (.*)", line):
                yield re.split(r" [#|&>]", found[1])[0].split()


def is_command(group: Any, words: list[str]) -> bool:
    command = group
    while words and words[0] in getattr(command, "commands", {}):
        command, words = command.commands[words[0]], words[1:]
    known = set(chain.from_iterable(option.opts for option in command.params)) | {"--help"}
    return command is not group and all(word.split("=")[0] in known for word in words if word.startswith("--"))
