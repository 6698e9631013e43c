"""`murmura models push | release | rollback | history`: versions in the store, and the live one."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...errors import SetupError
from .. import options
from ..tables import print_table
from .steps import By, now, publish_next, read_releases, releases_topic, who

if TYPE_CHECKING:
    from ....schemas.manifest import ModelManifest
    from ....schemas.release import ReleaseState, Step
    from ...release.changes import Change
    from ...release.store import ModelStore
    from ...settings.settings import Settings

Store = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="URL",
        help="Model store: a folder, or a URL such as s3://bucket/models. Default: that of the settings.",
    ),
]
Name = Annotated[str, typer.Argument(metavar="NAME", help="The model's name.")]


def push(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A model folder or a delta folder.")],
    store: Store = None,
    config: options.Config = None,
) -> None:
    """Add a model to the store as its next version. It is not served before it is released.

    Example: [bold]murmura models push models/desk --store /srv/models[/bold]
    """
    from ...model.folders.folder import read_manifest

    name = read_manifest(folder).name
    model_store = open_store(options.settings(config), name, store)
    version = model_store.push(folder)
    typer.echo(f"{name} {version}\t{model_store.digest(name, version)}")
    typer.echo(f"make it live with `murmura models release {name} {version} --why TEXT`", err=True)


def release(
    name: Name,
    version: Annotated[int, typer.Argument(metavar="VERSION", min=1, help="A version in the store.")],
    why: Annotated[str, typer.Option("--why", metavar="TEXT", help="Reason in the history.")] = "",
    by: By = None,
    again: Annotated[
        bool, typer.Option("--again", help="Release the current version again, for processes that refused it.")
    ] = False,
    store: Store = None,
    config: options.Config = None,
    bootstrap: options.Bootstrap = None,
) -> None:
    """Make every process serve a version of the store. They swap without interruption.

    Example: [bold]murmura models release desk 3 --why "knows the new product" --store /srv/models[/bold]

    Again, for processes that refused it: [bold]murmura models release desk 3 --again[/bold]
    """
    from ...release.changes import make_release

    settings = options.settings(config, bootstrap=bootstrap)
    model_store = open_store(settings, name, store)
    change = make_release(model_store, name, version, by=who(by), why=why, at=now(), again=again)
    _publish(settings, name, change)


def rollback(
    name: Name,
    why: Annotated[str, typer.Option("--why", metavar="TEXT", help="Reason in the history.")] = "",
    by: By = None,
    store: Store = None,
    config: options.Config = None,
    bootstrap: options.Bootstrap = None,
) -> None:
    """Make the version before the current one live again. Running it twice goes back two versions.

    When a store is set, checks that it still has that version.

    Example: [bold]murmura models rollback desk --why "too many refunds"[/bold]
    """
    from ...release.changes import make_rollback

    settings = options.settings(config, bootstrap=bootstrap)
    _publish(settings, name, make_rollback(settings, name, by=who(by), why=why, at=now(), url=store))


def history(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="A model. Default: the current version of each.", show_default=False),
    ] = None,
    config: options.Config = None,
    bootstrap: options.Bootstrap = None,
) -> None:
    """Show the releases with time, author and reason, the newest last.

    Example: [bold]murmura models history desk[/bold]
    """
    settings = options.settings(config, bootstrap=bootstrap)
    states = read_releases(settings)
    if name is None:
        if not states:
            raise SetupError(f"nothing has been released yet in {releases_topic(settings)}")
        steps = [[state.name, *_steps(state)[-1]] for state in states.values()]
        print_table(["model", "generation", "version", "at", "by", "why"], steps)
    elif name in states:
        print_table(["generation", "version", "at", "by", "why"], _steps(states[name]))
    else:
        others = f"; there are {', '.join(sorted(states))}" if states else ""
        raise SetupError(f"{name} has no release in {releases_topic(settings)}{others}")


def stored_manifest(url: str, model: str) -> "ModelManifest":
    """Return the manifest of `NAME/VERSION` in a store; for `NAME`, that of the newest version."""
    from ...release.store import ModelStore

    store = ModelStore(url)
    name, slash, number = model.partition("/")
    if slash and not (number.isascii() and number.isdigit()):
        raise SetupError(f"expected NAME/VERSION such as desk/3, found {model!r}")
    versions = [int(number)] if slash else store.versions(name)
    if not versions:
        raise SetupError(
            f"model store {store.address} has no version of {name}; it has {', '.join(store.names()) or 'none'}"
        )
    return store.describe(name, versions[-1])


def open_store(settings: "Settings", name: str, url: str | None) -> "ModelStore":
    """Return the store of a model."""
    from ...release import changes

    return changes.open_store(settings, name, url)


def _publish(settings: "Settings", name: str, change: "Change") -> None:
    """Publish the state that `change` returns for the current one; None: nothing to do."""
    before, new = publish_next(settings, name, change)
    if new is None:
        typer.echo(f"{name} {before.current.version if before else ''} is current already")
        typer.echo("--again releases it once more, for processes that refused it", err=True)
        return
    was = f", before: {before.current.version}" if before else ""
    typer.echo(f"{name} {new.current.version} is current (generation {new.generation}{was})")
    if before is not None and before.candidate is not None:
        typer.echo(
            f"the {'experiment' if before.candidate.experiment else 'shadow'} with {before.candidate.version} has ended",
            err=True,
        )


def _steps(state: "ReleaseState") -> list[list[str]]:
    from ...release.experiment_events import describe_step

    def version(step: "Step") -> str:
        if (tried := describe_step(step)) is not None:
            return f"{step.version} ({tried})"
        if step.generated_replies is not None:
            return f"{step.version} (generated replies {step.generated_replies})"
        return str(step.version) if step.restores is None else f"{step.version} (back to generation {step.restores})"

    return [[str(s.generation), version(s), f"{s.at:%Y-%m-%d %H:%M:%SZ}", s.by, s.why] for s in state.history] or [
        [str(state.generation), str(state.current.version), "", "", ""]
    ]
