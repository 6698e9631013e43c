"""`murmura feedback`."""

import json
import re
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import sha256
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Final

import typer

from ...runtime.agent.discovery import find_misspelling
from ...runtime.cli import options
from ...runtime.errors import RecordError, SetupError
from ...schemas.feedback import Feedback, Verdict

if TYPE_CHECKING:
    import asyncio

    from ...runtime.settings.settings import Settings

CHUNK_RECORDS: Final = 1000
_SPAN = re.compile(r"(\d+):(\d+):(.+)")


def feedback(
    prediction_id: Annotated[
        str | None, typer.Argument(metavar="PREDICTION_ID", help="From the result.", show_default=False)
    ] = None,
    agent: Annotated[
        str | None, typer.Option("--agent", metavar="NAME", help="Agent that made the prediction.")
    ] = None,
    task: Annotated[str | None, typer.Option("--task", metavar="NAME")] = None,
    label: Annotated[str | None, typer.Option("--label", help="Correct label.")] = None,
    reply: Annotated[
        str | None, typer.Option("--reply", metavar="TEXT", help="The words that the reply should have had.")
    ] = None,
    labels: Annotated[
        str | None, typer.Option("--labels", metavar="A,B", help="All correct labels of a multi-label task.")
    ] = None,
    spans: Annotated[
        str | None, typer.Option("--spans", metavar="START:END:LABEL,...", help="All correct spans of the text.")
    ] = None,
    reward: Annotated[
        float | None, typer.Option("--reward", metavar="NUMBER", help="Reward of the prediction.")
    ] = None,
    withdraw: Annotated[
        str | None, typer.Option("--withdraw", metavar="ID", help="Id of the feedback to withdraw.")
    ] = None,
    verdict: Annotated[
        Verdict | None, typer.Option("--verdict", help="Default: inferred from the options above.", show_default=False)
    ] = None,
    by: Annotated[str | None, typer.Option("--by", metavar="NAME", help="Author of the feedback.")] = None,
    consent: Annotated[bool, typer.Option("--consent/--no-consent", help="Allow training on the text.")] = False,
    model: Annotated[
        str | None, typer.Option("--model", metavar="NAME/VERSION", help="Version that answered, for live accuracy.")
    ] = None,
    file: Annotated[
        str | None, typer.Option("--file", metavar="FILE|-", help="Feedback as JSON lines; - is stdin.")
    ] = None,
    config: options.Config = None,
    bootstrap: options.Bootstrap = None,
) -> None:
    """Give feedback on a prediction.

    Example: [bold]murmura feedback 7525d86cb8d3ad17cc4654843b6d4a50 --agent classification --task intent --label refund --by ann --consent[/bold]

    Confirm a correct prediction with [bold]--verdict confirmed[/bold]. Send many with [bold]--file feedback.jsonl[/bold]: fields missing in a line are taken from the options. The id of a line without one is the hash of its content, so sending the file again repeats the same feedback. Equal lines count as one verdict; to record A, then B, then A again, give the lines their times in [bold]at[/bold].
    """
    from ...runtime.cli.until_signalled import run_until_stopped

    given = {
        "prediction_id": prediction_id,
        "agent": agent,
        "task": task,
        "verdict": verdict or _infer_verdict(label, reply, labels, spans, reward, withdraw),
        "value": _value(label, reply, labels, spans, reward, withdraw),
        "by": by,
        "consent": consent,
        "model": _model(model),
    }
    fields = {name: value for name, value in given.items() if value is not None}
    if (prediction_id is None) == (file is None):
        raise SetupError("give either a PREDICTION_ID or --file FILE")
    settings = options.settings(config, bootstrap=bootstrap)
    if file is None:
        item = _parse_feedback({"id": str(uuid.uuid4()), **fields}, "")
        doubts = [_check_names(settings, item), find_misspelling(item.agent)]
        run_until_stopped(lambda stop: _send(settings, iter([item]), stop))
        typer.echo(item.id)
        typer.echo(_describe_published(item), err=True)
        for doubt in filter(None, doubts):
            typer.echo(doubt, err=True)
        return
    from ...runtime.cli.records.publish import open_input

    with open_input(file) as stream:
        items = _read_items(stream, file, fields)
        sent = run_until_stopped(lambda stop: _send(settings, items, stop))
    typer.echo(f"published {sent:,} to {settings.prefix}.feedback", err=True)


