"""`murmura suggest`. Found by entry point; torch is imported only where a strategy needs it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...runtime.cli import options as cli_options
from ...runtime.errors import SetupError
from ...runtime.spelling import suggest as suggest_name
from ..recipe.keys.seeds import MOST_SEED
from ..suggest.idle_options import find_idle_options
from ..suggest.strategy import Strategy, Tokens
from .needs import need_training

if TYPE_CHECKING:
    from ...runtime.model.model import Model
    from ...schemas.manifest import TaskSpec
    from ..suggest.choose import Wanted
    from ..suggest.rows import Form
    from ..suggest.states import DropoutPasses

PASSES = 10


def suggest(
    context: typer.Context,
    model: Annotated[Path, typer.Option("--model", metavar="FOLDER", help="The model that is to learn.")],
    texts: Annotated[
        Path | None, typer.Argument(metavar="TEXTS", help="A CSV, JSON lines, or plain text with a text a line.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="What to fill in: a new .csv or .jsonl.")
    ] = None,
    live: Annotated[
        bool, typer.Option("--live", help="Choose from the requests on Kafka, and ask for reviews of them.")
    ] = False,
    count: Annotated[int, typer.Option("--count", min=1, max=100_000, help="Suggest so many texts.")] = 100,
    task: Annotated[
        str | None, typer.Option("--task", metavar="NAME", help="Needed where the model has several.")
    ] = None,
    strategy: Annotated[Strategy, typer.Option("--strategy", help="How texts are chosen.")] = Strategy.MARGIN,
    labelled: Annotated[
        list[Path] | None,
        typer.Option("--labelled", metavar="FILE", help="Texts with labels, which are not suggested. May be repeated."),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option("--run", metavar="FOLDER", help="The run folder of the training; disagreement needs it."),
    ] = None,
    text: Annotated[str, typer.Option("--text", metavar="COLUMN", help="Where the text stands.")] = "text",
    label: Annotated[str, typer.Option("--label", metavar="COLUMN", help="Where the label is to stand.")] = "label",
    tokens: Annotated[
        Tokens, typer.Option("--tokens", help="For tagging: the least sure token counts, or the mean.")
    ] = Tokens.LEAST,
    sample: Annotated[
        int, typer.Option("--sample", min=2, max=200_000, help="k-centre compares so many texts, drawn at random.")
    ] = 20_000,
    seed: Annotated[int, typer.Option("--seed", min=0, max=MOST_SEED, help="Of what is drawn at random.")] = 0,
    agents: Annotated[
        list[str] | None,
        typer.Option(
            "--agent", metavar="AGENT", help="With --live: whose requests. Default: classification, analysis."
        ),
    ] = None,
    latest: Annotated[
        int, typer.Option("--latest", min=1, max=1_000_000, help="With --live: of so many results, the latest.")
    ] = 100_000,
    per_minute: Annotated[
        float, typer.Option("--per-minute", min=1, max=6000, help="With --live: ask for so many reviews a minute.")
    ] = 60,
    config: cli_options.Config = None,
    bootstrap: cli_options.Bootstrap = None,
    device: cli_options.Device = None,
) -> None:
    """Suggest the texts to label next: those that would teach the model most.

    Example: [bold]murmura suggest mails.txt --model models/desk --labelled train.csv --out next.csv[/bold]

    Fill in the column [bold]label[/bold] of next.csv; [bold]guess[/bold] is the model's answer. Rows that stay empty are left out. Then name it in the recipe: [bold]train: [train.csv, next.csv][/bold].

    [bold]murmura suggest --live --model models/desk[/bold] asks people about live texts instead: it publishes reviews of requests that nobody has judged, and whoever answers reviews answers these.

    margin: the two best labels are close. entropy: the answer is spread over labels. k-centre: far from all labelled texts. disagreement: passes with dropout contradict each other. random: the control.
    """
    from ...runtime.model.deltas.assembled import resolve
    from ...runtime.model.model import Model
    from ..suggest.choose import Wanted
    from ..suggest.judge import is_by_token
    from ..suggest.rows import Form

    given = _list_given(context)
    for problem in find_idle_options(given, strategy, live=live):
        raise SetupError(problem)
    settings = cli_options.settings(config, bootstrap=bootstrap, device=device)
    _check_ways(texts, out, live=live, labelled=labelled)
    opened = Model.load(resolve(model), device=settings.model.device)
    spec = find_task(opened, task)
    if "tokens" in given and not is_by_token(spec):
        raise SetupError(
            f"--tokens has no effect on {spec.name}, a task of kind {spec.kind}: it acts where each token has an answer"
        )
    wanted = Wanted(spec, strategy, count, tokens, sample, seed)
    if texts is not None and out is not None:
        form = Form(spec, text, label)
        _suggest_rows(texts, out, form, labelled or [], wanted, opened, run)
    else:
        from .suggest_live import suggest_live

        passes = _open_passes(run, opened, wanted)
        suggest_live(settings, agents or [], wanted, opened, passes, latest=latest, per_minute=per_minute)


def _list_given(context: typer.Context) -> set[str]:
    """Return the names of the parameters that the command line sets."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return {name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"}


