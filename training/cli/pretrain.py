"""`murmura pretrain`. Found by entry point; torch is imported when it is called."""

from pathlib import Path
from typing import Annotated

import typer

from ...runtime.errors import SetupError
from ..recipe.keys.seeds import MOST_SEED
from .needs import need_training


def pretrain(
    recipe: Annotated[
        Path, typer.Argument(metavar="RECIPE", help="A recipe with the key `pretrain`; it needs no tasks.")
    ],
    data: Annotated[Path, typer.Option("--data", metavar="FOLDER", help="Where the texts lie.")] = Path(),
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FOLDER", help="The encoder's folder. Default: models/NAME-encoder.")
    ] = None,
    run: Annotated[
        Path | None, typer.Option("--run", metavar="FOLDER", help="State and TensorBoard. Default: OUT.run.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, max=MOST_SEED, help="Instead of the recipe's.")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Read and count the texts, name the mistake, and train nothing.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with an interrupted pre-training; begins one where nothing was saved."),
    ] = False,
) -> None:
    """Let an encoder learn from texts without labels; any recipe starts from the result by `encoder: FOLDER`.

    Example: [bold]murmura pretrain bank.yaml --data data --out models/bank-encoder[/bold]

    As a stage of `murmura train` it runs by itself where a recipe has the key `pretrain`. Watch with [bold]tensorboard --logdir models/bank-encoder.run[/bold].
    """
    need_training()
    from ..pretrain.encoder_folder import find_problem
    from ..pretrain.loop import pretrain as do
    from ..pretrain.stage import check_texts, read_tasks
    from ..recipe.idle.keys import describe_unread_keys, refuse_idle_pretraining
    from ..recipe.recipe import load_pretraining
    from ..run_folders.overlaps import find_run_inside, find_run_overlaps
    from ..run_folders.run_folder import RunFolder, count_steps, run_beside

    read = load_pretraining(recipe)
    refuse_idle_pretraining(read)
    for line in describe_unread_keys(read):
        typer.echo(line)
    read = read if seed is None else read.model_copy(update={"seed": seed})
    out = out or Path("models") / f"{read.name}-encoder"
    run = run or run_beside(out)
    problems = [find_problem(out), *find_run_inside(run, out), *find_run_overlaps(read, run)]
    problems += [] if resume else RunFolder(run).find_problems()
    for problem in filter(None, problems):
        raise SetupError(problem)
    if check:
        for line in check_texts(read, data):
            typer.echo(line)
        typer.echo("checked: it can be pre-trained")
        return
    record = do(
        read, recipe, data, run, out, tasks=read_tasks(read, data), resume=resume, quiet=quiet, print_line=typer.echo
    )
    losses = ", ".join(f"{name} {record.first_loss[name]:.3f} to {loss:.3f}" for name, loss in record.last_loss.items())
    typer.echo(f"pre-trained {count_steps(record.steps)} in {record.cpu_seconds:.0f} CPU-seconds; loss of {losses}")
    typer.echo(f"start from it: `encoder: {out}` in a recipe")
