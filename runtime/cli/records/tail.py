"""`murmura tail`."""

import json
import sys
from io import TextIOWrapper
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import options

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

    from ...settings.settings import Settings
    from ...wire.message import Record

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
    from ..until_signalled import run_until_stopped

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
    from ...kafka.groupless_reader import PartitionsReader, open_reader

    printer = _Printer(as_json, count)
    async with open_reader(settings.kafka, [topic], from_beginning=from_beginning) as consumer:
        reader = PartitionsReader(consumer, printer.print_records, printer.print_unreadable)
        while not stop.is_set() and printer.left != 0:
            await reader.read_more(POLL_MS, printer.left)


class _Printer:
    """Prints a line per record until `left`, the number of records to print, is 0; None: no limit."""

    def __init__(self, as_json: bool, left: int | None) -> None:
        self._as_json = as_json
        self.left = left

    def print_records(self, records: "Sequence[Record]") -> None:
        for record in records:
            self._print(_json_line(record.value) if self._as_json else _pretty_line(record))

    def print_unreadable(self, partition: Any, offset: int, why: str) -> None:
        """Print where the record is. With `--json` to stderr: it has no value that could be printed."""
        place = f"{partition.partition}/{offset}"
        self._print(f"{place}  (a record that the client cannot unpack: {why})", err=self._as_json)

    def _print(self, line: str, *, err: bool = False) -> None:
        if self.left == 0:
            return
        typer.echo(line, err=err)
        if self.left is not None:
            self.left -= 1


def _pretty_line(record: "Record") -> str:
    from ...wire.summary import record_line, safe, time_line

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
