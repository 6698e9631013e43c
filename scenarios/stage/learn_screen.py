"""The learning demo's screen: stages, figures before and after, and the latest messages below."""

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ...runtime.wire.summary import safe
from .board import Board, Figure, Stage, State, Step, summary
from .desk import Desk
from .screen import FOOT_LINES, Facts, Now, foot, heading, table

_TONES = {State.WAITING: "dim", State.RUNNING: "bold cyan", State.DONE: "green", State.FAILED: "bold red"}
_LEAST_MESSAGES = 3
TITLE = "a support desk that learns a new product while it answers"


def screen(facts: Facts, board: Board, desk: Desk, now: Now, width: int, height: int) -> RenderableType:
    """Draw everything into `width` x `height` characters. With little space messages take precedence over figures."""
    fixed = 2 + len(Stage) + 2 + FOOT_LINES  # heading and blank line, stages, blank line and table header, foot
    figures = len(board.figures) + 2
    has_room = height - fixed - figures >= _LEAST_MESSAGES
    rows = max(height - fixed - (figures if has_room else 0), 1)
    messages = list(desk.messages)[-rows:]
    parts: list[RenderableType] = [
        heading(TITLE, f"{facts.model.partition(' version')[0]} version {board.version} on {facts.device}"),
        Text(""),
        stages(board, now.at),
        Text(""),
        table(messages, facts.tasks, width),
        *[Text("")] * (rows - len(messages)),
        *foot(facts, desk, now, width),
    ]
    if has_room:
        parts[4:4] = [figures_table(board), Text("")]
    return Group(*parts)


def stages(board: Board, now: float) -> Table:
    """Draw one row per stage."""
    drawn = Table.grid(expand=True, padding=(0, 2, 0, 0))
    drawn.add_column(width=1)
    drawn.add_column(no_wrap=True)
    drawn.add_column(width=6, justify="right")
    drawn.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    for stage, step in board.steps.items():
        tone = _TONES[step.state]
        took = _seconds(step, now)
        drawn.add_row(Text(step.state.value, tone), Text(stage.value, tone), Text(took, "dim"), Text(safe(step.detail)))
    return drawn


def _seconds(step: Step, now: float) -> str:
    if step.state is State.WAITING:
        return ""
    return f"{step.took_s if step.took_s is not None else now - step.began:.0f} s"


def figures_table(board: Board) -> Table:
    """Draw the accuracy before and after by task, with the gate's interval of the difference."""
    drawn = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 3, 0, 0))
    for name in ("right, in %", "messages", "rows", "before", "after", "difference, 95 %"):
        drawn.add_column(name, justify="left" if name in {"right, in %", "messages"} else "right", no_wrap=True)
    for (task, name), figure in board.figures.items():
        new = figure.gate is not None and figure.gate.low > 0
        after = Text(_percent(figure.after), "bold green" if new else "")
        drawn.add_row(task, name, str(figure.rows), _percent(figure.before), after, _interval(figure))
    return drawn


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"


def _interval(figure: Figure) -> str:
    gate = figure.gate
    if gate is None:
        return ""
    return f"{100 * gate.difference:+.1f} [{100 * gate.low:+.1f}, {100 * gate.high:+.1f}]"


def plain_lines(board: Board) -> Iterator[str]:
    """Yield the outcome as lines: figures before and after, and latencies."""
    yield f"{'right, in %':<12}{'messages':<14}{'rows':>5}{'before':>9}{'after':>9}   difference by the gate, 95 %"
    for (task, name), figure in board.figures.items():
        shares = f"{_percent(figure.before):>9}{_percent(figure.after):>9}"
        yield f"{task:<12}{name:<14}{figure.rows:>5}{shares}   {_interval(figure)}"
    yield ""
    yield f"{'answers':<20}{'count':>6}{'median':>10}{'p99':>10}{'slowest':>10}"
    for phase, latencies in board.latencies.items():
        if latencies:
            found = summary(latencies)
            times = "".join(f"{1000 * found[name]:>7.0f} ms" for name in ("p50", "p99", "max"))
            yield f"{phase.value:<20}{found['count']:>6}{times}"
