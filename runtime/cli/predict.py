"""`murmura predict`."""

import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import TextIOWrapper
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import options
from .tables import print_table

if TYPE_CHECKING:
    from ..model.model import Model
    from .predict_inputs import Asked

_CHUNK = 64


def predict(
    inputs: Annotated[
        list[str], typer.Argument(metavar="TEXT|FILE|-", help="Texts, files with a text or a JSON object a line, or -.")
    ],
    model: options.Model = None,
    tasks: Annotated[
        list[str] | None, typer.Option("--task", metavar="NAME", help="Only this task; may be given several times.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object per text, one a line.")] = False,
    config: options.Config = None,
    device: options.Device = None,
) -> None:
    """Answer texts with a model, without Kafka.

    Prints the outputs as a table, or with [bold]--json[/bold] as JSON lines, and on standard error what it took. A JSON object
    has `text`, and `text_pair` for tasks that read two texts. For tasks that generate replies it may have `turns` (each with
    `role` and `text`), `acts` and `slots`; without turns the text is the only one.

    Example: [bold]murmura predict --model models/desk "my card was lost"[/bold]

    In a pipe: [bold]cat messages.txt | murmura predict --model models/desk --json - | jq .outputs[/bold]
    """
    from ..errors import SetupError
    from ..model.assembled import resolve
    from ..model.model import Model
    from .predict_inputs import read_inputs

    settings = options.settings(config, model=model, device=device)
    if settings.model.folder is None:
        raise SetupError("no model is named: add --model FOLDER")
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # do not fail on a character that the terminal cannot show
    began = time.perf_counter()
    loaded = Model.load(resolve(settings.model.folder), device=settings.model.device, graph=settings.model.graph)
    load_s = time.perf_counter() - began
    if unknown := [name for name in tasks or () if name not in loaded.tasks]:
        raise SetupError(
            f"model {loaded.manifest.name} has no task {unknown[0]}; its tasks are {', '.join(loaded.tasks)}"
        )
    total, columns = _Total(), ["text", "task", "answer"]
    for asked in _split(read_inputs(inputs)):
        answered = _answer(loaded, asked, tasks, total)
        if as_json:
            for each in answered:
                typer.echo(json.dumps(each, ensure_ascii=False))
        else:
            print_table(columns, list(_table_rows(loaded, answered)))
            columns = [""] * len(columns)
    typer.echo(f"{total.describe()}; {loaded.device}, loaded in {load_s:.1f} s", err=True)


def _split(inputs: "Iterator[Asked]") -> "Iterator[list[Asked]]":
    """Yield inputs in parts; what is typed is answered line by line."""
    size = 1 if sys.stdin.isatty() else _CHUNK
    while part := list(islice(inputs, size)):
        yield part


@dataclass
class _Total:
    texts: int = 0
    tokens: int = 0
    answer_s: float = 0.0
    replies: int = 0
    pieces: int = 0
    reply_s: float = 0.0

    def describe(self) -> str:
        parts = []
        if self.texts:
            rate = self.texts / max(self.answer_s, 1e-9)
            parts.append(
                f"{self.texts} texts of {self.tokens} tokens in {1000 * self.answer_s:.1f} ms ({rate:,.0f} texts/s)"
            )
        if self.replies:
            rate = self.pieces / max(self.reply_s, 1e-9)
            parts.append(
                f"{self.replies} replies of {self.pieces} pieces in {1000 * self.reply_s:.1f} ms ({rate:,.0f} pieces/s)"
            )
        return ", ".join(parts) or "nothing was asked"


def _answer(model: "Model", asked: "Sequence[Asked]", tasks: list[str] | None, total: _Total) -> list[dict[str, Any]]:
    from ..model.inputs import choose_input

    scored = [name for name in tasks or model.tasks if name not in model.decoders]
    wanted = [_choose_tasks(model, each, scored, named=tasks is not None) for each in asked]
    # A text that nothing but a decoder reads has no answers here, and no pass.
    rows = [row for row, names in enumerate(wanted) if names]
    inputs = [choose_input(asked[row].text, asked[row].second, wanted[row], model.pair_tasks) for row in rows]
    found: list[dict[str, Any]] = [{"text": each.text, "outputs": {}} for each in asked]
    at = 0
    for batch, part in _encode(model, asked, rows, inputs):
        began = time.perf_counter()
        outputs = model.decode(model.run(batch), batch, part, [wanted[row] for row in rows[at : at + len(batch)]])
        took = time.perf_counter() - began
        total.texts, total.answer_s = total.texts + len(batch), total.answer_s + took
        for row, encoded, output in zip(rows[at : at + len(batch)], batch, outputs, strict=True):
            ms = round(1000 * took / len(batch), 3)
            found[row] |= {"outputs": output, "tokens": encoded.tokens, "truncated": encoded.truncated, "ms": ms}
            total.tokens += encoded.tokens
        at += len(batch)
    for name in model.decoders:
        if tasks is None or name in tasks:
            _reply(model, name, asked, found, total)
    return found


def _encode(model: "Model", asked: "Sequence[Asked]", rows: list[int], inputs: list[Any]) -> Iterator[Any]:
    from ..errors import SetupError

    try:
        yield from model.batches(inputs)
    except ValueError as error:  # a lone surrogate, which is no character
        places = f"{asked[rows[0]].place} to {asked[rows[-1]].place}" if len(rows) > 1 else asked[rows[0]].place
        raise SetupError(f"{places}: {error}") from error


def _choose_tasks(model: "Model", asked: "Asked", scored: list[str], *, named: bool) -> tuple[str, ...]:
    from ..errors import SetupError

    if asked.second is not None:
        return tuple(scored)
    pair = [name for name in scored if name in model.pair_tasks]
    if pair and named:
        raise SetupError(
            f"{asked.place}: task {pair[0]} reads two texts; give a JSON object with `text` and `text_pair`"
        )
    return tuple(name for name in scored if name not in pair)


def _reply(model: "Model", task: str, asked: "Sequence[Asked]", found: list[dict[str, Any]], total: _Total) -> None:
    from ...schemas.acts import Utterance
    from ..generation.input_format import format_input
    from ..model.kinds.generation import make_output

    spec = model.tasks[task].generation
    assert spec is not None
    turns = [each.turns or (Utterance(role="user", text=each.text),) for each in asked]
    pairs = [format_input(given, each.acts, spec) for given, each in zip(turns, asked, strict=True)]
    began = time.perf_counter()
    replies = model.generate(pairs, [each.slots for each in asked], task=task)
    took = time.perf_counter() - began
    total.replies, total.reply_s = total.replies + len(replies), total.reply_s + took
    for row, reply in zip(found, replies, strict=True):
        row["outputs"][task] = make_output(reply.text, reply.score, reply.finish)
        row["reply_ms"] = round(row.get("reply_ms", 0.0) + 1000 * took / len(replies), 3)
        total.pieces += len(reply.tokens) + (reply.finish == "end")


def _table_rows(model: "Model", answered: list[dict[str, Any]]) -> Iterator[list[str]]:
    from ..model.kinds.registry import kind_of

    for each in answered:
        text = " ".join(each["text"].split())
        text = text if len(text) <= 60 else f"{text[:59]}…"
        for name, output in each["outputs"].items():
            yield [text, name, kind_of(model.tasks[name]).format_line(output)]
