"""How the tasks of a joint training went together: their weights over time, and whether their gradients agree."""

from collections.abc import Iterator
from functools import partial
from typing import Final, NamedTuple

from ..page_data import PageData
from ..plots import Plot, draw_lines
from ..section import Section, render

MOST_LINES: Final = 8
"""More pairs of tasks are a table alone."""
_ALIKE: Final = 1e-6


class _Pair(NamedTuple):
    one: str
    other: str
    mean: float
    last: float


def make_balance(page: PageData) -> Section | None:
    plots, pairs = [*_plots(page)], _pairs(page)
    if not plots and not pairs:
        return None
    return Section("balance", "Tasks together", render("balance.html", plots=plots, pairs=pairs))


def _plots(page: PageData) -> Iterator[Plot]:
    weights = page.series("weight/")
    values = [value for each in weights for value in each.y]
    if values and max(values) - min(values) > _ALIKE:
        title = "Weights of the tasks"
        yield page.draw("curve-weight", partial(draw_lines, "curve-weight", weights, title=title))
    if shares := page.series("teachers/"):
        title = "Share of the label in the target of rows with a teacher"
        yield page.draw("curve-teachers", partial(draw_lines, "curve-teachers", shares, title=title))
    cosines = [each._replace(name=each.name.replace("/", " – ")) for each in page.series("cosine/")]
    if 0 < len(cosines) <= MOST_LINES:
        title = "Cosine between the gradients of two tasks"
        yield page.draw("curve-cosine", partial(draw_lines, "curve-cosine", cosines, title=title))


def _pairs(page: PageData) -> list[_Pair]:
    """Return the pairs of tasks, those that disagree most first."""
    found = []
    for each in page.series("cosine/"):
        one, _, other = each.name.partition("/")
        found.append(_Pair(one, other, sum(each.y) / len(each.y), each.y[-1]))
    return sorted(found, key=lambda pair: pair.mean)
