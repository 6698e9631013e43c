"""`murmura transfer`. Found by entry point; torch is imported when it is called."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...runtime.errors import SetupError
from ..recipe.keys.seeds import MOST_SEED
from .needs import need_training

if TYPE_CHECKING:
    from ..transfer.results import Result


def transfer(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe of two tasks or more.")],
    more: Annotated[list[str] | None, typer.Argument(hidden=True)] = None,
    data: Annotated[Path, typer.Option("--data", metavar="FOLDER", help="Where the recipe's data lies.")] = Path(),
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FOLDER", help="Trainings and results. Default: models/NAME-transfer."),
    ] = None,
    seeds: Annotated[
        list[str], typer.Option("--seeds", metavar="N ...", help="Of the trainings; 0 1 2, say.", show_default="0 1 2")
    ] = ["0 1 2"],  # noqa: B006  (typer reads it, nobody changes it)
    keep_models: Annotated[
        bool, typer.Option("--keep-models", help="Keep the model of each training, as a teacher, say: TRAINING/model.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Say which trainings are to be taken, and roughly how long; train nothing."),
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bars.")] = False,
) -> None:
    """Train each task alone and all jointly, with the same rows for each, and say what tasks gain and lose together.

    Example: [bold]murmura transfer recipes/joint.yaml --data data --seeds 0 1 2[/bold]

    The same command goes on where it was killed; trainings that have ended are not taken again. Writes transfer.html, transfer.md and transfer.json.
    """
    need_training()
    from ..recipe.recipe import load_recipe
    from ..transfer.run import PAGE, describe_plan, open_study, run_study

    out = out or Path("models") / f"{load_recipe(recipe).name}-transfer"
    study = open_study(recipe, data, out, _read_seeds([*" ".join(seeds).replace(",", " ").split(), *(more or [])]))
    if dry_run:
        for line in describe_plan(study):
            typer.echo(line)
        return
    result = run_study(study, quiet=quiet, say=typer.echo, keep_models=keep_models)
    _print(result)
    typer.echo(f"report: {out / PAGE}")


def _read_seeds(given: list[str]) -> list[int]:
    """Return the seeds: what follows the first one on the command line are further ones."""
    if wrong := next((each for each in given if not _is_seed(each)), None):
        raise SetupError(f"--seeds: expected whole numbers from 0 to {MOST_SEED}, found {wrong[:60]!r}")
    return [int(each) for each in given]


def _is_seed(given: str) -> bool:
    return given.isdecimal() and len(given) <= len(str(MOST_SEED)) and int(given) <= MOST_SEED


def _print(result: "Result") -> None:
    from ...runtime.cli.tables import print_table
    from ..transfer.results import COSTS, DIFFERENCES, cost_rows, difference_rows, summary

    print_table(DIFFERENCES, difference_rows(result))
    for each in result.affinities:
        typer.echo(f"cosine between the gradients of {each.one} and {each.other}: {each.mean:+.3f}")
    print_table(COSTS, cost_rows(result))
    for line in summary(result):
        typer.echo(line)
