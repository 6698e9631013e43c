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
    from_beginning: Annotated[bool, typer.Option("--from-beginning", help="First what is there already.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="The values alone, one JSON a line, for other programs.")
    ] = False,
    count: Annotated[int | None, typer.Option("--count", min=1, metavar="N", help="End after so many records.")] = None,
    config: options.Config = None,
    bootstrap: options.Bootstrap = None,
) -> None:
    """Show the records of a topic as they come.

    Until Ctrl-C. It joins no group and commits nothing.

    Example: [bold]murmura tail murmura.classification.results[/bold]

    Into another program: [bold]murmura tail murmura.deadletters --from-beginning --json | jq .[/bold]
    """
    from . import until_signalled as cli_run

    # The mock broker wakes no fetch, and at a person's pace short fetches cost nothing.
    settings = options.settings(config, bootstrap=bootstrap, fetch_max_wait_ms=POLL_MS)

    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that cannot show a character is no reason to end

    async def main(stop: "asyncio.Event") -> None:
        await _tail(settings, topic, from_beginning, as_json, count, stop)

    cli_run.run(main)


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
    """Return the value on one line: JSON as it is, anything else as a JSON string."""
    text = (value or b"null").decode(errors="replace")
    try:
        line = json.dumps(json.loads(text), ensure_ascii=False)
        # Half of a surrogate pair is allowed in JSON and in no output.
        return line if line.isascii() or _is_encodable(line) else json.dumps(json.loads(text))
    except (ValueError, RecursionError):
        return json.dumps(text)


def _is_encodable(line: str) -> bool:
    try:
        line.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True
