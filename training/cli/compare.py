"""`murmura compare`. Found by entry point."""

from pathlib import Path
from typing import Annotated

import typer

from .needs import need_training


def compare(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="A model folder or a delta folder.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="Another one.")],
    data: Annotated[Path, typer.Option("--data", metavar="FOLDER", help="Where the recipe's data lies.")] = Path(),
    recipe: Annotated[
        Path | None, typer.Option("--recipe", metavar="FILE", help="Its test parts are compared. Default: that of OLD.")
    ] = None,
    base: Annotated[
        Path | None,
        typer.Option("--base", metavar="FOLDER", help="The base checkpoint of a delta, when it is a folder."),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Worse is also what is not proven to be held.")] = False,
) -> None:
    """Compare two models on the same test rows, with the statistics of the retraining gate.

    Example: [bold]murmura compare models/joint models/joint-2 --data data[/bold]

    Exit code 1: a set is worse.
    """
    need_training()
    from ..gate.compare_folders import compare_folders, describe_comparison

    result = compare_folders(old, new, data, recipe=recipe, base=base, strict=strict)
    typer.echo(describe_comparison(result, old, new), nl=False)
    if not result.nothing_lost:
        raise typer.Exit(1)
