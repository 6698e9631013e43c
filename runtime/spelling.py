"""Suggests names for one that is not known. Pure."""

import difflib
from collections.abc import Iterable

_LEAST_ALIKE = 0.6


def suggest(name: str, known: Iterable[str], most: int = 1) -> str:
    """Return the end of an error message with the known names that are most like this one, nothing where none is."""
    near = difflib.get_close_matches(name, [*known], n=most, cutoff=_LEAST_ALIKE)
    return f"; did you mean {' or '.join(near)}?" if near else ""
