"""What a section of the page is, and how one is added.

A section is made by a function of the page's data; it returns None where there is nothing to show. To add one, write such a
function in a module of `sections/`, with a template beside the others, and name it in `page.SECTIONS`.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, Protocol

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from .figures import shown
from .page_data import PageData

TEMPLATES: Final = Path(__file__).parent / "templates"
MOST_CHARACTERS: Final = 400
"""Longer texts of rows are cut."""


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading. `parts` are anchors and names of what stands in it, for the contents."""

    anchor: str
    title: str
    body: Markup
    parts: tuple[tuple[str, str], ...] = ()


class MakeSection(Protocol):
    """Makes a section; None where the data have nothing for it."""

    def __call__(self, page: PageData) -> Section | None: ...


def render(template: str, **values: Any) -> Markup:
    """Return a template of `templates/` with these values, which are escaped."""
    return Markup(_environment().get_template(template).render(**values))  # noqa: S704  (autoescape is on)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"cut": cut, "shown": shown, "share": share, "count": count}
    return environment


def cut(text: str, most: int = MOST_CHARACTERS) -> str:
    """Return the beginning of a text that is too long, and how long it is."""
    return text if len(text) <= most else f"{text[:most].rstrip()} … ({len(text):,} characters)"


def share(value: float | None) -> str:
    """Return a share in per cent with one decimal place."""
    return "–" if value is None else f"{100 * value:.1f} %"


def count(value: float) -> str:
    """Return a number with separators."""
    return f"{value:,}"
