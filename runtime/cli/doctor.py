"""`murmura doctor`."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, NamedTuple

import typer

from ..errors import SetupError
from . import options

if TYPE_CHECKING:
    from ..model.model import Model
    from ..settings.settings import Settings


class Finding(NamedTuple):
    about: str
    ok: bool | None
    """None: unknown or optional."""
    what: str
    """What was found; when not ok, with what to do."""


def doctor(
    agents: options.Agents = None,
    config: options.Config = None,
    bootstrap: options.Bootstrap = None,
    model: options.Model = None,
    device: options.Device = None,
) -> None:
    """Check everything that serving needs, and say what to do about each problem.

    Checks the installation, the settings, the model and its device, the agents, the broker, the topics and the
    permissions on them.

    Exits with code 1 when a check fails.

    Example: [bold]murmura doctor --bootstrap localhost:9092 --model models/desk[/bold]
    """
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    sign = {True: ("ok   ", "green"), False: ("FAIL ", "bold red"), None: ("--   ", "dim")}
    failed = False
    for finding in examine(agents or [], config, bootstrap, model, device):
        word, style = sign[finding.ok]
        console.print(Text.assemble((word, style), (f"{finding.about:<10}", "bold"), finding.what))
        failed |= finding.ok is False
    if failed:
        raise typer.Exit(1)


def examine(
    agents: list[str],
    config: options.Config = None,
    bootstrap: options.Bootstrap = None,
    model: options.Model = None,
    device: options.Device = None,
) -> Iterator[Finding]:
    """Yield the findings in order. Checks that depend on a failed one are skipped."""
    yield from _installed()
    try:
        settings = options.settings(config, bootstrap=bootstrap, model=model, device=device)
    except SetupError as error:
        yield Finding("settings", False, str(error))
        return
    yield Finding("settings", True, f"group {settings.group}, health and metrics on {settings.http}")
    loaded: dict[str, Model] = {}
    yield from _models(settings, loaded)
    yield from _report_errors("agents", lambda: _agents(settings, agents, loaded))
    yield from _report_errors("broker", lambda: _broker(settings, agents))


def _report_errors(about: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    try:
        yield from check()
    except SetupError as error:
        yield Finding(about, False, str(error))


def _installed() -> Iterator[Finding]:
    from ..model.onnx_session import check_installation

    yield Finding("murmura", True, _version("murmura") or "not installed as a package")
    try:
        check_installation()
        name = "onnxruntime-gpu" if _version("onnxruntime-gpu") else "onnxruntime"
        yield Finding("inference", True, f"{name} {_version(name)}")
    except SetupError as error:
        yield Finding("inference", False, str(error))
    for extra, distribution in (("demo", "confluent-kafka"), ("training", "torch")):
        found = _version(distribution)
        what = f"{distribution} {found}" if found else f"not installed; pip install 'murmura[{extra}]' when you need it"
        yield Finding(extra, True if found else None, what)


def _models(settings: "Settings", loaded: "dict[str, Model]") -> Iterator[Finding]:
    for name in settings.model_names:
        yield from _model(settings.for_model(name), name, loaded)


def _model(settings: "Settings", name: str, loaded: "dict[str, Model]") -> Iterator[Finding]:
    from ..model.deltas.assembled import resolve
    from ..model.model import Model

    folder = settings.model.folder
    if folder is None:
        yield Finding("model", None, "none named; --model FOLDER looks at one")
        return
    try:
        model = Model.load(resolve(folder), device=settings.model.device, graph=settings.model.graph)
    except SetupError as error:
        yield Finding("model", False, str(error))
        return
    loaded[name] = model
    manifest = model.manifest
    tasks = ", ".join(f"{task.name} ({task.kind}, {len(task.labels)})" for task in manifest.tasks)
    yield Finding("model", True, f"{manifest.name} version {manifest.version}: {tasks}")
    model.predict(["is anybody there?"])
    yield Finding("device", True, f"answers on {model.device}")


def _agents(settings: "Settings", names: list[str], loaded: "dict[str, Model]") -> Iterator[Finding]:
    from ..agent.agent import Agent
    from ..agent.discovery import find_agents
    from ..agent.model_choice import assign_models
    from ..agent.routes import configure_agents, make_routes

    agents = configure_agents(settings, find_agents(names, settings.prefix))
    assigned = assign_models(settings, agents)
    for name, model in loaded.items():
        asking = [agent for agent in agents if isinstance(agent, Agent) and assigned[agent.name] == name]
        make_routes(asking, model.manifest, settings.app)
    for agent in agents:
        yield Finding(
            "agent", True, f"{agent.name}: {', '.join(agent.topics)} -> {', '.join(agent.outputs) or 'other topics'}"
        )


def _broker(settings: "Settings", names: list[str]) -> Iterator[Finding]:
    from ..kafka.topics import fetch_partition_counts
    from .records.topics import wanted_topics

    present = asyncio.run(fetch_partition_counts(settings.kafka))
    yield Finding("broker", True, f"{settings.kafka.bootstrap_servers} answers and has {len(present)} topics")
    missing = sorted(wanted_topics(settings, names).keys() - present.keys())
    if missing:
        command = " ".join(["murmura topics --create", *names])
        yield Finding(
            "topics",
            False,
            f"missing: {', '.join(missing)}; make them with `{command}`, before an upgrade too: first the topics, "
            "then the processes",
        )
    else:
        yield Finding("topics", True, "all there")
    yield from _permissions(settings, names, present)


def _permissions(settings: "Settings", names: list[str], present: "Mapping[str, int]") -> Iterator[Finding]:
    """Fail for missing permissions of `serve`; those of other commands may belong to another user."""
    from ..agent.discovery import find_agents
    from ..agent.routes import configure_agents
    from ..kafka.permissions import PermissionsUnknown, lacking
    from .required_permissions import needs

    trials = _find_trials(settings, present)
    agents = configure_agents(settings, find_agents(names, settings.prefix))
    wanted = needs(settings, agents, has_experiment="experiment" in trials, has_shadow="shadow" in trials)
    try:
        missing = asyncio.run(lacking(settings.kafka, wanted, present))
    except PermissionsUnknown:
        yield Finding("rights", None, "this broker does not say what a user may do")
        return
    for command in dict.fromkeys(need.command for need in wanted):
        absent = [need for need in missing if need.command == command]
        if not absent:
            yield Finding("rights", True, f"{command:<8} has all that it needs on what is there")
        for need in absent:
            serves = False if command == "serve" else None
            yield Finding("rights", serves, f"{command:<8} lacks {need.operation:<8} on {need.kind} {need.name}")


def _find_trials(settings: "Settings", present: "Mapping[str, int]") -> set[str]:
    """Return what runs on the models: `experiment`, `shadow`; nothing where releases cannot be read."""
    from ..release.states import read_states

    topic = f"{settings.prefix}.models"
    if topic not in present or not settings.has_store:
        return set()
    try:
        states = asyncio.run(read_states(settings.kafka, topic))
    except SetupError:  # what is missing to read them is a finding of its own
        return set()
    names = {settings.for_model(name).model.name for name in settings.model_names}
    candidates = [state.candidate for name, state in states.items() if name in names and state.candidate is not None]
    return {"shadow" if candidate.shadow is not None else "experiment" for candidate in candidates}


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
