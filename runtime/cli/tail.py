"""`murmura tail`."""

import json
import sys
from io import TextIOWrapper
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import options

if TYPE_CHECKING:
    import asyncio

    from ..settings.settings import Settings

POLL_MS = 200


def tail(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="For example murmura.classification.results.")],
    from_beginning: Annotated[bool, typer.Option("--from-beginning", help="Start with the existing records.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Only the values, one JSON value per line.")] = False,
    count: Annotated[
        int | None, typer.Option("--count", min=1, metavar="N", help="Exit after this number of records.")
    ] = None,
    config: options.Config = None,
    bootstrap: options.Bootstrap = None,
) -> None:
    """Show the records of a topic as they arrive.

    Runs until Ctrl-C. Joins no group and commits nothing.

    Example: [bold]murmura tail murmura.classification.results[/bold]

    In a pipe: [bold]murmura tail murmura.deadletters --from-beginning --json | jq .[/bold]
    """
    from .until_signalled import run_until_stopped

    # The mock broker does not end a fetch early; short fetches cost little here.
    settings = options.settings(config, bootstrap=bootstrap, fetch_max_wait_ms=POLL_MS)

    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # do not fail on a character that the terminal cannot show

    async def main(stop: "asyncio.Event") -> None:
        await _tail(settings, topic, from_beginning, as_json, count, stop)

    run_until_stopped(main)


async def _tail(
    settings: "Settings", topic: str, from_beginning: bool, as_json: bool, count: int | None, stop: "asyncio.Event"
) -> None:
    from ..kafka.groupless_reader import open_reader

    async with open_reader(settings.kafka, [topic], from_beginning=from_beginning) as consumer:
        left = count
        while not stop.is_set() and left != 0:
            for records in (await consumer.getmany(timeout_ms=POLL_MS, max_records=left)).values():
                for record in records:
                    typer.echo(_json_line(record.value) if as_json else _pretty_line(record))
                left = None if left is None else left - len(records)


def _pretty_line(record: Any) -> str:
    from ..wire.summary import record_line, safe, time_line

    key = safe((record.key or b"-").decode(errors="replace"), 40)
    return f"{time_line(record.timestamp)}  {record.partition}/{record.offset}  {key}  {record_line(record.value, record.headers)}"


def _json_line(value: bytes | None) -> str:
    """Return the value on one line: JSON unchanged, anything else as a JSON string."""
    text = (value or b"null").decode(errors="replace")
    try:
        line = json.dumps(json.loads(text), ensure_ascii=False)
        # A lone surrogate is allowed in JSON but cannot be encoded.
        return line if line.isascii() or _is_encodable(line) else json.dumps(json.loads(text))
    except (ValueError, RecursionError):
        return json.dumps(text)


def _is_encodable(line: str) -> bool:
    try:
        line.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True
