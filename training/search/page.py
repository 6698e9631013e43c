"""`tune.html`: one page that loads nothing."""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Final

from markupsafe import Markup

from ..recipe.keys.tune import Dimension, Tune
from ..report.page import Heading, frame
from ..report.plots import Plot, Points, Range, Scale, draw_points, draw_ranges
from ..report.section import Section, render
from .results import Result, Trial, describe_pruning, rank_trials, show
from .space import name_of

MOST_ROWS: Final = 200
MOST_PAIRS: Final = 6
"""Of objectives that are drawn against each other."""
_SHOWN: Final = {"complete": "", "pruned": "ended early", "failed": "failed", "died": "died", "running": "running"}
_ON_VALIDATION: Final = (
    "Figures are of the validation rows that chose the values: expect less on rows that were never seen."
)


def make_page(result: Result, tune: Tune, recipe: str) -> str:
    """Return the page; `recipe` is its text."""
    counts = {state: sum(each.state == state for each in result.trials) for state in _SHOWN}
    said = ", ".join(f"{count} {_SHOWN[state] or 'complete'}" for state, count in counts.items() if count)
    notes = [f"{len(result.trials)} trials: {said}; {describe_pruning(tune, result.objectives)}.", _ON_VALIDATION]
    sections = [_make_best(result)] if result.front else []
    if result.complete:
        sections.append(_make_course(result))
    sections += [*_make_importance(result)]
    if slices := [*_draw_slices(result, tune)]:
        body = _render("Figures by value", plots=slices, notes=["A point is a complete trial."])
        sections.append(Section("slices", "Each key", body))
    sections += [_make_trials(result, tune), Section("recipe", "Recipe", render("recipe.html", recipe=recipe))]
    return frame(Heading("Search for the best values", result.name, notes=notes), sections)


def _render(
    label: str,
    columns: Sequence[str] = (),
    rows: Sequence[Sequence[str]] = (),
    *,
    words: int = 1,
    plots: Sequence[Plot] = (),
    notes: Sequence[str] = (),
) -> Markup:
    return render("table.html", columns=columns, rows=rows, words=words, plots=plots, notes=notes, label=label)


def _make_best(result: Result) -> Section:
    several = len(result.front) > 1
    keys = list(dict.fromkeys(key for each in result.front for key in each.params))
    rows = [
        [f"trial {each.number}", *(f"{value:.4f}" for value in each.values), *(_value(each, key) for key in keys)]
        for each in sorted(result.front, key=lambda each: [-value for value in each.values])
    ]
    notes = ["No trial is better than one of these in one figure without being worse in another."] if several else []
    body = _render("The best trials", ["", *result.objectives, *keys], rows, notes=notes)
    return Section("best", "Pareto front" if several else "Best", body)


def _make_course(result: Result) -> Section:
    plots = [_draw_history(result, at) for at in range(len(result.objectives))]
    plots += [*_draw_pareto(result)]
    return Section("course", "Course", _render("Figures over the trials", plots=plots))


def _draw_history(result: Result, at: int) -> Plot:
    name, complete = result.objectives[at], result.complete
    numbers, reached = [each.number for each in complete], [each.values[at] for each in complete]
    series = [
        Points("trials", numbers, reached),
        Points("best so far", numbers, [*accumulate(reached, max)], joined=True),
    ]
    pruned = [each for each in result.trials if each.state == "pruned" and each.values]
    if pruned:
        series.append(Points("ended early", [each.number for each in pruned], [each.values[at] for each in pruned]))
    scale = Scale("trial")
    return draw_points(f"tune-history-{at}", series, title=f"History: {name}", scale=scale, unit=name)


def _draw_pareto(result: Result) -> Iterator[Plot]:
    names = result.objectives
    pairs = [(one, other) for one in range(len(names)) for other in range(one + 1, len(names))]
    front = {each.number for each in result.front}
    for one, other in pairs[:MOST_PAIRS]:
        groups = {
            "front": [each for each in result.complete if each.number in front],
            "other trials": [each for each in result.complete if each.number not in front],
        }
        series = [
            Points(name, [each.values[one] for each in found], [each.values[other] for each in found])
            for name, found in groups.items()
            if found
        ]
        title = f"{names[other]} against {names[one]}"
        yield draw_points(f"tune-pareto-{one}-{other}", series, title=title, scale=Scale(names[one]), unit=names[other])


def _make_importance(result: Result) -> Iterator[Section]:
    if not result.importances:
        return
    plots = [
        draw_ranges(
            f"tune-importance-{at}",
            [Range(key.rpartition(".")[2], value, None, None) for key, value in found.items()],
            title=f"Importance for {name}",
            unit="share",
        )
        for at, (name, found) in enumerate(result.importances.items())
    ]
    keys = list(dict.fromkeys(key for found in result.importances.values() for key in found))
    rows = [[key, *(f"{found.get(key, 0):.2f}" for found in result.importances.values())] for key in keys]
    notes = [
        "How much the values of good trials differ from those of all (PED-ANOVA, Watanabe et al. 2023). Few trials say little."
    ]
    body = _render("Importance of keys", ["key", *result.importances], rows, plots=plots, notes=notes)
    yield Section("importance", "What mattered", body)


def _draw_slices(result: Result, tune: Tune) -> Iterator[Plot]:
    if len(result.complete) < 2:
        return
    for number, (key, dimension) in enumerate(tune.space.items()):
        found = [each for each in result.complete if key in each.params]
        x = [_place(dimension, each.params[key]) for each in found]
        series = [Points(name, x, [each.values[at] for each in found]) for at, name in enumerate(result.objectives)]
        places = [show(name_of(each)) for each in dimension.choices or ()]
        scale = Scale(key, log=dimension.log, places=places, ends=_ends(dimension))
        unit = result.objectives[0] if len(series) == 1 else "figure"
        yield draw_points(f"tune-slice-{number}", series, title=key, scale=scale, unit=unit)


def _ends(dimension: Dimension) -> tuple[float, float] | None:
    return None if dimension.low is None or dimension.high is None else (float(dimension.low), float(dimension.high))


def _place(dimension: Dimension, value: object) -> float:
    if dimension.choices is None:
        assert isinstance(value, int | float)
        return float(value)
    return float([name_of(each) for each in dimension.choices].index(value))


def _make_trials(result: Result, tune: Tune) -> Section:
    keys = list(tune.space)
    ranked = rank_trials(result)
    rows = [
        [
            f"{each.number}",
            *(_value(each, key) for key in keys),
            _SHOWN[each.state],
            *([f"{value:.4f}" for value in each.values] or [""] * len(result.objectives)),
            f"{each.seconds:.0f}",
        ]
        for each in ranked[:MOST_ROWS]
    ]
    notes = [f"trial {each.number}: {each.error}" for each in ranked if each.error][:MOST_ROWS]
    notes += [f"{len(ranked) - MOST_ROWS} more trials stand in tune.json."] if len(ranked) > MOST_ROWS else []
    columns = ["trial", *keys, "", *result.objectives, "seconds"]
    body = _render("Trials", columns, rows, words=len(keys) + 2, notes=notes)
    return Section("trials", "Trials", body)


def _value(trial: Trial, key: str) -> str:
    return show(trial.params[key]) if key in trial.params else ""
