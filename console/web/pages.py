"""Renders pages: templates with autoescape, and how times, numbers and texts of strangers are written."""

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import UTC, datetime
from functools import lru_cache, partial
from http import HTTPStatus
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse

from ...runtime.settings.console import Masked
from .masking import mask
from .screens import Screen, person_of
from .static_files import make_static_url

SHOWN_CHARACTERS: Final = 4_000
_MASKED_BEYOND: Final = 700
"""What is masked behind the end of what is shown: at least the longest address, so that no beginning of one shows."""

_REMEMBERED: Final = 128
"""Masked texts that are kept; each was cut before, so the longest have 20,700 characters."""


class Pages:
    """The templates, with what every page needs: the menu, the person, masked texts."""

    def __init__(self, screens: Sequence[Screen], masked: Iterable[Masked] = ()) -> None:
        kinds = frozenset(masked)
        self._environment = Environment(
            loader=PackageLoader(__name__.rpartition(".")[0]),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.globals["screens"] = screens
        self._environment.globals["static"] = make_static_url
        self._kinds = kinds
        self._write_text = partial(_write_hidden, lru_cache(_REMEMBERED)(partial(mask, kinds=kinds)))
        self._environment.filters["text"] = self._write_text
        self._environment.filters["bytes"] = lambda digits: "hidden, as texts are masked" if kinds else digits
        self._environment.filters["utc"] = format_utc
        self._environment.filters["number"] = lambda value: f"{value:,}"

    async def prepare(self, texts: Iterable[str], most: int) -> None:
        """Mask texts in a thread; the filter `text(most)` has them at hand then, also for the next pages."""
        if self._kinds:
            await asyncio.to_thread(lambda: [self._write_text(text, most) for text in texts])

    def render(self, request: Request, template: str, /, status: int = HTTPStatus.OK, **values: Any) -> HTMLResponse:
        """Return a page. `template` extends `page.html`; `values` are its variables."""
        person = getattr(request.state, "person", None) and person_of(request)
        page = self._environment.get_template(template).render(path=request.url.path, person=person, **values)
        return HTMLResponse(page, status_code=status)


def write_text(text: str, most: int = SHOWN_CHARACTERS, *, kinds: Collection[Masked] = ()) -> str:
    """Return a text masked and of at most `most` characters, and how many more there are."""
    return _write_hidden(partial(mask, kinds=kinds), text, most)


def _write_hidden(hide: Callable[[str], str], text: str, most: int = SHOWN_CHARACTERS) -> str:
    shown = hide(text[: most + _MASKED_BEYOND])[:most]
    return shown if len(text) <= most else f"{shown}… ({len(text) - most:,} more characters)"


def format_utc(seconds: float) -> str:
    """Return a Unix time (s) as people read it, to the second; a program may have written one that no calendar has."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return "no possible time"
