"""Gives answered entries to their sinks."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from ..errors import ModelFailed
from .entry import Entry, Sink


def group_by_sink(entries: Iterable[Entry]) -> Iterable[tuple[Sink, list[Entry]]]:
    """Return the entries that are not cancelled by their sinks, in order."""
    parts: dict[int, tuple[Sink, list[Entry]]] = {}
    for entry in entries:
        if entry.cancelled:
            continue
        sink = entry.sink
        part = parts.get(id(sink))
        if part is None:
            parts[id(sink)] = (sink, [entry])
        else:
            part[1].append(entry)
    return parts.values()


def call_safely(loop: asyncio.AbstractEventLoop, call: Callable[..., None], *args: Any) -> None:
    """Call a callback; an error is reported to the loop and does not affect other answers."""
    try:
        call(*args)
    except Exception as error:  # noqa: BLE001
        loop.call_exception_handler({"message": f"{call!r} raised in the batcher", "exception": error})


def separate_failed(entries: list[Entry]) -> tuple[list[Entry], list[Entry]]:
    """Return the entries of a candidate to deliver, and those that it failed on, without their error."""
    failed = [entry for entry in entries if isinstance(entry.error, ModelFailed)]
    for entry in failed:
        entry.error = None
    return [entry for entry in entries if entry not in failed] if failed else entries, failed
