"""`murmura publish`."""

import json
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from ...errors import SetupError
from .. import options

if TYPE_CHECKING:
    import asyncio

    from ...settings.settings import Settings

CHUNK_RECORDS = 1000

Record = tuple[bytes, bytes | None]
"""Value and key."""


def publish(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="For example murmura.classification.requests.")],
    file: Annotated[str, typer.Argument(metavar="FILE|-", help="JSON lines or plain text lines; - is stdin.")],
    key_field: Annotated[
        str | None, typer.Option("--key-field", metavar="NAME", help="Field of the JSON to use as the record's key.")
    ] = None,
    text: Annotated[
        bool, typer.Option("--text", help="Treat every line as a text, even one that looks like JSON.")
    ] = False,
    config: options.Config = None,
    bootstrap: options.Bootstrap = None,
) -> None:
    """Send each line of a file as one record.

    A file that starts with a brace is JSON lines, sent unchanged. In any other file each line is a request's text. A
    byte order mark is skipped. A JSON array is refused.

    Example: [bold]murmura publish murmura.classification.requests questions.txt[/bold]

    One message: [bold]echo "where is my card?" | murmura publish murmura.analysis.requests -[/bold]
    """
    from ..until_signalled import run_until_stopped

    settings = options.settings(config, bootstrap=bootstrap)

    async def main(stop: "asyncio.Event") -> int:
        return await _publish(settings, topic, file, key_field, text, stop)

    sent = run_until_stopped(main)
    typer.echo(f"published {sent:,} records to {topic}", err=True)


async def _publish(
    settings: "Settings", topic: str, file: str, key_field: str | None, text: bool, stop: "asyncio.Event"
) -> int:
    import asyncio

    from aiokafka.errors import KafkaError

    from ...kafka.broker_diagnosis import describe_refusal
    from ...kafka.sending.producer import producer_factory
    from ...kafka.topics import require_topics

    await require_topics(settings.kafka, [topic])
    producer = producer_factory(settings.kafka, settings.producer)()
    await producer.start()
    sent = 0
    try:
        with open_input(file) as stream, _Progress(file) as progress:
            lines = read_records(stream, file, key_field, text)
            async for chunk in _read_piped(lines, stop) if file == "-" else _read(lines, stop):
                async with asyncio.timeout(settings.producer.send_timeout_s):
                    await asyncio.gather(*[await producer.send(topic, *record) for record in chunk])
                sent += len(chunk)
                progress.show(stream, sent)
    except (KafkaError, TimeoutError) as error:
        why = describe_refusal(settings.kafka, error)
        raise SetupError(f"after {sent} records the broker did not take one: {why}") from None
    finally:
        await producer.stop()
    return sent


async def _read(records: Iterator[Record], stop: "asyncio.Event") -> AsyncIterator[list[Record]]:
    """Yield the records of a file in chunks."""
    while not stop.is_set() and (chunk := list(islice(records, CHUNK_RECORDS))):
        yield chunk


async def _read_piped(records: Iterator[Record], stop: "asyncio.Event") -> AsyncIterator[list[Record]]:
    """Yield the records of stdin in chunks of what is available.

    Reads in a daemon thread, which is abandoned at the end: a blocked read could not be interrupted by Ctrl-C.
    """
    import asyncio
    import threading

    loop = asyncio.get_running_loop()
    received: asyncio.Queue[Record | SetupError | None] = asyncio.Queue()
    room = threading.Semaphore(CHUNK_RECORDS)

    def read() -> None:
        end = None
        try:
            for record in records:
                room.acquire()
                loop.call_soon_threadsafe(received.put_nowait, record)
        except SetupError as error:
            end = error
        with suppress(RuntimeError):  # the loop is closed: the thread was abandoned
            loop.call_soon_threadsafe(received.put_nowait, end)

    threading.Thread(target=read, name="stdin", daemon=True).start()
    stopped = asyncio.ensure_future(stop.wait())
    while not stop.is_set():
        first = asyncio.ensure_future(received.get())
        await asyncio.wait((first, stopped), return_when=asyncio.FIRST_COMPLETED)
        found = [first.result()] if first.done() else []
        while not received.empty():
            found.append(received.get_nowait())
        chunk = [item for item in found if isinstance(item, tuple)]
        room.release(len(chunk) or 1)
        if chunk:
            yield chunk
        if found and not isinstance(found[-1], tuple):
            if found[-1] is not None:
                raise found[-1]
            break
    stopped.cancel()


