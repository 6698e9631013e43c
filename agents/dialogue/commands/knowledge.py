"""`murmura knowledge`: checks questions and answers before the dialogue agent gives them."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ....runtime.cli import options
from ....runtime.cli.tables import print_table
from ....runtime.errors import SetupError

if TYPE_CHECKING:
    from ....runtime.model.model import Model
    from ..knowledge.index import KnowledgeIndex, Scored

FAULTS_EXIT_CODE = 1
_COLUMNS = ["problem", "text", "nearest question", "similarity", ""]

knowledge_app = typer.Typer(
    help="Check questions and answers that conversations are answered from.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)


@knowledge_app.callback()
def _knowledge() -> None:
    """Keep the name of the only command."""


@knowledge_app.command()
def check(
    faq: Annotated[Path, typer.Argument(metavar="FAQ", help="The entries, as YAML or JSON lines.")],
    model: options.Model = None,
    log: Annotated[
        Path | None,
        typer.Option("--log", metavar="FILE", help="JSON lines with `text`: which of them nothing answers?"),
    ] = None,
    rows: Annotated[
        Path | None,
        typer.Option(
            "--rows", metavar="FILE", help="JSON lines of `text` and `question` (null: none): choose a threshold."
        ),
    ] = None,
    threshold: Annotated[
        float | None, typer.Option("--threshold", min=0, max=1, help="Least similarity of an answer. Default: 0.85.")
    ] = None,
    similar: Annotated[
        float, typer.Option("--similar", min=0, max=1, help="From here on two questions are near duplicates.")
    ] = 0.9,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object for each finding, one a line.")] = False,
    config: options.Config = None,
    device: options.Device = None,
) -> None:
    """Find near duplicates, contradictions and expired entries; of a log the texts that nothing answers.

    Exit code 0: nothing is wrong with the entries; 1: something is. Texts that nothing answers change nothing about it.

    Example: [bold]murmura knowledge check --model models/desk faq.yaml --log texts.jsonl[/bold]
    """
    from ..knowledge.entries import read_knowledge
    from ..knowledge.index import THRESHOLD, build_index
    from ..knowledge.report import FAULTS, find_faults, find_unanswered

    entries = read_knowledge(faq)
    texts = _read_log(log) if log else []
    judged = (
        _read_rows(rows, {question for entry in entries if entry.answer for question in entry.questions})
        if rows
        else []
    )
    loaded = _load(config, model, device)
    index = build_index(entries, loaded)
    lowest = THRESHOLD if threshold is None else threshold
    findings = [*find_faults(index, time.time() * 1000, similar)]
    findings += find_unanswered(index, texts, loaded.embed([text for text, _ in texts]), lowest)
    if as_json:
        for finding in findings:
            typer.echo(json.dumps(finding.as_json, ensure_ascii=False))
    elif findings:
        print_table(_COLUMNS, [[_cell(value) for value in finding] for finding in findings])
    counts = {kind: sum(finding.problem == kind for finding in findings) for kind in (*sorted(FAULTS), "unanswered")}
    said = ", ".join(f"{kind}: {count}" for kind, count in counts.items() if count) or "nothing is wrong"
    typer.echo(f"{len(entries)} entries, {len(index.vectors)} questions, {len(texts)} texts of a log; {said}", err=True)
    if judged:
        _print_threshold(_score(index, loaded, judged), lowest)
    if any(finding.problem in FAULTS for finding in findings):
        raise typer.Exit(FAULTS_EXIT_CODE)


def _load(config: Any, folder: Any, device: Any) -> "Model":
    from ....runtime.model.deltas.assembled import resolve
    from ....runtime.model.model import Model

    settings = options.settings(config, model=folder, device=device)
    if settings.model.folder is None:
        raise SetupError("no model is named: add --model FOLDER")
    model = Model.load(resolve(settings.model.folder), device=settings.model.device, graph=settings.model.graph)
    if not model.manifest.pooled:
        raise SetupError(
            f"model {model.manifest.name} gives no vectors of texts; train it with `pooled: true`, or export its run "
            "with --pooled"
        )
    return model


def _read_log(path: Path) -> list[tuple[str, float]]:
    from ..knowledge.entries import read_objects

    found = []
    for number, value in read_objects(path, "log"):
        found.append((_text(path, number, value), _timestamp(path, number, value)))
    return found


def _text(path: Path, number: int, value: dict[str, Any]) -> str:
    text = value.get("text")
    if not isinstance(text, str) or not text.strip():
        raise SetupError(f"{path}:{number}: text: expected a text that is not blank")
    return text


def _timestamp(path: Path, number: int, value: dict[str, Any]) -> float:
    at = value.get("timestamp", time.time() * 1000)
    if isinstance(at, bool) or not isinstance(at, int | float):
        raise SetupError(f"{path}:{number}: timestamp: expected ms since 1970, found {str(at)[:40]!r}")
    return at


def _read_rows(path: Path, known: set[str]) -> list[tuple[str, str | None]]:
    from ..knowledge.entries import read_objects

    found = []
    for number, value in read_objects(path, "rows"):
        question = value.get("question")
        if question is not None and question not in known:
            raise SetupError(
                f"{path}:{number}: question: no entry with an answer has it; expected a question of the file, or null"
            )
        found.append((_text(path, number, value), question))
    if not found:
        raise SetupError(f"{path}: no rows to choose a threshold on")
    return found


def _score(index: "KnowledgeIndex", model: "Model", rows: Sequence[tuple[str, str | None]]) -> "list[Scored]":
    from ..knowledge.index import score_rows

    return score_rows(index, rows, model.embed([text for text, _ in rows]), time.time() * 1000)


def _print_threshold(rows: "list[Scored]", used: float) -> None:
    from ..knowledge.index import choose_threshold, measure

    chosen = choose_threshold(rows)
    for name, figures in (("chosen", chosen), ("used", measure(rows, used))):
        typer.echo(
            f"threshold {figures.threshold:.2f} ({name}, {len(rows)} rows): answered right {figures.recall:.1%}, wrong "
            f"{figures.wrong:.1%}, and {figures.wrong_of_unanswerable:.1%} of what nothing answers",
            err=True,
        )


def _cell(value: object) -> str:
    text = "" if value is None else " ".join(str(value).split())
    return text if len(text) <= 60 else f"{text[:59]}…"