def _check_ways(texts: Path | None, out: Path | None, *, live: bool, labelled: list[Path] | None) -> None:
    """Raise SetupError for anything but a file and --out, or --live."""
    if live and (texts is not None or out is not None or labelled):
        raise SetupError("--live chooses from requests on Kafka: leave out TEXTS, --out and --labelled")
    if not live and (texts is None or out is None):
        raise SetupError("expected TEXTS and --out FILE, or --live for the requests on Kafka")
    _refuse_missing([*([texts] if texts is not None else []), *(labelled or ())])


def _suggest_rows(
    texts: Path,
    out: Path,
    form: "Form",
    labelled: list[Path],
    wanted: "Wanted",
    model: "Model",
    run: Path | None,
) -> None:
    from ...runtime.cli.records.progress import progress_bar
    from ..suggest.choose import choose_texts
    from ..suggest.rows import Texts, find_problem, read_known, write_suggestions
    from ..suggest.summary import describe_choice

    if problem := find_problem(out, form.spec):
        raise SetupError(problem)
    known, covered = read_known(labelled, form)
    source, strategy = Texts(texts, form), wanted.strategy
    passes = _open_passes(run, model, wanted)
    covered = covered if strategy is Strategy.K_CENTRE else []
    with progress_bar("texts") as bar:
        found = choose_texts(source, wanted, model, passes, known=known, covered=covered, progress=bar.count)
    if not found.chosen:
        raise SetupError(
            f"{texts}: nothing to suggest: {found.seen:,} texts without a label, {found.known:,} of them known"
        )
    write_suggestions(found.chosen, form, out)
    left = f"; left out: {found.left_out}" if found.left_out else ""
    left += f"; {source.labelled:,} rows have a label" if source.labelled else ""
    typer.echo(f"{out}: {len(found.chosen):,} of {found.seen:,} texts, by {strategy.value}{left}")
    for line in (*([found.note] if found.note else []), *describe_choice(found, wanted)):
        typer.echo(line)
    typer.echo(f"fill in the column {form.target!r}, and name the file under `train` of task {form.spec.name}")


def find_task(model: "Model", name: str | None) -> "TaskSpec":
    """Return the task that is named, or the only one. SetupError for any other name, and for none among several."""
    names = ", ".join(model.tasks)
    if name is None and len(model.tasks) == 1:
        return next(iter(model.tasks.values()))
    if name is None:
        raise SetupError(f"the model has the tasks {names}; name one by --task")
    if name not in model.tasks:
        raise SetupError(f"the model has no task {name!r}; it has {names}{suggest_name(name, model.tasks)}")
    return model.tasks[name]


def _refuse_missing(files: list[Path]) -> None:
    for path in files:
        if not path.is_file():
            raise SetupError(f"{path}: no such file; expected texts (.csv, .jsonl or .txt)")


def _open_passes(run: Path | None, model: "Model", wanted: "Wanted") -> "DropoutPasses | None":
    strategy = wanted.strategy
    if strategy is Strategy.DISAGREEMENT and run is None:
        raise SetupError("disagreement needs the network with dropout: name the run folder of the training by --run")
    if run is None or strategy not in {Strategy.DISAGREEMENT, Strategy.K_CENTRE}:
        return None
    need_training()
    from ..suggest.states import open_run, refuse_other_run

    refuse_other_run(run, model.manifest, wanted.spec)
    return open_run(run, wanted.spec.name, passes=PASSES if strategy is Strategy.DISAGREEMENT else 0, seed=wanted.seed)
