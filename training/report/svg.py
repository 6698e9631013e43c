"""Makes a drawing of matplotlib fit into a page: its colours are those of the page, light or dark, and its text is text."""

import re
from typing import Final

from markupsafe import Markup, escape

INK: Final = "#000001"
MUTED: Final = "#000002"
LINE: Final = "#000003"
SERIES: Final = tuple(f"#0000a{number}" for number in range(8))
"""Drawn in these, which nothing else has; the page names their colours by `--ink`, `--muted`, `--line` and `--s0` to `--s7`."""
_COLOURS: Final = {INK: "ink", MUTED: "muted", LINE: "line", **{each: f"s{at}" for at, each in enumerate(SERIES)}}
_DROPPED: Final = re.compile(
    r"<\?xml.*?\?>|<!DOCTYPE.*?>|<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", re.DOTALL
)
_NAMESPACE: Final = re.compile(r'\s(?:xmlns(?::\w+)?|version|width|height)="[^"]*"')
_FONT: Final = re.compile(r"font-family: [^;\"]*;?\s*")
_ID: Final = re.compile(r'(\bid="|href="#|url\(#)')


def fit_into_page(drawing: str, *, name: str, title: str, description: str) -> Markup:
    """Return an SVG document as an element for HTML. `name` makes its ids those of no other; `title` and `description` are read
    to those who do not see it. It names no address, not even a namespace.
    """
    drawing = _DROPPED.sub("", drawing)
    start = drawing.index("<svg")
    end = drawing.index(">", start)
    head = _NAMESPACE.sub("", drawing[start:end])
    body = _ID.sub(rf"\g<1>{name}-", drawing[end + 1 :].replace("xlink:href", "href"))
    body = _FONT.sub("", body)
    for colour, variable in _COLOURS.items():
        body = body.replace(colour, f"var(--{variable})")
    named = f'{head} role="img" aria-labelledby="{name}-title {name}-description">'
    said = f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-description">{escape(description)}</desc>'
    return Markup(f"{named}{said}{body}")  # noqa: S704  (matplotlib escapes what it writes)
