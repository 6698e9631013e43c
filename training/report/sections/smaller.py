"""How a smaller model compares with its teacher."""

from collections.abc import Iterator

from ...run_folders.smaller import Compared
from ..page_data import PageData
from ..section import Section, render


def make_smaller(page: PageData) -> Section | None:
    if page.smaller is None:
        return None
    return Section("smaller", "Against its teacher", render("facts.html", facts=[*_facts(page.smaller)]))


def _facts(found: Compared) -> Iterator[tuple[str, str]]:
    yield "layers", f"{len(found.layers)} of {found.of}: {', '.join(str(layer + 1) for layer in found.layers)}"
    if found.neurons_kept:
        yield "feed-forward part", found.neurons_kept
    yield "mean score", f"{100 * found.quality:.1f} % of the teacher's"
    yield "speed", f"{found.speed:.2f} times the teacher's"
    yield "measured on", f"{found.texts:,} texts in batches of 32, graphs of both in ONNX Runtime, one thread"
    for each in found.tasks:
        difference = 100 * (each.student - each.teacher)
        scores = f"{100 * each.student:.1f}, the teacher {100 * each.teacher:.1f} ({difference:+.1f} points)"
        yield f"{each.task} ({each.set}, {each.rows:,} rows)", scores
