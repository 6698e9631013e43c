"""The curves of the stage `pretrain`: the loss of each objective."""

from functools import partial

from ...run_folders.run_folder import count_steps
from ..page_data import PageData
from ..plots import draw_lines
from ..section import Section, render


def make_pretraining(page: PageData) -> Section | None:
    series = page.series("loss/", page.pretraining)
    if not series:
        return None
    name, title = "curve-pretraining", "Loss by objective, smoothed"
    plots = [page.draw(name, partial(draw_lines, name, series, title=title))]
    facts = []
    if (found := page.record.pretraining if page.record else None) is not None:
        facts.append(
            f"{count_steps(found['steps'])} from {found['encoder']} in {found['cpu_seconds']:,.0f} CPU-seconds."
        )
        facts += [f"{objective}: {source}." for objective, source in found["objectives"].items()]
    return Section("pretraining", "Pre-training", render("training.html", plots=plots, facts=facts))
