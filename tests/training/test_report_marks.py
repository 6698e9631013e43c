"""Numbers on the axes of drawings: there is room for each, whatever the range."""

from itertools import pairwise
from typing import Any

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from murmura.training.report import plots
from murmura.training.report.plots import MARK_CHARACTERS, show_mark


def axes_of(**limits: Any) -> Any:
    figure = Figure(figsize=plots._SIZE)
    FigureCanvasAgg(figure)
    axes = figure.add_axes(plots._AREA)
    axes.set(**limits)
    return axes


def marks_of(axis: Any, low: float, high: float) -> list[Any]:
    axis.figure.canvas.draw()
    return [each for each, at in zip(axis.get_ticklabels(), axis.get_ticklocs(), strict=True) if low <= at <= high]


@pytest.mark.parametrize(
    ("low", "high"), [(3e-3, 3.8e-3), (1e-5, 1e-2), (1e-4, 5e-4), (0.02, 5.2), (1e-9, 1e3), (7, 8)]
)
def test_numbers_on_a_logarithmic_axis_do_not_overlap(low: float, high: float) -> None:
    axes = axes_of(xscale="log", xlim=(low, high))
    plots._mark_powers(axes.xaxis, (low, high), (1, 3))
    boxes = sorted((each.get_window_extent() for each in marks_of(axes.xaxis, low, high)), key=lambda box: box.x0)
    assert len(boxes) >= 2
    assert all(one.x1 < other.x0 for one, other in pairwise(boxes))


@pytest.mark.parametrize("most", [5e-5, 2e-4, 7e-4, 1e-3, 1e-2, 1.0, 90.0])
def test_numbers_on_the_left_are_short_enough_for_their_room(most: float) -> None:
    axes = axes_of(ylim=(0, most))
    plots._mark_few(axes.yaxis)
    shown = [each.get_text() for each in marks_of(axes.yaxis, 0, most)]
    assert 3 <= len(shown) <= 7
    assert max(map(len, shown)) <= MARK_CHARACTERS
    assert len(set(shown)) == len(shown)


def test_a_number_is_shown_in_its_shortest_form() -> None:
    assert [show_mark(value) for value in (0, 0.002, 5e-5, 1.5e-4, 1000, -0.05)] == [
        *("0", "0.002", "5e-5", "1.5e-4", "1000", "-0.05")
    ]
