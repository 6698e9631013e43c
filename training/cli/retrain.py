"""`murmura retrain`. Found by entry point; torch is imported when it is called."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from .needs import need_training

if TYPE_CHECKING:
    from ..retrain.run import Retrained

TOO_LITTLE_EXIT_CODE: Final = 3


def retrain(
    job: Annotated[Path, typer.Argument(metavar="JOB", help="The job, a YAML file.")],
    work: Annotated[
        Path | None, typer.Option("--work", metavar="FOLDER", help="Where the stages lie. Default: JOB.run beside it.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything and say what would be done.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
) -> None:
    """Teach the current model what people corrected; release it when it has forgotten nothing.

    Example: [bold]murmura retrain jobs/desk.yaml[/bold]

    Interrupted, the same command goes on; finished, it says so. For each run of a schedule name a folder: [bold]--work runs/$(date +%F)[/bold].

    Exit code 1: the gate refused, and the last line says why and where the report lies. 2: something to put right. 3: not enough feedback yet.
    """
    need_training()
    from ..mix.corrections import TooLittleFeedback

    try:
        if dry_run:
            _preview(job)
        else:
            _retrain(job, work or job.with_suffix(".run"), quiet=quiet)
    except TooLittleFeedback as error:
        typer.echo(f"murmura: {error}", err=True)
        raise typer.Exit(TOO_LITTLE_EXIT_CODE) from None


def _preview(job: Path) -> None:
    from ..retrain.preview import preview

    for line in preview(job):
        typer.echo(line)


def _retrain(job: Path, work: Path, *, quiet: bool) -> None:
    from ..retrain.run import retrain as do

    begins = _begins if sys.stdout.isatty() and not quiet else lambda stage: None
    done = do(job, work, quiet=quiet, say=typer.echo, begins=begins)
    for each in done.gate.comparisons:
        found = each.found
        typer.echo(
            f"{each.task} ({each.set}): {100 * found.current:.1f} -> {100 * found.candidate:.1f} "
            f"[{100 * found.low:+.1f}, {100 * found.high:+.1f}] {each.verdict.value}"
        )
    typer.echo(f"report: {done.report}")
    if done.before:
        typer.echo(_finished(done))


def _begins(stage: str) -> None:
    typer.echo(f"{stage} ...")


def _finished(done: "Retrained") -> str:
    what = "nothing was pushed" if done.version is None else f"it pushed {done.name} {done.version}"
    released = f" and released it (generation {done.generation})" if done.generation else ""
    return f"this job was finished before: {what}{released}; to run it anew, name another folder with --work"
