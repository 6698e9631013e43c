"""`report.html`: the page of a model, one file that loads nothing. Making it never fails what it reports on."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from markupsafe import Markup

from ..run_folders.os_errors import write_text
from ..run_folders.run_folder import PAGE
from .page_data import PageData
from .section import TEMPLATES, MakeSection, Section, render
from .sections.balance import make_balance
from .sections.data import make_data
from .sections.label_errors import make_label_errors
from .sections.layers import make_layers
from .sections.origin import make_cost, make_recipe, make_versions
from .sections.parts import make_method, make_phases, make_rows, make_words
from .sections.pretraining import make_pretraining
from .sections.ranks import make_ranks
from .sections.smaller import make_smaller
from .sections.summary import make_summary
from .sections.tasks import make_tasks
from .sections.training import make_training

SECTIONS: Final[Sequence[MakeSection]] = (
    make_summary,
    make_smaller,
    make_tasks,
    make_data,
    make_label_errors,
    make_pretraining,
    make_training,
    make_phases,
    make_rows,
    make_balance,
    make_method,
    make_ranks,
    make_words,
    make_layers,
    make_cost,
    make_recipe,
    make_versions,
)
"""In the order of the page."""
Say = Callable[[str], None]


def write_pages(page: PageData, model: Path, apart: Path | None, *, texts: bool, say: Say) -> None:
    """Write the page into the model folder without what rows say, and with `texts` into the folder `apart` with it.

    The first is named by no manifest: `murmura models push` leaves it out. What fails is said in one line.
    """
    targets = [(model / PAGE, False)] + ([(apart / PAGE, True)] if apart is not None and texts else [])
    for path, with_texts in targets:
        with contained(f"no {path}", say):
            write_text(path, make_page(replace(page, with_texts=with_texts), say=say))


def make_page(page: PageData, *, say: Say = lambda line: None, sections: Sequence[MakeSection] = SECTIONS) -> str:
    """Return the page. A section that raises is left out, and `say` is called with one line about the error."""
    made: list[Section] = []
    for make in sections:
        with contained(f"report.html: {getattr(make, '__name__', make)} failed", say):
            made += [found] if (found := make(page)) is not None else []
    notes = ["Measured on the exported folder through the code that serves it."]
    notes += ["This page shows texts of rows: keep it where the data may lie."] if page.with_texts else []
    named = Heading(
        "Report of a model", page.manifest.name, f"version {page.manifest.version}", page.description, notes
    )
    return frame(named, made)


@dataclass(frozen=True)
class Heading:
    """What stands above the sections of a page."""

    kicker: str
    title: str
    version: str = ""
    lead: str = ""
    notes: Sequence[str] = ()


def frame(heading: Heading, sections: Sequence[Section]) -> str:
    """Return a page of these sections."""
    style = Markup((TEMPLATES / "style.css").read_text(encoding="utf-8"))  # noqa: S704  (ours)
    return render("page.html", heading=heading, sections=sections, style=style)


@contextmanager
def contained(what: str, say: Say) -> Iterator[None]:
    """Say in one line what fails, and go on: nobody loses a training to its report."""
    try:
        yield
    except Exception as error:  # noqa: BLE001  (whatever it is)
        say(f"note: {what}: {type(error).__name__}: {' '.join(str(error).split())[:300]}")