@contextmanager
def open_input(file: str) -> Iterator[BinaryIO]:
    """Open a file to read, or stdin for `-`. Raises SetupError when that fails."""
    if file == "-":
        # Not sys.stdin, and never closed: both would wait for the thread that blocks in a read.
        yield open(0, "rb", closefd=False)  # noqa: SIM115
        return
    try:
        stream = Path(file).open("rb")  # noqa: SIM115  (an OSError of the body must not be caught)
    except OSError as error:
        raise SetupError(f"{file}: {(error.strerror or str(error)).lower()}") from None
    with stream:
        yield stream


def read_records(stream: BinaryIO, file: str, key_field: str | None, text: bool) -> Iterator[Record]:
    """Yield value and key of each non-blank line. Raises SetupError for a file of neither JSON nor text lines."""
    json_lines: bool | None = False if text else None
    for number, raw in enumerate(stream, start=1):
        line = raw.removeprefix(BOM_UTF8).strip() if number == 1 else raw.strip()
        if number == 1:
            _refuse_wide_characters(line, file)
        if not line:
            continue
        if json_lines is None:
            json_lines = _is_json(line, file, number)
        yield _json_record(line, file, number, key_field) if json_lines else (_text_record(line, file, number), None)


def _is_json(line: bytes, file: str, number: int) -> bool:
    """Return whether a file is JSON lines, from its first non-blank line. Raises SetupError for other forms of JSON."""
    if line.startswith(b"["):
        raise SetupError(
            f"{file}, line {number}: begins with [, a JSON array; expected a line for each record: "
            f"jq -c '.[]' {file} makes them, --text sends every line as a text"
        )
    if line == b"{":
        raise SetupError(
            f"{file}, line {number}: a JSON object over several lines; expected a line for each record: "
            f"jq -c . {file} makes them, --text sends every line as a text"
        )
    return line.startswith(b"{")


def _refuse_wide_characters(line: bytes, file: str) -> None:
    if line.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) or b"\0" in line:
        raise SetupError(
            f"{file}: UTF-16 (as some Windows programs write), expected UTF-8: iconv -f UTF-16 -t UTF-8 {file}"
        )


def _text_record(line: bytes, file: str, number: int) -> bytes:
    try:
        return json.dumps({"text": line.decode()}, ensure_ascii=False).encode()
    except UnicodeDecodeError:
        raise SetupError(f"{file}, line {number}: expected UTF-8") from None


def _json_record(line: bytes, file: str, number: int, key_field: str | None) -> Record:
    try:
        fields = json.loads(line)
    except ValueError as error:
        raise SetupError(f"{file}, line {number}: not JSON ({error}); --text sends every line as a text") from None
    if key_field is None:
        return line, None
    if not isinstance(fields, dict) or key_field not in fields:
        raise SetupError(f"{file}, line {number}: no field {key_field} to use as the key")
    return line, str(fields[key_field]).encode()


class _Progress:
    """A progress bar over a file's bytes, on a terminal only."""

    def __init__(self, file: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.fields[sent]:,} records"),
            BarColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=file == "-" or not console.is_terminal,
            transient=True,
        )
        self._task = self._bar.add_task("", total=Path(file).stat().st_size if file != "-" else None, sent=0)

    def __enter__(self) -> "_Progress":
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def show(self, stream: BinaryIO, sent: int) -> None:
        if not self._bar.disable:
            self._bar.update(self._task, completed=stream.tell(), sent=sent)
