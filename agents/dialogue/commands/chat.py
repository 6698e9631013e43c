"""`murmura chat`."""

import json
import sys
import time
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Final

import typer

from ....runtime.cli import options
from ....runtime.errors import SetupError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

    from ....runtime.settings.settings import Settings

POLL_MS: Final = 20
"""Short polls: the mock broker does not wake a waiting fetch, and at a person's rate they cost nothing."""
PROMPT: Final = "you> "
QUIT: Final = "/quit"


def chat(
    conversation: Annotated[
        str | None, typer.Option("--conversation", metavar="ID", help="Conversation to continue. Default: a new one.")
    ] = None,
    patience: Annotated[
        float, typer.Option("--patience", min=0.1, metavar="S", help="How long to wait for a reply.")
    ] = 30,
    as_json: Annotated[bool, typer.Option("--json", help="Print only the replies, one JSON object per line.")] = False,
    config: options.Config = None,
    bootstrap: options.Bootstrap = None,
) -> None:
    """Talk to the dialogue agent.

    Each line is a turn; its reply is printed before the next one is read. /quit, Ctrl-D or Ctrl-C ends. The agent runs in
    another process: [bold]murmura serve dialogue[/bold].

    Example: [bold]murmura chat --bootstrap localhost:9092[/bold]

    In a pipe: [bold]murmura chat --json < turns.txt[/bold]
    """
    from ....runtime.cli.until_signalled import run_until_stopped

    settings = options.settings(config, bootstrap=bootstrap, fetch_max_wait_ms=POLL_MS)
    conversation = f"chat-{uuid.uuid4().hex[:12]}" if conversation is None else conversation
    key = _key(conversation)

    async def main(stop: "asyncio.Event") -> None:
        await _chat(settings, key, patience, as_json, stop)

    if not as_json:
        typer.echo(f"conversation {conversation}; {QUIT} ends", err=True)
    run_until_stopped(main)


async def _chat(
    settings: "Settings", conversation: bytes, patience_s: float, as_json: bool, stop: "asyncio.Event"
) -> None:
    from ....runtime.cli.records.publish import open_input
    from ....runtime.kafka.groupless_reader import open_reader
    from ....runtime.kafka.sending.producer import producer_factory
    from ....runtime.kafka.topics import require_topics
    from ....runtime.settings.settings import ProducerSettings

    turns, replies = _topics(settings)
    await require_topics(settings.kafka, [turns, replies])
    run = uuid.uuid4().hex[:8]  # unique ids: a turn with the id of an earlier run would get the earlier reply
    producer = producer_factory(settings.kafka, ProducerSettings(linger_ms=0))()
    async with open_reader(settings.kafka, [replies], from_beginning=False) as consumer:
        await producer.start()
        try:
            with open_input("-") as stream:
                number = 0
                while (text := await _read_line(stream, stop, prompt=not as_json)) not in {None, QUIT}:
                    if not text:
                        continue
                    number += 1
                    value = {"text": text, "id": f"chat-{run}-{number}"}
                    sent_at = time.monotonic()
                    await _send_turn(producer, turns, conversation, value, settings.producer.send_timeout_s)
                    reply = await _await_reply(consumer, value["id"], patience_s, stop)
                    if reply is not None:
                        _show(reply, time.monotonic() - sent_at, as_json)
                    else:
                        _report_no_reply(patience_s, go_on=sys.stdin.isatty() and not as_json)
        finally:
            await producer.stop()


