"""The demo's output: a live table on a terminal, else plain lines. Drawing only; the data is the desk's."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rich.console import Console, Group, RenderableType
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from ...runtime.model.kinds.forms import AnswerForm
from ...runtime.model.kinds.registry import find_kind, kind_of
from ...runtime.model.model import Model
from ...runtime.wire.summary import output_line, safe
from ...schemas.manifest import TaskSpec
from .demo_process import ANSWERING
from .desk import Desk, Message
from .keys import KEYS
from .talk import Exchange, talk_lines

_FEW_LABELS, _LONG_LABEL = 10, 20
_ORDER: Final = tuple(AnswerForm)
_WORDINGS: Final = {"generated": "green", "template": "dim"}
_TONES: Final = {"positive": "green", "negative": "red"}
_WIDE: Final = 120
"""Number of columns from which the kind of an entity is shown next to its text."""
_HEAD_LINES, FOOT_LINES = 3, 6
_TALK_LINES, _HIGH = 4, 24
"""Lines of a conversation, and of the screen from which they are shown."""


@dataclass(frozen=True, slots=True)
class Facts:
    """Values that do not change while the demo runs."""

    model: str
    device: str
    url: str
    tasks: tuple[TaskSpec, ...]
    console: str | None = None
    """Address of the console beside it."""

    @classmethod
    def from_model(cls, model: Model, url: str, console: str | None = None) -> "Facts":
        manifest = model.manifest
        name = f"{manifest.name} version {manifest.version}"
        return cls(name, model.device, url, order_tasks(find_shown(manifest.tasks)), console)


@dataclass(frozen=True, slots=True)
class Now:
    """Values that change."""

    per_second: float
    batch_rows: float
    typed: str | None
    """The line being typed; None without a keyboard."""
    at: float = 0.0
    """Monotonic time."""


def find_shown(tasks: Iterable[TaskSpec]) -> list[TaskSpec]:
    """Return the tasks that are answered for each message: not those that other agents ask by default, nor replies."""
    shown = (task for task in tasks if task.generation is None)
    return [task for task in shown if task.default_for is None or {*task.default_for} & {*ANSWERING}]


def order_tasks(tasks: Iterable[TaskSpec]) -> tuple[TaskSpec, ...]:
    """Return the tasks in the order of their columns: finest classification first, spans last."""
    return tuple(sorted(tasks, key=lambda task: (_ORDER.index(kind_of(task).form), -len(task.labels))))


def screen(
    facts: Facts, desk: Desk, talk: Iterable[Exchange] | None, now: Now, width: int, height: int
) -> RenderableType:
    """Draw everything into `width` x `height` characters, the newest message last. `talk`: what was said; None: no conversation."""
    said = _draw_talk(talk, _TALK_LINES) if talk is not None and height >= _HIGH else []
    rows = max(height - _HEAD_LINES - FOOT_LINES - len(said), 1)
    messages = list(desk.messages)[-rows:]
    head = heading("a support desk, answered live", f"{facts.model} on {facts.device}")
    filler = [Text("")] * (rows - len(messages))
    return Group(head, Text(""), table(messages, facts.tasks, width), *filler, *said, *foot(facts, desk, now, width))


def heading(title: str, model: str) -> Table:
    """Draw the first line."""
    head = Table.grid(expand=True)
    head.add_column(no_wrap=True)
    head.add_column(justify="right", no_wrap=True)
    head.add_row(Text.assemble(("Murmura", "bold cyan"), f"  {title}"), Text(model, "dim"))
    return head


def table(messages: Sequence[Message], tasks: Sequence[TaskSpec], width: int) -> Table:
    """Draw one row per message."""
    gap = 2 if width >= _WIDE else 1
    drawn = Table(box=None, expand=True, pad_edge=False, header_style="bold", padding=(0, gap, 0, 0))
    drawn.add_column("text", ratio=9, no_wrap=True)
    for task in tasks:
        few = kind_of(task).form is AnswerForm.LABEL and len(task.labels) <= _FEW_LABELS
        share = 6 if max(map(len, task.labels), default=0) > _LONG_LABEL else 4
        drawn.add_column(task.name, ratio=None if few else share, width=14 if few else None, no_wrap=True)
    drawn.add_column("ms", justify="right", width=5, no_wrap=True)
    for message in messages:
        drawn.add_row(*_cells(message, tasks, wide=width >= _WIDE))
    return drawn


def _draw_talk(talk: Iterable[Exchange], most: int | None = None) -> list[RenderableType]:
    """Draw the last lines of a conversation, exactly `most` of them where that is given."""
    lines = [
        Text.assemble(
            (f"{who:<10}", "cyan" if who == "desk" else "dim"),
            (f"{wording:<11}" if who == "desk" else "", _WORDINGS.get(wording, "yellow")),
            said,
            no_wrap=most is not None,
            overflow="ellipsis",
        )
        for who, said, wording in talk_lines(talk)
    ]
    if most is None:
        return [*lines]
    shown = lines[-most:]
    return [Rule("a conversation", style="dim", align="left"), *shown, *[Text("")] * (most - len(shown))]


def talk_line(exchange: Exchange) -> str:
    """Format a turn and its reply as one line."""
    return f"{safe(exchange.turn, 60)} | {exchange.wording}: {safe(exchange.reply or '', 300)}"


def plain_line(message: Message, tasks: Sequence[TaskSpec]) -> str:
    """Format a settled message as one line."""
    milliseconds = f"{(message.latency_s or 0) * 1000:.0f} ms"
    if message.dead is not None:
        summary = f"dead letter: {message.dead}"
    else:
        summary = "; ".join(
            f"{task.name} {output_line(message.outputs[task.name])}" for task in tasks if task.name in message.outputs
        )
    return f"{safe(message.text, 60)} | {summary} | {milliseconds}"


def _cells(message: Message, tasks: Sequence[TaskSpec], *, wide: bool) -> list[Text]:
    text = Text(safe(message.text, 300), "bold cyan" if message.typed else "")
    if message.typed:
        text = Text("› ", "bold cyan") + text
    if message.verdict:
        text = Text(f"[{message.verdict}] ", "bold yellow") + text
    if message.dead is not None:
        text.stylize("dim")
        why = [Text("dead letter", "red"), Text(message.dead, "red")]
        cells = (why + [Text("")] * len(tasks))[: len(tasks)]
    else:
        cells = [_cell(message.outputs.get(task.name), wide) for task in tasks]
    latency = "" if message.latency_s is None else f"{message.latency_s * 1000:.0f}"
    return [text, *cells, Text(latency, "dim")]


def _cell(output: dict[str, Any] | None, wide: bool) -> Text:
    # Score and question mark come first: a label that does not fit may be cut, they may not.
    if output is None:
        return Text("…", "dim")
    kind = find_kind(output)
    match kind and kind.form:
        case AnswerForm.LABEL if output["abstained"]:
            word = "off topic" if output["reason"] == "out_of_scope" else f"? {output['alternatives'][0]['label']}"
            return Text.assemble((f"{output['score']:.2f} ", "dim"), (word, "yellow"))
        case AnswerForm.LABEL:
            label = output["label"]
            return Text.assemble((f"{output['score']:.2f} ", "dim"), (label, _TONES.get(label, "")))
        case AnswerForm.SPANS:
            parts = [
                Text.assemble((safe(span["text"]), "magenta"), (f" {span['label']}" if wide else "", "dim"))
                for span in output["spans"]
            ]
            return Text("  " if wide else ", ").join(parts)
    return Text(output_line(output))


def foot(facts: Facts, desk: Desk, now: Now, width: int) -> list[RenderableType]:
    """Draw the last six lines: figures, addresses, next steps, and the typed line."""
    latency = desk.median_latency_s()
    figures = (
        (f"{now.per_second:.1f}", "messages/s"),
        (f"{now.batch_rows:.1f}", "texts a batch"),
        ("-" if latency is None else f"{latency * 1000:.0f} ms", "median"),
        (f"{desk.answered}", "answered"),
        (f"{desk.dead_lettered}", "dead letters" if desk.dead_lettered != 1 else "dead letter"),
        (f"{desk.open}", "open"),
        *([(f"{desk.verdicts}", "verdicts" if desk.verdicts != 1 else "verdict")] if desk.verdicts else []),
        *([(f"{desk.refused_verdicts}", "refused")] if desk.refused_verdicts else []),
    )
    line = Text("   ").join(Text.assemble((value, "bold"), f" {what}") for value, what in figures)
    addresses = Text(addresses_line(facts, "   "), "dim")
    lines = [line, addresses, Text(GO_ON_SHORT, "dim"), Text("")]
    if now.typed is None:
        lines.append(Text("Ctrl-C ends", "dim"))
    elif now.typed:
        lines.append(Text.assemble(("› ", "bold cyan"), now.typed[-(width - 4) :], ("█", "cyan")))
    else:
        lines.append(
            Text.assemble(
                ("› ", "bold cyan"),
                ("█", "cyan"),
                (f" type a message, Enter sends it; then {KEYS}; Ctrl-C ends", "dim"),
            )
        )
    for one in lines:
        one.no_wrap, one.overflow = True, "ellipsis"
    return [Rule(style="dim"), *lines]


def addresses_line(facts: Facts, between: str = ", ") -> str:
    """Return what can be opened in a browser."""
    found = [f"metrics {facts.url}/metrics", f"health {facts.url}/readyz"]
    return between.join([f"console {facts.console}", *found] if facts.console else found)


GO_ON_SHORT: Final = "next: murmura serve --bootstrap YOUR_KAFKA --model FOLDER   murmura train RECIPE --data FOLDER"

GO_ON: Final = """how to go on
  your own Kafka  murmura topics --create --bootstrap HOST:PORT
                  murmura serve --bootstrap HOST:PORT --model {model}
                  murmura publish murmura.analysis.requests texts.txt --bootstrap HOST:PORT
                  murmura tail murmura.analysis.results --bootstrap HOST:PORT
  your own model  murmura train {recipe} --data FOLDER
  anything amiss  murmura doctor --bootstrap HOST:PORT --model {model}"""


def farewell(console: Console, facts: Facts, desk: Desk, talk: Iterable[Exchange], model: str, recipe: str) -> None:
    """Print the next steps, and on a terminal also what was said last, since the live screen is gone."""
    if console.is_terminal:
        console.print(table(list(desk.messages)[-8:], facts.tasks, console.width))
        console.print()
        console.print(Group(*_draw_talk(talk)))
    console.print()
    console.print(GO_ON.format(model=model, recipe=recipe), highlight=False, markup=False, soft_wrap=True)
    console.print()
