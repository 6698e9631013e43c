"""`murmura train`, `murmura export`, `murmura evaluate`. Found by entry point; torch is imported when one is called."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from ...runtime.errors import SetupError
from ..recipe.keys.seeds import MOST_SEED
from .needs import need_training

if TYPE_CHECKING:
    from ..evaluate.evaluate import Scores
    from ..recipe.recipe import Recipe

REFUSED_EXIT_CODE: Final = 2
"""As for every mistake in what a command is given."""


class Graph(StrEnum):
    ragged = "ragged"
    padded = "padded"


Data = Annotated[Path, typer.Option("--data", metavar="FOLDER", help="Where the recipe's data lies.")]
Graphs = Annotated[
    list[Graph], typer.Option("--graphs", help="Forms of the graph; give it twice for both. Serving uses ragged.")
]
Texts = Annotated[
    bool,
    typer.Option(
        "--texts/--no-texts", help="Whether the run folder gets a report and doubted labels with texts of rows."
    ),
]
Delta = Annotated[bool, typer.Option("--delta", help="Write a delta: the difference from the base, 1 to 4 MB.")]


def train(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="The recipe, a YAML file.")],
    data: Data = Path(),
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FOLDER", help="The model folder. Default: models/NAME.")
    ] = None,
    run: Annotated[
        Path | None, typer.Option("--run", metavar="FOLDER", help="Checkpoint and TensorBoard. Default: OUT.run.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, max=MOST_SEED, help="Instead of the recipe's.")] = None,
    add_to: Annotated[
        Path | None,
        typer.Option(
            "--add-to",
            metavar="FOLDER",
            help="Train only the tasks that this model lacks, on its encoder as it is; its own tasks stay as they are.",
        ),
    ] = None,
    graphs: Graphs = [Graph.ragged],  # noqa: B006  (typer reads it, nobody changes it)
    delta: Delta = False,
    check: Annotated[
        bool, typer.Option("--check", help="Read and count the data, name every mistake, and train nothing.")
    ] = False,
    texts: Texts = True,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted run; begins one where nothing was saved.")
    ] = False,
    finish: Annotated[
        bool, typer.Option("--finish", help="Export an interrupted run as far as it got; takes no more steps.")
    ] = False,
) -> None:
    """Train, export and evaluate a model as a recipe says.

    Example: [bold]murmura train recipes/joint.yaml --data data --out models/joint[/bold]

    Before a long run, or on a build server: [bold]murmura train recipes/joint.yaml --data data --check[/bold] prints what would be learned, a line a task. Exit code 0: it can be trained; notes do not count. 2: it cannot, and each mistake is a line on stderr.

    Your own CSV with the columns text and label needs a recipe of four lines (see docs/training.md). Watch with [bold]tensorboard --logdir models/joint.run[/bold].
    """
    need_training()
    from ..export.export import find_problems
    from ..fit.finish.add_vectors import lacks_vectors_alone
    from ..fit.finish.kept_tasks import add_tasks
    from ..recipe.idle.frozen_keys import describe_frozen_keys
    from ..recipe.recipe import load_recipe
    from ..run_folders.overlaps import find_overlaps, find_run_inside, find_run_overlaps
    from ..run_folders.run_folder import RunFolder, run_beside

    read = load_recipe(recipe)
    for line in describe_frozen_keys(read, adds=add_to is not None) if check else ():
        typer.echo(line)
    if add_to is not None and not lacks_vectors_alone(read, add_to):
        read = add_tasks(read, add_to)
    out = out or Path("models") / read.name
    run = run or run_beside(out)
    forms, is_smaller = [graph.value for graph in graphs], read.smaller is not None
    problems = [*find_overlaps(out, "--out", read.teacher_folders, "a teacher"), *find_run_overlaps(read, run)]
    problems += find_problems(out, read.encoder.source, forms, delta=delta, is_smaller=is_smaller)
    problems += find_run_inside(run, out)
    if not resume and not finish:
        problems += RunFolder(run).find_problems()
    if check:
        _check(read, data, problems)
        return
    for problem in problems:
        raise SetupError(problem)
    from ..compute.device import is_first_process
    from ..fit.loop import fit
    from ..report.decisions import describe_decisions
    from ..run_folders.run_folder import count_steps

    record = fit(
        recipe,
        data,
        run,
        seed=seed,
        add_to=add_to,
        quiet=quiet,
        resume=resume,
        finish=finish,
        texts=texts,
        print_line=typer.echo,
    )
    if not is_first_process():
        return
    typer.echo(
        f"trained {count_steps(record.steps)} in {record.cpu_seconds:.0f} CPU-seconds; best at {record.best_step}: {run}"
    )
    for spec in record.tasks:
        typer.echo(f"{spec.name}: {describe_decisions(spec)}")
    _export(run, out, graphs, delta)
    if any(task.test or task.reports for task in read.tasks.values()):
        _evaluate(out, data, recipe, run=run, texts=texts)
    typer.echo(f"serve it: murmura serve --model {out}")


def _check(recipe: "Recipe", data: Path, problems: list[str]) -> None:
    from ..fit.check_data import check_data
    from ..prepare.data_report import describe, describe_skipped
    from ..pretrain.stage import check_texts

    found = check_data(recipe, data)
    problems += found.problems
    if recipe.pretrain is not None and not found.problems:
        try:
            for line in check_texts(recipe, data):
                typer.echo(line)
        except SetupError as error:
            problems.append(str(error))
    if found.unlabelled:
        typer.echo(f"self-training: {found.unlabelled:,} texts")
    for line in [*describe_skipped(recipe.skipped), *found.notes, *describe(found.reports, recipe.max_tokens)]:
        typer.echo(line)
    for problem in problems:
        typer.echo(f"murmura: {problem}", err=True)
    if problems:
        raise typer.Exit(REFUSED_EXIT_CODE)
    typer.echo("checked: it can be trained")


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The run folder that `murmura train` left.")],
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="The model folder to write.")],
    graphs: Graphs = [Graph.ragged],  # noqa: B006
    delta: Delta = False,
    pooled: Annotated[
        bool, typer.Option("--pooled", help="With a vector of each text, as with `pooled: true` in the recipe.")
    ] = False,
) -> None:
    """Make a model folder from a run's best checkpoint, proven to compute what torch computes.

    Example: [bold]murmura export models/joint.run --out models/joint --graphs ragged --graphs padded[/bold]
    """
    need_training()
    _export(run, out, graphs, delta, pooled=pooled)


def evaluate(
    model: Annotated[Path, typer.Argument(metavar="FOLDER", help="A model folder or a delta folder.")],
    data: Data = Path(),
    recipe: Annotated[
        Path | None, typer.Option("--recipe", metavar="FILE", help="Instead of the one in the folder.")
    ] = None,
    base: Annotated[
        Path | None, typer.Option("--base", metavar="FOLDER", help="A delta's base checkpoint, where it is a folder.")
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option("--run", metavar="FOLDER", help="The run that it was made from. Default: FOLDER.run."),
    ] = None,
    texts: Texts = True,
) -> None:
    """Score an exported model through the code that serves it; writes report.html, report.md, report.json and the manifest's
    metrics. The run folder gets a report.html with texts of rows.

    Example: [bold]murmura evaluate models/joint --data data[/bold]
    """
    need_training()
    _evaluate(model, data, recipe, base, run=run, texts=texts)


def _export(run: Path, out: Path, graphs: list[Graph], delta: bool, *, pooled: bool = False) -> None:
    from ..export.export import describe_interruption, describe_lost_base
    from ..export.export import export as make
    from ..run_folders.run_folder import RunFolder

    manifest = make(run, out, graphs=tuple(graph.value for graph in graphs), delta=delta, pooled=pooled)
    size = sum(entry.bytes for entry in manifest.files) / 1e6
    typer.echo(f"exported {'a delta' if delta else 'a model'} of {size:.1f} MB, equal to torch: {out}")
    record = RunFolder(run).record()
    if record.interrupted:
        typer.echo(f"note: {describe_interruption(record)}")
    if not delta and (line := describe_lost_base(record, out)):
        typer.echo(line)


def _evaluate(
    model: Path, data: Path, recipe: Path | None, base: Path | None = None, *, run: Path | None, texts: bool
) -> None:
    from ..evaluate.evaluate import evaluate as score

    print_scores(score(model, data, recipe=recipe, base=base, run=run, texts=texts, print_line=typer.echo))
    typer.echo(f"report: {model / 'report.html'}")


def print_scores(scores: "Scores") -> None:
    """Print a line of figures for each set."""
    from ..report.figures import rounded, shown

    for task, by_set in scores.items():
        for name, found in by_set.items():
            figures = ", ".join(f"{figure} {shown(value)}" for figure, value in rounded(found.figures).items())
            typer.echo(f"{task} ({name}): {figures}")