async def _read_line(stream: BinaryIO, stop: "asyncio.Event", *, prompt: bool) -> str | None:
    """Return the next line of stdin, None at its end or when `stop` is set.

    Read in a daemon thread that is abandoned at the end: no further line may ever arrive, and Ctrl-C must work.
    """
    import asyncio
    import threading

    if stop.is_set():
        return None
    if prompt and sys.stdin.isatty():
        typer.echo(PROMPT, nl=False)
    loop = asyncio.get_running_loop()
    received: asyncio.Future[bytes] = loop.create_future()

    def set_line(line: bytes) -> None:
        if not received.done():
            received.set_result(line)

    def read() -> None:
        try:
            line = stream.readline()
        except OSError:  # the terminal is closed
            line = b""
        with suppress(RuntimeError):  # the event loop is closed: nobody waits for the line
            loop.call_soon_threadsafe(set_line, line)

    threading.Thread(target=read, name="stdin", daemon=True).start()
    stopped = asyncio.ensure_future(stop.wait())
    await asyncio.wait((stopped, received), return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if not received.done() or not received.result():
        received.cancel()
        return None
    return received.result().decode(errors="replace").strip()


def _key(conversation: str) -> bytes:
    """Return the conversation's id as the turns' key. Raises SetupError for an id that the agent would refuse."""
    from ....schemas.dialogue import CONVERSATION_ID_BYTES

    try:
        key = conversation.encode()
    except UnicodeEncodeError:
        raise SetupError("--conversation: the id is not UTF-8") from None
    if not 0 < len(key) <= CONVERSATION_ID_BYTES:
        raise SetupError(f"--conversation: the id has {len(key)} bytes, 1 to {CONVERSATION_ID_BYTES} are one")
    return key


def _topics(settings: "Settings") -> tuple[str, str]:
    """Return the topics of turns and of replies, from the agent's settings."""
    agent = settings.agents.get("dialogue")
    turns = agent.topics[0] if agent and agent.topics else f"{settings.prefix}.dialogue.turns"
    replies = agent.output if agent and agent.output else f"{settings.prefix}.dialogue.replies"
    return turns, replies


async def _send_turn(producer: Any, topic: str, conversation: bytes, value: dict[str, str], timeout_s: float) -> None:
    import asyncio

    from aiokafka.errors import KafkaError

    try:
        async with asyncio.timeout(timeout_s):
            raw = json.dumps(value, ensure_ascii=False).encode()
            await producer.send_and_wait(topic, raw, key=conversation)
    except (KafkaError, TimeoutError) as error:
        raise SetupError(f"the broker did not take the turn: {type(error).__name__}") from None


async def _await_reply(
    consumer: Any, request_id: str, patience_s: float, stop: "asyncio.Event"
) -> dict[str, Any] | None:
    """Return the reply to the turn with this request id, None when none arrives in time."""
    from ....runtime.kafka.groupless_reader import PartitionsReader

    found: list[dict[str, Any]] = []

    def take(records: "Sequence[Any]") -> None:
        replies = (_parse_fields(record.value) for record in records)
        found.extend(reply for reply in replies if reply.get("request_id") == request_id)

    reader = PartitionsReader(consumer, take)
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline and not stop.is_set():
        await reader.read_more(POLL_MS)
        if found:
            return found[0]
    if stop.is_set():
        raise typer.Exit
    return None


def _report_no_reply(patience_s: float, *, go_on: bool) -> None:
    """Print that a turn got no reply; without `go_on` (input from a pipe) raise it as SetupError."""
    message = f"no reply within {patience_s:g} s: is `murmura serve dialogue` running? See also the dead letters"
    if not go_on:
        raise SetupError(message)
    typer.secho(message, dim=True, err=True)


def _parse_fields(value: bytes | None) -> dict[str, Any]:
    try:
        fields = json.loads(value or b"null")
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


def _show(reply: dict[str, Any], seconds: float, as_json: bool) -> None:
    from ....runtime.wire.summary import safe

    if as_json:
        typer.echo(json.dumps(reply, ensure_ascii=False))
        return
    kind = f"{reply.get('kind')}, {reply.get('intent') or 'no intent'}, {seconds * 1000:.0f} ms"
    typer.echo(f"desk> {safe(str(reply.get('text')))}  {typer.style(f'({kind})', dim=True)}")
