"""The drawings of the page. matplotlib is imported when the first one is made."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import StringIO
from math import floor, log10
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from markupsafe import Markup

from ..kinds.figures.findings import Bin, Coverage
from ..kinds.figures.intervals import wilson
from .svg import INK, LINE, MUTED, SERIES, fit_into_page

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

DASHES: Final = ("-", "--", "-.", ":")
FEW_POINTS: Final = 16
LEGEND_CHARACTERS: Final = 62
"""In a line of a legend."""
LEGEND_LINE: Final = 0.065
"""Height of such a line, as a share of the drawing."""
LABEL_CHARACTERS: Final = 16
"""Of a row or column; longer names are cut."""
FEW_MARKS: Final = 2
MOST_MARKS: Final = 8
"""Numbers on a logarithmic axis: with fewer or more they are others."""
MARK_CHARACTERS: Final = 6
"""What has room on the left of the axes."""
_SIZE: Final = (4.8, 3.0)
_AREA: Final = (0.125, 0.165, 0.855, 0.79)
"""Left, bottom, width and height of the axes, as shares of the drawing."""
_SETTINGS: Final[Mapping[str, Any]] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "murmura",
    "text.parse_math": False,
    "font.size": 10,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "legend.labelcolor": INK,
}
_NO_METADATA: Final = dict.fromkeys(("Creator", "Date", "Format", "Type"))


class Series(NamedTuple):
    """A line: its name in the legend, and its points."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


class Plot(NamedTuple):
    """What the page shows of a drawing."""

    svg: Markup
    caption: str
    note: str = ""