def _check_names(settings: "Settings", item: Feedback) -> str | None:
    """Refuse names that the model of the settings lacks, or return what is not sure."""
    from .name_check import check_names

    return None if item.verdict is Verdict.WITHDRAWN else check_names(item, settings.for_agent(item.agent).model.folder)


def _infer_verdict(*values: object) -> Verdict | None:
    *corrections, reward, withdraw = values
    if any(value is not None for value in corrections):
        return Verdict.CORRECTION
    if reward is not None:
        return Verdict.REWARD
    return None if withdraw is None else Verdict.WITHDRAWN


def _value(
    label: str | None,
    reply: str | None,
    labels: str | None,
    spans: str | None,
    reward: float | None,
    withdraw: str | None,
) -> object:
    split = None if labels is None else [each for each in labels.split(",") if each]
    marked = None if spans is None else [_span(each) for each in spans.split(",") if each]
    given = [value for value in (label, reply, split, marked, reward, withdraw) if value is not None]
    if len(given) > 1:
        raise SetupError("--label, --reply, --labels, --spans, --reward and --withdraw exclude each other")
    return given[0] if given else None


def _span(text: str) -> dict[str, Any]:
    found = _SPAN.fullmatch(text)
    if found is None:
        raise SetupError(f"--spans: expected START:END:LABEL, found {text!r}")
    return {"start": int(found[1]), "end": int(found[2]), "label": found[3]}


def _model(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    name, _, version = text.rpartition("/")
    if not name or not version.isdecimal():
        raise SetupError(f"--model: expected NAME/VERSION, found {text!r}")
    return {"name": name, "version": int(version)}


def _read_items(stream: BinaryIO, file: str, defaults: dict[str, Any]) -> Iterator[Feedback]:
    for number, raw in enumerate(stream, start=1):
        if not raw.strip():
            continue
        prefix = f"{file}, line {number}: "
        try:
            line = json.loads(raw)
        except ValueError as error:
            raise SetupError(f"{prefix}not JSON ({error})") from None
        if not isinstance(line, dict):
            raise SetupError(f"{prefix}expected an object, found {type(line).__name__}")
        fields = {**defaults, **line}
        # The id is made of the content, `at` included: sending a file again repeats the same feedback.
        content = json.dumps(fields, sort_keys=True).encode()
        yield _parse_feedback({"id": sha256(content).hexdigest()[:32], **fields}, prefix)


def _parse_feedback(fields: dict[str, Any], prefix: str) -> Feedback:
    from pydantic import ValidationError

    from ...runtime.wire.feedback import refuse_blank

    try:
        feedback = Feedback.model_validate({"at": datetime.now(UTC), **fields})
        refuse_blank(feedback)
    except RecordError as error:
        raise SetupError(f"{prefix}{error}") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        if first["type"] == "missing":
            option = name.replace("_", "-")
            raise SetupError(f"{prefix}{name} is missing" + ("" if prefix else f": give --{option}")) from None
        raise SetupError(f"{prefix}{name or 'feedback'}: {first['msg'].removeprefix('Value error, ')}") from None
    return feedback


async def _send(settings: "Settings", items: Iterator[Feedback], stop: "asyncio.Event") -> int:
    import asyncio

    from aiokafka.errors import KafkaError

    from ...runtime.kafka.broker_diagnosis import describe_refusal
    from ...runtime.kafka.sending.producer import producer_factory
    from ...runtime.kafka.topics import require_topics
    from ...runtime.wire.feedback import to_record

    topic = f"{settings.prefix}.feedback"
    await require_topics(settings.kafka, [topic])
    producer = producer_factory(settings.kafka, settings.producer)()
    await producer.start()
    sent = 0
    try:
        while not stop.is_set() and (chunk := list(islice(items, CHUNK_RECORDS))):
            async with asyncio.timeout(settings.producer.send_timeout_s):
                sending = [await producer.send(**to_record(item, topic)) for item in chunk]
                await asyncio.gather(*sending)
            sent += len(chunk)
    except SetupError as error:
        raise SetupError(f"{error} ({sent} records before it were sent)") from None
    except (KafkaError, TimeoutError) as error:
        why = describe_refusal(settings.kafka, error)
        raise SetupError(f"after {sent} records the broker did not take one: {why}") from None
    finally:
        await producer.stop()
    return sent


def _describe_published(item: Feedback) -> str:
    if item.verdict is Verdict.WITHDRAWN:
        return "taken back"
    trained_on = "" if item.consent else "; without --consent it counts, and is not trained on"
    return f"published; `--withdraw {item.id}` takes it back{trained_on}"
