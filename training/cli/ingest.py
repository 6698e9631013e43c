"""`murmura ingest`. Found by entry point; needs no more than serving does."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...runtime.cli import options as cli_options
from ...runtime.errors import SetupError
from ...runtime.spelling import suggest

if TYPE_CHECKING:
    from ...runtime.settings.settings import Settings
    from ..ingest.manifest import DataSet, Options, Plan, TaskLabels


class Split(StrEnum):
    conversation = "conversation"
    text = "text"


def ingest(
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="The data set to make; a new folder.")],
    agents: Annotated[
        list[str] | None,
        typer.Option(
            "--agent",
            metavar="AGENT",
            help="Whose topics to read; `dialogue` for edited replies. Default: classification and analysis.",
            show_default=False,
        ),
    ] = None,
    task: Annotated[list[str] | None, typer.Option("--task", metavar="NAME", help="Only this task.")] = None,
    model: Annotated[
        Path | None,
        typer.Option("--model", metavar="FOLDER", help="Leave out labels that this model's closed tasks do not have."),
    ] = None,
    heldout: Annotated[
        float | None,
        typer.Option(
            "--heldout", min=0, max=0.99, metavar="SHARE", help="Kept from training, to test on.", show_default="0.2"
        ),
    ] = None,
    split: Annotated[
        Split | None,
        typer.Option(
            "--split",
            help="What stays in one part: all of one key, or only equal texts.",
            show_default=Split.conversation.value,
        ),
    ] = None,
    operator: Annotated[
        list[str] | None,
        typer.Option("--operator", metavar="WHO", help="May withdraw anybody's feedback; others only their own."),
    ] = None,
    earlier: Annotated[
        list[Path] | None,
        typer.Option("--earlier", metavar="FOLDER", help="An earlier data set: its texts stay in their part."),
    ] = None,
    from_manifest: Annotated[
        Path | None, typer.Option("--from-manifest", metavar="FILE", help="Make this data set again, to the byte.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
    config: cli_options.Config = None,
    bootstrap: cli_options.Bootstrap = None,
) -> None:
    """Make training data of feedback: joined to its predictions, and these to their texts.

    Example: [bold]murmura ingest --out data/feedback-1[/bold]

    Once more, the same bytes: [bold]murmura ingest --from-manifest data/feedback-1/dataset.json --out data/again[/bold]
    """
    import asyncio

    from ..ingest import make as stages
    from ..ingest.earlier import earlier_sets
    from ..ingest.manifest import Options, load_data_set
    from ..ingest.progress import show_progress

    settings = cli_options.settings(config, bootstrap=bootstrap)
    made = None if from_manifest is None else load_data_set(from_manifest)
    if made is not None and (agents or task or model or operator or earlier or heldout is not None or split):
        raise SetupError(
            "--from-manifest says which records and how they are read: "
            "leave out --agent, --task, --model, --operator, --earlier, --heldout and --split"
        )
    labels = _labels(model)
    for name in task or ():
        if labels is not None and name not in labels:
            raise SetupError(
                f"--task: model {model} has no task {name!r}; it has {', '.join(labels)}{suggest(name, labels)}"
            )
    options = Options(
        heldout=0.2 if heldout is None else heldout,
        split=(split or Split.conversation).value,
        tasks=task or None,
        labels=labels,
        operators=operator or [],
        earlier=earlier_sets(earlier or ()),
        inputs=settings.inputs,
    )

    async def main() -> "DataSet":
        plan = made or await plan_of_agents(settings, agents or [], options)
        with show_progress(plan, quiet) as progress:
            return await stages.ingest(settings.kafka, plan, out, progress=progress)

    _say(asyncio.run(main()), out)


async def plan_of_agents(settings: "Settings", agents: list[str], options: "Options") -> "Plan":
    """Freeze what the topics of these agents, of feedback and of reviews hold now. SetupError for an agent without results."""
    from ...runtime.agent.agent import Agent
    from ...runtime.agent.discovery import find_agents
    from ...runtime.agent.handler import Handler
    from ...runtime.agent.routes import apply_settings, configure_handler
    from ..ingest.make import make_plan

    found = [apply_settings(each, settings.agents.get(each.name)) for each in find_agents(agents, settings.prefix)]
    answering = [each for each in found if isinstance(each, Agent) and each.output]
    replying = [each for each in found if isinstance(each, Handler)]
    for each in replying:
        configure_handler(each, settings)
    replying = [each for each in replying if each.reply_topic]
    if not answering and not replying:
        raise SetupError(f"{', '.join(agents)}: none of them publishes results or replies")
    constants = {name: value for each in replying for name, value in each.reply_constants.items()}
    expiries = [each.reply_expiry_ms for each in replying if each.reply_expiry_ms is not None]
    (judge,) = find_agents(["feedback"], settings.prefix)
    return await make_plan(
        settings.kafka,
        feedback=apply_settings(judge, settings.agents.get(judge.name)).topics,
        results=[each.output for each in answering if each.output],
        requests=[
            *(topic for each in answering for topic in each.topics),
            *(topic for each in replying for topic in each.topics),
        ],
        reviews=[f"{settings.prefix}.reviews"],
        replies=[each.reply_topic for each in replying if each.reply_topic],
        options=options.model_copy(update={"constants": constants, "reply_expiry_ms": min(expiries, default=None)}),
    )


def _labels(model: Path | None) -> "dict[str, TaskLabels] | None":
    if model is None:
        return None
    from ...runtime.model.folders.folder import read_manifest
    from ..ingest.manifest import labels_of_model

    return labels_of_model(read_manifest(model))


def _say(made: "DataSet", out: Path) -> None:
    counts = made.counts
    for file in made.files:
        if file.path.endswith((".train.jsonl", ".heldout.jsonl")):
            typer.echo(f"{file.path}: {file.rows:,} rows")
    left = counts["feedback"] - counts["used"] - counts["taking_back"]
    typer.echo(
        f"used {counts['used']:,} of {counts['feedback']:,} feedback records; left out {left:,}: {out / 'report.md'}"
    )
    if trimmed := counts.get("trimmed_spans"):
        typer.echo(f"cut blanks off the ends of {trimmed:,} spans")
    if drawn := counts.get("drawn_at_random"):
        typer.echo(
            f"drawn at random: {drawn:,} predictions, {counts['drawn_and_judged']:,} of them judged and held out"
        )
    for name in made.options.tasks or ():
        if not any(file.rows and file.path.startswith(f"{name}.") for file in made.files):
            typer.echo(f"--task {name}: no feedback became a row of it; {out / 'report.md'} says why", err=True)
    typer.echo(f"digest {made.digest}")
