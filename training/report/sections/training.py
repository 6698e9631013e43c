"""The curves of training: losses, learning rates, gradients, and the scores of the validation parts."""

from collections.abc import Iterator
from functools import partial
from typing import Final

from ...run_folders.curves import STEP
from ...run_folders.run_folder import count_steps
from ..page_data import PageData
from ..plots import Plot, draw_lines
from ..section import Section, render

PREFIXES: Final = {
    "loss/": "Loss by task, smoothed",
    "learning_rate/": "Learning rate",
    "gradient/": "Norm of the gradient",
}
_MAIN: Final = "/main"
_NO_NORMS: Final = ("gradient/clipped_share", "gradient/skipped_share")


def make_training(page: PageData) -> Section | None:
    if not page.curves:
        return None
    plots = [*_plots(page)]
    facts = []
    if (record := page.record) is not None:
        planned = record.planned_steps or record.steps
        steps = f"{record.steps:,} of " * (planned != record.steps) + count_steps(planned)
        facts.append(f"{steps}; the checkpoint of step {record.best_step:,} was kept.")
    clipped = [entry["gradient/clipped_share"] for entry in page.curves if "gradient/clipped_share" in entry]
    if clipped:
        facts.append(f"The gradient was clipped in about {100 * sum(clipped) / len(clipped):.0f} % of the steps.")
    if not facts and not plots:
        return None
    return Section("training", "Training", render("training.html", plots=plots, facts=facts))


def _plots(page: PageData) -> Iterator[Plot]:
    if len({entry[STEP] for entry in page.curves}) < 2:
        return  # a point is no curve
    for prefix, title in PREFIXES.items():
        series = [each for each in page.series(prefix) if f"{prefix}{each.name}" not in _NO_NORMS]
        if series:
            name = f"curve-{prefix.strip('/').replace('_', '-')}"
            log = prefix != "learning_rate/" and all(value > 0 for each in series for value in each.y)
            yield page.draw(name, partial(draw_lines, name, series, title=title, log=log))
    scores = [each for each in page.series("validation/") if each.name.endswith(_MAIN)]
    if scores:
        named = [each._replace(name=each.name.removesuffix(_MAIN)) for each in scores]
        best, title = page.record.best_step if page.record else None, "Validation, main figure by task"
        name = "curve-validation"
        yield page.draw(name, partial(draw_lines, name, named, title=title, best=best))
