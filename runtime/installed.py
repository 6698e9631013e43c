"""Entry points of installed packages. A search reads the metadata of every distribution, so one serves all groups."""

import sys
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any


def installed_points(group: str) -> list[EntryPoint]:
    """Return the entry points of a group, in their order. The search is repeated where `sys.path` has changed."""
    return list(_search(tuple(sys.path)).select(group=group))


def search_again() -> None:
    """Let the next call look for installed packages anew."""
    _search.cache_clear()


@lru_cache(maxsize=1)
def _search(path: tuple[str, ...]) -> Any:
    return entry_points()
