"""`murmura experiment status | report`: what runs, and what the sums say so far."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...errors import SetupError
from .. import options
from ..releases.steps import read_releases, releases_topic
from ..tables import print_table
from .kept import read_kept
from .shadow import write_shadow_report

if TYPE_CHECKING:
    from ....schemas.experiment_state import ExperimentState
    from ....schemas.release import Candidate, ReleaseState
    from ...settings.settings import Settings

experiment_app = typer.Typer(
    help="Show experiments: which version runs beside the current one, and how it does.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)


@experiment_app.command()
def status(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="A model. Default: all that have an experiment.", show_default=False),
    ] = None,
    config: options.Config = None,
    bootstrap: options.Bootstrap = None,
) -> None:
    """Show what runs beside the current version: share, unit, since when, and what the sums say so far.

    Example: [bold]murmura experiment status desk[/bold]
    """
    settings = options.settings(config, bootstrap=bootstrap)
    states = read_releases(settings)
    if name is None:
        running = [_row(state, state.candidate) for state in states.values() if state.candidate is not None]
        if not running:
            typer.echo("no experiment runs", err=True)
        print_table(["model", "current", "candidate", "experiment", "share", "unit", "since"], running)
        return
    if name not in states:
        raise SetupError(f"{name} has no release in {releases_topic(settings)}")
    _print_model(settings, states[name])


@experiment_app.command()
def report(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A model.")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Markdown. Default: standard output.")
    ] = None,
    experiment: Annotated[
        str | None,
        typer.Option("--experiment", metavar="ID", help="Default: the model's latest one.", show_default=False),
    ] = None,
    shadow: Annotated[
        int | None,
        typer.Option(
            "--shadow",
            metavar="VERSION",
            min=1,
            help="What was found about a version that is or was only compared, in the last seven days.",
            show_default=False,
        ),
    ] = None,
    config: options.Config = None,
    bootstrap: options.Bootstrap = None,
) -> None:
    """Write what an experiment has found, also after its end: effects with intervals, by task, counts and decisions.

    Example: [bold]murmura experiment report desk --out report.md[/bold]

    Of a shadow: [bold]murmura experiment report desk --shadow 4[/bold]
    """
    settings = options.settings(config, bootstrap=bootstrap)
    if shadow is not None:
        _write_out(write_shadow_report(settings, name, shadow), out)
        return
    _write_out(_write_experiment_report(settings, name, experiment), out)


def _write_experiment_report(settings: "Settings", name: str, experiment: str | None) -> str:
    from ...experiments.report import report_experiment
    from .markdown import write_report

    kept = {id_: state for id_, state in read_kept(settings).items() if state.model == name}
    if not kept:
        raise SetupError(
            f"{name} has no experiment in {settings.prefix}.experiments; it has one once its first records are read"
        )
    if experiment is not None and experiment not in kept:
        raise SetupError(f"{name} has no experiment {experiment[:60]!r}; it has {', '.join(list(kept)[-5:])}")
    return write_report(report_experiment(kept[list(kept)[-1] if experiment is None else experiment]))


def _write_out(text: str, out: Path | None) -> None:
    if out is None:
        typer.echo(text, nl=False)
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SetupError(f"--out {out}: {error.strerror}") from None
    typer.echo(f"report: {out}")


def _row(state: "ReleaseState", candidate: "Candidate") -> list[str]:
    from ...release.experiment_events import format_share

    experiment = candidate.experiment
    since = experiment.started if experiment else candidate.since
    return [
        state.name,
        str(state.current.version),
        str(candidate.version),
        experiment.id if experiment else "shadow",
        format_share(candidate.share or candidate.shadow or 0.0),
        experiment.unit if experiment else "request",
        f"{since:%Y-%m-%d %H:%M:%SZ}" if since else "",
    ]


def _print_model(settings: "Settings", state: "ReleaseState") -> None:
    from ...experiments.report import report_experiment
    from .markdown import MEASURE_COLUMNS, measure_cells, summary_rows

    candidate = state.candidate
    if candidate is None:
        typer.echo(f"{state.name} {state.current.version} answers all: no experiment runs")
        ended = [kept for kept in _read_kept(settings).values() if kept.model == state.name]
        if ended:
            typer.echo(f"its latest was {ended[-1].experiment.id}: `murmura experiment report {state.name}`")
        return
    kept = _read_kept(settings).get(candidate.experiment.id) if candidate.experiment else None
    if kept is None:
        names = ["model", "current", "candidate", "experiment", "share", "unit", "since"]
        print_table(["", ""], [list(pair) for pair in zip(names, _row(state, candidate), strict=True)])
        if candidate.experiment is not None:
            typer.echo("no sums yet: the first come with the records of a serving process", err=True)
        return
    # The release state is the newer of both.
    found = report_experiment(kept.model_copy(update={"experiment": candidate.experiment}))
    print_table(["", ""], [["experiment", found.experiment.id], *summary_rows(found)])
    print_table(MEASURE_COLUMNS, measure_cells((*found.rows, *found.by_task)))


def _read_kept(settings: "Settings") -> "dict[str, ExperimentState]":
    try:
        return read_kept(settings)
    except SetupError as error:
        typer.echo(f"only the release state is shown: {error}", err=True)
        return {}
