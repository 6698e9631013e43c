"""`murmura predict`."""

import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import TextIOWrapper
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import options
from .tables import print_table

if TYPE_CHECKING:
    from ..model.inputs import Input
    from ..model.model import Model
    from .predict_inputs import Asked


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

    Prints the outputs as a table, or with [bold]--json[/bold] as JSON lines, and on standard error what it took, with
    tokenising; of replies the pass of the encoder over acts and turns counts, too. A JSON object has `text`, and `text_pair`
    for tasks that read two texts; or `turns` (each with `role` and `text`), of which the user's newest is the text. For
    tasks that generate replies it may have `acts` and `slots`. Other keys are refused.

    Example: [bold]murmura predict --model models/desk "my card was lost"[/bold]

    In a pipe: [bold]cat messages.txt | murmura predict --model models/desk --json - | jq .outputs[/bold]
    """
    from ..errors import SetupError
    from ..model.deltas.assembled import resolve
    from ..model.model import Model
    from ..spelling import suggest
    from .predict_inputs import read_parts

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
            + suggest(unknown[0], loaded.tasks)
        )
    total, columns = _Total(), ["text", "task", "answer"]
    for asked in read_parts(inputs, _list_slots(loaded, tasks)):
        answered = _answer(loaded, asked, tasks, total)
        if as_json:
            for each in answered:
                typer.echo(json.dumps(each, ensure_ascii=False))
        else:
            print_table(columns, list(_table_rows(loaded, answered)))
            columns = [""] * len(columns)
    typer.echo(f"{total.describe()}; {loaded.device}, loaded in {load_s:.1f} s", err=True)


def _list_slots(model: "Model", tasks: list[str] | None) -> set[str]:
    """Return the slots that replies to these tasks may name."""
    specs = [spec.generation for name, spec in model.tasks.items() if tasks is None or name in tasks]
    return {slot for spec in specs if spec is not None for slot in spec.slots}


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
    began = time.perf_counter()
    answers = [*_predict(model, inputs, [wanted[row] for row in rows])]
    took = time.perf_counter() - began
    total.texts, total.answer_s = total.texts + len(rows), total.answer_s + took
    for row, (encoded, output) in zip(rows, answers, strict=True):
        ms = round(1000 * took / len(rows), 3)
        found[row] |= {"outputs": output, "tokens": encoded.tokens, "truncated": encoded.truncated, "ms": ms}
        total.tokens += encoded.tokens
    for name in model.decoders:
        if tasks is None or name in tasks:
            _reply(model, name, asked, found, total)
    return found


def _predict(model: "Model", inputs: "Sequence[Input]", wanted: list[tuple[str, ...]]) -> Iterator[Any]:
    """Yield each input tokenised, and its outputs."""
    at = 0
    for batch, part in model.batches(inputs):
        yield from zip(batch, model.decode(model.run(batch), batch, part, wanted[at : at + len(batch)]), strict=True)
        at += len(batch)


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
    from ..generation.input_format import exceeds_bytes, format_input
    from ..model.kinds.generation import make_output

    spec = model.tasks[task].generation
    assert spec is not None
    turns = [each.turns or (Utterance(role="user", text=each.text),) for each in asked]
    pairs = [format_input(given, each.acts, spec) for given, each in zip(turns, asked, strict=True)]
    slots = [None if each.slots is None else each.slots.intersection(spec.slots) for each in asked]
    began = time.perf_counter()
    replies = model.generate(pairs, slots, task=task)
    took = time.perf_counter() - began
    total.replies, total.reply_s = total.replies + len(replies), total.reply_s + took
    for row, reply, given in zip(found, replies, turns, strict=True):
        row["outputs"][task] = make_output(reply)
        cut = reply.truncated or exceeds_bytes(given, spec)
        row["reply_truncated"] = row.get("reply_truncated", False) or cut
        row["reply_ms"] = round(row.get("reply_ms", 0.0) + 1000 * took / len(replies), 3)
        total.pieces += len(reply.tokens) + (reply.finish == "end")


def _table_rows(model: "Model", answered: list[dict[str, Any]]) -> Iterator[list[str]]:
    from ..model.kinds.registry import kind_of

    for each in answered:
        text = " ".join(each["text"].split())
        text = text if len(text) <= 60 else f"{text[:59]}…"
        for name, output in each["outputs"].items():
            yield [text, name, kind_of(model.tasks[name]).format_line(output)]
