"""Sections that say in facts and tables how the model was trained; `report.md` says the same."""

from ..method import describe_method
from ..page_data import PageData
from ..part import Part
from ..phases import describe_phases
from ..rows import describe_rows
from ..section import Section, render
from ..words import describe_words


def make_method(page: PageData) -> Section | None:
    return _section(describe_method(page.made))


def make_words(page: PageData) -> Section | None:
    return _section(describe_words(page.made))


def make_rows(page: PageData) -> Section | None:
    return _section(describe_rows(page.made))


def make_phases(page: PageData) -> Section | None:
    return _section(describe_phases(page.made))


def _section(part: Part | None) -> Section | None:
    if part is None:
        return None
    return Section(part.anchor, part.title, render("part.html", part=part))
