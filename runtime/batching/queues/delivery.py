"""Gives answered entries to their sinks."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from ...errors import Closed, ModelFailed
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


def deliver(entries: Iterable[Entry]) -> None:
    """Give answered entries to their sinks. Call it on the event loop, like all here."""
    for sink, part in group_by_sink(entries):
        call_safely(sink.deliver, part)


def return_entries(entries: Iterable[Entry]) -> None:
    """Return entries to their sinks, to be encoded for the serving version."""
    for sink, part in group_by_sink(entries):
        asyncio.get_running_loop().call_soon(call_safely, sink.take_back, part)


def close(entries: list[Entry]) -> None:
    """End entries with Closed."""
    for entry in entries:
        entry.error = Closed("stopped before the model answered")
    deliver(entries)


def call_safely(call: Callable[..., None], *args: Any) -> None:
    """Call a callback; an error is reported to the loop and does not affect other answers."""
    try:
        call(*args)
    except Exception as error:  # noqa: BLE001
        context = {"message": f"{call!r} raised in the batcher", "exception": error}
        asyncio.get_running_loop().call_exception_handler(context)


def separate_failed(entries: list[Entry]) -> tuple[list[Entry], list[Entry]]:
    """Return the entries of a candidate to deliver, and those that it failed on, with their error."""
    failed = [entry for entry in entries if isinstance(entry.error, ModelFailed)]
    return [entry for entry in entries if entry not in failed] if failed else entries, failed
