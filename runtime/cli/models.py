"""`murmura models`: list, show and verify models in folders and in the store, and assemble one from a delta."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options
from .experiments import commands as experiments
from .releases import commands as cli_releases
from .tables import print_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...schemas.manifest import ModelManifest, TaskSpec

models_app = typer.Typer(
    help="Show models, push them to the store, release them, and roll back.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="A model folder or a delta folder.")]


@models_app.command("list")
def list_models(
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="DIR", help="The directory of model folders. Default: models.", show_default=False),
    ] = None,
    store: cli_releases.Store = None,
    config: options.Config = None,
) -> None:
    """List the model folders in a directory, or the versions in a model store.

    Example: [bold]murmura models list models[/bold]

    The versions of a store: [bold]murmura models list --store /srv/models[/bold]
    """
    stores = [store] if store is not None else options.settings(config).stores if folder is None else []
    if stores:
        print_table(["model", "version", "form", "tasks", "size", "digest"], _stored_rows(stores))
    else:
        print_table(["folder", "model", "form", "tasks", "size"], _folder_rows(folder or Path("models")))


def _folder_rows(folder: Path) -> list[list[str]]:
    from ..errors import ModelRefused, SetupError
    from ..model.folders.folder import read_manifest

    if not folder.is_dir():
        raise SetupError(f"{folder} is no directory; name the one that holds model folders")
    rows = []
    for path in sorted(p.parent for p in folder.glob("*/manifest.json")):
        try:
            manifest = read_manifest(path)
        except ModelRefused as error:
            rows.append([path.name, "", "refused", str(error), ""])
        else:
            rows.append([path.name, f"{manifest.name} {manifest.version}", *_summary(manifest)])
    if not rows:
        raise SetupError(f"{folder} holds no model folder; `murmura train` makes one")
    return rows


def _stored_rows(urls: "Sequence[str]") -> list[list[str]]:
    from ..errors import ModelRefused, SetupError
    from ..release.store import ModelStore

    stores, rows = [ModelStore(url) for url in urls], []
    for store in stores:
        for name, version in [(model, number) for model in store.names() for number in store.versions(model)]:
            try:
                rows.append([name, str(version), *_summary(store.describe(name, version)), store.digest(name, version)])
            except ModelRefused as error:
                rows.append([name, str(version), "refused", str(error), "", ""])
    if not rows:
        addresses = ", ".join(str(store.address) for store in stores)
        raise SetupError(f"model store {addresses} holds no version; `murmura models push FOLDER` adds one")
    return rows


def _summary(manifest: "ModelManifest") -> list[str]:
    form = "delta" if manifest.is_delta else "model"
    tasks = ", ".join(task.name for task in manifest.tasks)
    size = sum(f.bytes for f in manifest.files)
    return [form, tasks, f"{size / 1e6:.1f} MB"]


@models_app.command()
def show(
    model: Annotated[
        str, typer.Argument(metavar="FOLDER|NAME/VERSION", help="A model or delta folder; with --store a version.")
    ],
    store: cli_releases.Store = None,
) -> None:
    """Show what a model answers: its encoder, tasks, labels, thresholds and measured figures.

    Example: [bold]murmura models show models/desk[/bold]

    A version in a store: [bold]murmura models show desk/3 --store /srv/models[/bold]
    """
    from ..model.folders.folder import read_manifest

    manifest = read_manifest(Path(model)) if store is None else cli_releases.stored_manifest(store, model)
    encoder, base = manifest.encoder, manifest.base
    facts = [
        ["model", f"{manifest.name} {manifest.version}"],
        [
            "encoder",
            f"{encoder.source}, {encoder.layers} layers x {encoder.hidden_size}, SHA-256 {encoder.sha256[:12]}...",
        ],
        ["limit", f"{manifest.limits.max_tokens} tokens; longer texts are truncated"],
    ]
    if base is not None:
        facts.append(["base", f"{base.source}, SHA-256 {base.sha256[:12]}...; assembled on first use"])
    print_table(["", ""], facts)
    print_table(["task", "kind", "labels", "thresholds", "measured"], [_task_row(manifest, t) for t in manifest.tasks])
    print_table(["file", "role", "bytes"], [[f.path, f.role, f"{f.bytes:,}"] for f in manifest.files])


def _task_row(manifest: "ModelManifest", task: "TaskSpec") -> list[str]:
    shown = ", ".join(task.labels[:6]) + (", ..." if len(task.labels) > 6 else "")
    limits = task.thresholds.model_dump(exclude_defaults=True)
    figures = {k: v for k, v in manifest.metrics.get(task.name, {}).items() if isinstance(v, int | float)}
    return [
        task.name,
        task.kind,
        f"{len(task.labels)}: {shown}",
        ", ".join(f"{name} {value}" for name, value in limits.items()) or "-",
        ", ".join(f"{name} {value:.4g}" for name, value in figures.items()) or "-",
    ]


@models_app.command()
def verify(folder: Folder) -> None:
    """Check every file of a folder against its manifest, then load the model and reproduce its reference sample.

    Exits with code 2 when a check fails. For a delta only the files are checked.

    Example: [bold]murmura models verify models/desk[/bold]
    """
    from ..model.folders.folder import check_folder, inspect_files, read_manifest
    from ..model.model import Model

    manifest = read_manifest(folder)
    checks = inspect_files(folder, manifest)
    print_table(
        ["file", "role", "found"], [[c.path, c.role, c.problem or ("absent" if c.absent else "ok")] for c in checks]
    )
    check_folder(folder)
    if not manifest.is_delta:
        form = "ragged" if manifest.path_of("graph:ragged") else "padded"
        model = Model.load(folder, device="cpu", graph=form)
        sample = "reproduced" if manifest.path_of("reference") else "there is none"
        typer.echo(f"loads on {model.device}; reference sample: {sample}")
    typer.echo(f"{folder}: ok")


@models_app.command()
def assemble(
    delta: Annotated[Path, typer.Argument(metavar="DELTA", help="A delta folder.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The model folder to create; must not exist.")],
    base: Annotated[
        Path | None, typer.Option("--base", metavar="FOLDER", help="The folder of the base's model.safetensors.")
    ] = None,
) -> None:
    """Assemble a model folder from a delta and its base checkpoint. Needs no torch.

    The base is searched in installed packages and on the hub, or taken from --base. Its SHA-256 must match the delta's.

    Example: [bold]murmura models assemble scenarios/support/model models/desk[/bold]
    """
    from ..model.deltas import delta as deltas

    manifest = deltas.assemble(delta, base, out)
    typer.echo(f"{out}: {manifest.name} {manifest.version}, its reference sample reproduced")


@models_app.command()
def card(
    folder: Folder,
    license_: Annotated[str, typer.Option("--license", help="Of the model, as hubs name it: apache-2.0.")] = "",
    language: Annotated[list[str], typer.Option("--language", help="Of the texts: en. May be repeated.")] = [],  # noqa: B006
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Default: README.md in the folder.")] = None,
) -> None:
    """Write the README.md of a hub repository: front matter with the figures as model-index, tasks, use, limits, attribution.

    A README.md that this command did not write is not replaced. Neither license nor language is assumed.

    Example: [bold]murmura models card models/desk --license apache-2.0 --language en[/bold]
    """
    from ..errors import SetupError
    from ..model.folders.card import MARK, write_card
    from ..model.folders.folder import read_manifest
    from .card_facts import read_facts

    manifest, target = read_manifest(folder), out or folder / "README.md"
    if target.is_file() and MARK not in target.read_text(encoding="utf-8", errors="replace"):
        raise SetupError(f"{target}: not written by this command, so it stays; choose another --out or remove it")
    facts = read_facts(folder, manifest, license_=license_, languages=language)
    target.write_text(write_card(manifest, facts), encoding="utf-8")
    typer.echo(f"card: {target}")
    if not license_:
        typer.echo("note: no --license is given; hubs show none")
    if not manifest.metrics:
        typer.echo("note: the model was not evaluated, so the card has no figures; see murmura evaluate")


for command in (
    cli_releases.push,
    cli_releases.release,
    cli_releases.rollback,
    cli_releases.history,
    experiments.canary,
    experiments.ab,
    experiments.shadow,
    experiments.promote,
    experiments.stop,
):
    models_app.command()(command)
