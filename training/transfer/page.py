"""`transfer.html`: one page that loads nothing."""

from ..report.page import Heading, frame
from ..report.plots import Grid, Plot, Range, draw_grid, draw_ranges
from ..report.section import Section, render
from .findings import Affinity
from .results import (
    ADVICE,
    AFFINITIES,
    COSTS,
    DIFFERENCES,
    NOTES,
    Result,
    Rows,
    advice_rows,
    affinity_rows,
    cost_rows,
    difference_rows,
)


def make_page(result: Result, recipe: str) -> str:
    """Return the page; `recipe` is its text."""
    seeds = ", ".join(map(str, result.seeds))
    heading = Heading(
        "Each task alone against all jointly",
        result.name,
        notes=[f"Seeds {seeds}.", "Measured on the exported models through the code that serves them."],
    )
    sections = [
        _section("advice", "Advice", ADVICE, advice_rows(result), words=4, notes=result.notes),
        _section(
            "differences",
            "Joint less alone",
            DIFFERENCES,
            difference_rows(result),
            words=2,
            plots=[_draw_differences(result)],
            notes=NOTES[:1],
        ),
    ]
    if result.affinities:
        plots = [_draw_affinities(result.affinities)]
        rows = affinity_rows(result)
        sections.append(
            _section("affinity", "Do gradients agree?", AFFINITIES, rows, words=2, plots=plots, notes=NOTES[1:])
        )
    sections += [
        _section("cost", "Cost", COSTS, cost_rows(result), notes=["Means over the seeds."]),
        Section("recipe", "Recipe", render("recipe.html", recipe=recipe)),
    ]
    return frame(heading, sections)


def _section(
    anchor: str,
    title: str,
    columns: list[str],
    rows: Rows,
    *,
    words: int = 1,
    plots: list[Plot] | None = None,
    notes: list[str] | tuple[str, ...] = (),
) -> Section:
    """Return a section with a table whose first `words` columns are words and the others numbers."""
    body = render("table.html", columns=columns, rows=rows, words=words, plots=plots or [], notes=notes, label=title)
    return Section(anchor, title, body)


def _draw_differences(result: Result) -> Plot:
    ranges = [
        Range(
            each.task,
            each.difference.difference,
            each.difference.low,
            each.difference.high,
            each.difference.by_seed,
        )
        for each in result.transfers
    ]
    note = "bar: 95 % interval; strokes: single seeds"
    return draw_ranges("transfer-differences", ranges, title="Joint less alone", unit="points", note=note)


def _draw_affinities(affinities: list[Affinity]) -> Plot:
    means = {(each.one, each.other): each.mean for each in affinities}
    names = list(dict.fromkeys(name for pair in sorted(means) for name in pair))
    values = [[means.get((one, other), means.get((other, one))) for other in names] for one in names]
    return draw_grid("transfer-affinity", Grid(names, names, values), title="Mean cosine between gradients")
