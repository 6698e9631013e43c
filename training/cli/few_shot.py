"""`murmura few-shot`. Found by entry point; torch is imported when it is called."""

from pathlib import Path
from typing import Annotated

import typer

from ..recipe.keys.seeds import MOST_SEED
from .needs import need_training


def few_shot(
    examples: Annotated[
        Path, typer.Argument(metavar="EXAMPLES", help="A CSV or JSON lines with a text and a label a row.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="The model folder to write.")],
    test: Annotated[
        Path | None, typer.Option("--test", metavar="FILE", help="Rows of the same form to score the model on.")
    ] = None,
    text: Annotated[str, typer.Option("--text", metavar="COLUMN", help="Where the text stands.")] = "text",
    label: Annotated[str, typer.Option("--label", metavar="COLUMN", help="Where the label stands.")] = "label",
    task: Annotated[str, typer.Option("--task", metavar="NAME", help="What the task is called.")] = "intent",
    out_of_scope: Annotated[
        str,
        typer.Option(
            "--out-of-scope",
            metavar="LABEL",
            help="The answer to texts that lie far from all examples. Rows of this label, where there are some, choose how far. Empty: every text gets a label.",
        ),
    ] = "out_of_scope",
    encoder: Annotated[
        str | None,
        typer.Option(
            "--encoder", metavar="ENCODER", help="package:NAME, hub:OWNER/NAME, or a folder. Default: MiniLM-L6."
        ),
    ] = None,
    tune_encoder: Annotated[
        bool,
        typer.Option(
            "--tune-encoder",
            help="First let the encoder put examples of a label near each other: minutes. Compare both with --test.",
        ),
    ] = False,
    max_tokens: Annotated[
        int | None, typer.Option("--max-tokens", min=3, metavar="COUNT", help="Longer texts are cut. Default: 128.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, max=MOST_SEED, help="Draws the folds.")] = 0,
) -> None:
    """Make a model from 5 to 20 examples of each label, in seconds.

    Example: [bold]murmura few-shot desk.csv --out models/desk[/bold], where the first line of desk.csv is [bold]text,label[/bold] and each further one an example: [bold]somebody stole my card,lost_card[/bold] or [bold]send 20 pounds to Ann,transfer[/bold]. Then [bold]murmura predict --model models/desk "my card is gone"[/bold], or [bold]murmura serve --model models/desk[/bold].

    The head is a logistic regression on the encoder as it is. It prints how well examples are answered that it has not seen (five folds), with the interval of so few rows, and which labels are confused. With more than 20 rows a label [bold]murmura train[/bold] learns more.
    """
    need_training()
    from ..few_shot.make import make_model
    from ..few_shot.recipe import Wanted
    from ..recipe.recipe import DEFAULT_ENCODER
    from .train import print_scores

    source = DEFAULT_ENCODER if encoder is None else encoder
    wanted = Wanted(examples, test, text, label, task, out_of_scope or None, source, seed, tune_encoder, max_tokens)
    print_scores(make_model(wanted, out, typer.echo))
    typer.echo(f"serve it: murmura serve --model {out}")