def draw_lines(
    name: str, series: Sequence[Series], *, title: str, log: bool = False, best: float | None = None
) -> Plot:
    """Draw figures over the steps of training; `best` is the step of the checkpoint that was kept."""
    with _axes() as (axes, drawing):
        for at, each in enumerate(series):
            marker = "o" if len(each.x) <= FEW_POINTS else None
            dash = DASHES[at // len(SERIES) % len(DASHES)] if at >= len(SERIES) else DASHES[at % len(DASHES)]
            axes.plot(
                *(each.x, each.y), dash, color=SERIES[at % len(SERIES)], marker=marker, markersize=4, label=each.name
            )
        if best is not None:
            axes.axvline(best, color=MUTED, linewidth=1, linestyle=":")
        if log:
            axes.set_yscale("log")
            _mark_powers(axes.yaxis, axes.get_ylim(), (1, 2, 5))
        else:
            _mark_few(axes.yaxis)
        axes.set_xlabel("step")
        if len(series) > 1:
            _name_lines(axes, [each.name for each in series])
    last = ", ".join(f"{each.name} {each.y[-1]:.3g}" for each in series)
    drawn = fit_into_page(drawing.getvalue(), name=name, title=title, description=f"At the end: {last}.")
    return Plot(drawn, title, "dotted: the step whose checkpoint was kept" if best is not None else "")


def _mark_powers(axis: "Axis", limits: tuple[float, float], multiples: Sequence[int]) -> None:
    """Write plain numbers on a logarithmic axis, at these multiples of powers of ten; at others where it is too short for two."""
    from matplotlib.ticker import FixedLocator, NullLocator  # noqa: PLC0415

    marks = list_powers(*limits, multiples)
    if len(marks) > MOST_MARKS:
        marks = list_powers(*limits, (1,))
    if len(marks) < FEW_MARKS:
        _mark_few(axis)
    else:
        axis.set_major_locator(FixedLocator(marks[:: -(-len(marks) // MOST_MARKS)]))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(lambda value, _: show_mark(value))


def list_powers(low: float, high: float, multiples: Sequence[int]) -> list[float]:
    """Return these multiples of powers of ten from `low` to `high`."""
    powers = range(floor(log10(low)), floor(log10(high)) + 1)
    return [float(f"{each}e{power}") for power in powers for each in multiples if low <= each * 10.0**power <= high]


def _mark_few(axis: "Axis") -> None:
    """Write so few and so short numbers on an axis that there is room for each."""
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415

    axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axis.set_major_formatter(lambda value, _: show_mark(value))


def show_mark(value: float) -> str:
    """Return a number of an axis in its shortest form: 0.002, 1.5e-4."""
    plain = f"{value:.4g}"
    if value == 0 or ("e" not in plain and len(plain) <= MARK_CHARACTERS):
        return plain
    digits, _, power = f"{value:.3e}".partition("e")
    return f"{float(digits):g}e{int(power)}"


def _name_lines(axes: "Axes", names: Sequence[str]) -> None:
    """Put the legend above the axes, which become lower for it, so that it hides no line."""
    columns = max(1, min(len(names), LEGEND_CHARACTERS // (max(map(len, names)) + 7)))
    left, bottom, width, height = _AREA
    axes.set_position((left, bottom, width, height - LEGEND_LINE * -(-len(names) // columns)))
    place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (-0.02, 1.0), "borderaxespad": 0.2}
    axes.legend(ncols=columns, handlelength=2.4, columnspacing=1.4, labelspacing=0.3, **place)


def draw_reliability(name: str, bins: Sequence[Bin]) -> Plot:
    """Draw how often answers of a score are right, with 95 % intervals; on the diagonal the score says how often."""
    with _axes() as (axes, drawing):
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle="--")
        x, y = [each.score for each in bins], [each.right for each in bins]
        ranges = [wilson(each.right * each.answers, each.answers) for each in bins]
        below = [max(0.0, right - each.low) for right, each in zip(y, ranges, strict=True)]
        above = [max(0.0, each.high - right) for right, each in zip(y, ranges, strict=True)]
        axes.errorbar(x, y, [below, above], color=SERIES[0], marker="o", markersize=5, elinewidth=1, capsize=0)
        axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="score of the answer", ylabel="share that is right")
    said = "; ".join(f"score {each.score:.2f}, right {each.right:.2f} of {each.answers}" for each in bins)
    title = "Reliability: is the score how often it is right?"
    note = "dashed: as often as the score says; bars: 95 % intervals"
    return Plot(fit_into_page(drawing.getvalue(), name=name, title=title, description=said), title, note)


def draw_coverage(name: str, coverage: Coverage) -> Plot:
    """Draw what is right among the surest answers over their share; the thresholds of the manifest are a point."""
    with _axes() as (axes, drawing):
        points = coverage.points
        axes.plot([each.covered for each in points], [each.right for each in points], color=SERIES[0])
        bottom = max(0.0, min(each.right for each in points) - 0.05)
        axes.set(xlim=(0, 1.02), ylim=(min(bottom, 0.9), 1.005), xlabel="share of the texts that are answered")
        axes.set_ylabel("right among them")
        if (chosen := coverage.chosen) is not None:
            axes.plot([chosen.covered], [chosen.right], "D", color=SERIES[1], markersize=7)
    title = "Coverage against accuracy"
    at = ""
    if chosen is not None:
        at = f"thresholds: {100 * chosen.covered:.1f} % answered, {100 * chosen.right:.1f} % of them right"
    every = f"With all answered {100 * points[-1].right:.1f} % are right."
    said = f"{at or 'No answer is given at the thresholds'}. {every}"
    return Plot(
        fit_into_page(drawing.getvalue(), name=name, title=title, description=said), title, f"◆ {at}" if at else ""
    )


class Grid(NamedTuple):
    """Figures by row and column; None where there is none."""

    rows: Sequence[str]
    columns: Sequence[str]
    values: Sequence[Sequence[float | None]]


def draw_grid(name: str, grid: Grid, *, title: str, most: float = 1.0, note: str = "") -> Plot:
    """Draw figures as cells: the stronger the colour, the further from 0, at `most` strongest; those below 0 have another one."""
    high = max(1.2, 0.45 * len(grid.rows) + 0.75)
    with _axes(height=high) as (axes, drawing):
        for at, values in enumerate(grid.values):
            for column, value in enumerate(values):
                if value is not None:
                    _draw_cell(axes, column, at, value, most)
        axes.set(xlim=(0, len(grid.columns)), ylim=(len(grid.rows), 0))
        axes.set_xticks([at + 0.5 for at in range(len(grid.columns))], [_shorten(each) for each in grid.columns])
        axes.set_yticks([at + 0.5 for at in range(len(grid.rows))], [_shorten(each) for each in grid.rows])
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        left = min(0.3, 0.02 + 0.018 * max(len(_shorten(each)) for each in grid.rows))
        axes.set_position((left, 0.4 / high, 0.98 - left, 1 - 0.45 / high))
    said = [
        f"{row}, {column} {value:.2f}"
        for row, values in zip(grid.rows, grid.values, strict=True)
        for column, value in zip(grid.columns, values, strict=True)
        if value is not None
    ]
    return Plot(fit_into_page(drawing.getvalue(), name=name, title=title, description="; ".join(said)), title, note)


def _draw_cell(axes: "Axes", column: int, row: int, value: float, most: float) -> None:
    colour = SERIES[0] if value >= 0 else SERIES[1]
    strength = 0.06 + 0.55 * min(1.0, abs(value) / most)
    axes.barh(row + 0.5, 0.96, left=column + 0.02, height=0.94, color=colour, alpha=strength)
    axes.text(column + 0.5, row + 0.5, f"{value:.2f}", ha="center", va="center", color=INK, fontsize=9)


def _shorten(name: str) -> str:
    return name if len(name) <= LABEL_CHARACTERS else f"{name[: LABEL_CHARACTERS - 1]}…"


class Range(NamedTuple):
    """A figure with its interval, and single values beside it."""

    name: str
    value: float
    low: float | None
    high: float | None
    points: Sequence[float] = ()


def draw_ranges(name: str, ranges: Sequence[Range], *, title: str, unit: str, note: str = "") -> Plot:
    """Draw figures below each other with their intervals; a line marks 0."""
    high = max(1.4, 0.5 * len(ranges) + 0.8)
    with _axes(height=high) as (axes, drawing):
        axes.axvline(0, color=MUTED, linewidth=1, linestyle="--")
        for at, each in enumerate(ranges):
            axes.plot(each.points, [at] * len(each.points), "|", color=MUTED, markersize=9)
            if each.low is not None and each.high is not None:
                axes.plot([each.low, each.high], [at, at], color=SERIES[0], linewidth=2.2)
            axes.plot([each.value], [at], "o", color=SERIES[0], markersize=6)
        axes.set(ylim=(len(ranges) - 0.5, -0.5), xlabel=unit)
        axes.set_yticks([*range(len(ranges))], [_shorten(each.name) for each in ranges])
        left = min(0.3, 0.02 + 0.018 * max(len(_shorten(each.name)) for each in ranges))
        axes.set_position((left, 0.55 / high, 0.98 - left, 1 - 0.6 / high))
    said = "; ".join(
        f"{each.name} {each.value:+.2f}" + (f", {each.low:+.2f} to {each.high:+.2f}" if each.low is not None else "")
        for each in ranges
    )
    return Plot(fit_into_page(drawing.getvalue(), name=name, title=title, description=said), title, note)


class Points(NamedTuple):
    """Points of one colour, or with `joined` a line of steps through them; its name in the legend."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    joined: bool = False


class Scale(NamedTuple):
    """The axis along the bottom: its name, its ends where it has more than the points, and names of its places 0, 1, ... where it has no
    numbers.
    """

    name: str
    log: bool = False
    places: Sequence[str] = ()
    ends: tuple[float, float] | None = None


def draw_points(name: str, series: Sequence[Points], *, title: str, scale: Scale, unit: str, note: str = "") -> Plot:
    """Draw figures as points over another figure, or over choices; `unit` is what they are."""
    with _axes() as (axes, drawing):
        for at, each in enumerate(series):
            look: dict[str, Any] = {"color": SERIES[at % len(SERIES)], "label": each.name}
            if each.joined:
                axes.step(each.x, each.y, where="post", linewidth=1.6, **look)
            else:
                axes.plot(each.x, each.y, "o", markersize=5, alpha=0.8, **look)
        if scale.log:
            axes.set_xscale("log")
        if scale.ends is not None:
            axes.set_xlim(*_with_margin(*scale.ends, log=scale.log))
        if scale.log:
            _mark_powers(axes.xaxis, axes.get_xlim(), (1, 3))
        if scale.places:
            axes.set_xticks([*range(len(scale.places))], [_shorten(each) for each in scale.places])
            axes.set_xlim(-0.5, len(scale.places) - 0.5)
        axes.set(xlabel=scale.name, ylabel=unit)
        if len(series) > 1:
            _name_lines(axes, [each.name for each in series])
    ends = [f"{each.name}: {len(each.y)} points, highest {max(each.y):.4g}" for each in series if each.y]
    said = "; ".join(ends)
    return Plot(fit_into_page(drawing.getvalue(), name=name, title=title, description=said), title, note)


def _with_margin(low: float, high: float, *, log: bool) -> tuple[float, float]:
    if log:
        factor = (high / low) ** 0.05
        return low / factor, high * factor
    return low - 0.05 * (high - low), high + 0.05 * (high - low)


@contextmanager
def _axes(height: float = _SIZE[1]) -> Iterator[tuple["Axes", StringIO]]:
    """Yield empty axes, and where the drawing is written when they are filled."""
    import matplotlib  # noqa: PLC0415  (it takes a second, which only a report may cost)
    from matplotlib.backends.backend_svg import FigureCanvasSVG  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    drawing = StringIO()
    with matplotlib.rc_context({**_SETTINGS}):
        figure = Figure(figsize=(_SIZE[0], height))
        FigureCanvasSVG(figure)
        axes = figure.add_axes(_AREA)
        yield axes, drawing
        figure.savefig(drawing, format="svg", transparent=True, metadata={**_NO_METADATA})
