"""Logs: one JSON object a line, correlation ids on it, storms cut down."""

import asyncio
import io
import json
import logging

import pytest
import structlog

from murmura.runtime.observe import logs


@pytest.fixture(autouse=True)
def _restore_logging():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_our_events_are_json_lines_with_level_time_and_logger():
    stream = io.StringIO()
    logs.configure(stream=stream)
    logs.get_logger("murmura.test", app="desk").info("serving", topics=["a"])
    (line,) = lines(stream)
    assert (line["event"], line["level"], line["logger"]) == ("serving", "info", "murmura.test")
    assert (line["app"], line["topics"]) == ("desk", ["a"])
    assert line["timestamp"].endswith("Z")


def test_correlation_ids_reach_every_line_within():
    stream = io.StringIO()
    logs.configure(stream=stream)
    with structlog.contextvars.bound_contextvars(request_id="r1"):
        logs.get_logger("murmura.test").info("ours")
        logging.getLogger("somebody.else").warning("theirs %s", 1)
    logs.get_logger("murmura.test").info("after")
    assert [line.get("request_id") for line in lines(stream)] == ["r1", "r1", None]
    assert lines(stream)[1]["event"] == "theirs 1"


def test_an_exception_is_one_line():
    stream = io.StringIO()
    logs.configure(stream=stream)
    try:
        raise ValueError("bad")
    except ValueError:
        logs.get_logger("murmura.test").exception("failed")
    (line,) = lines(stream)
    assert "ValueError: bad" in line["exception"]


@pytest.mark.parametrize("format", ["pretty", "json"])
def test_an_exception_shows_no_text_of_a_record(format):
    def handle(text):
        parts = {"text": text}
        raise KeyError(len(parts))

    text = "-".join(("my", "card"))  # a traceback shows the lines of the source, so it may not stand there
    stream = io.StringIO()
    logs.configure(format=format, stream=stream)
    try:
        handle(text)
    except KeyError:
        logs.get_logger("murmura.test").exception("failed", topic="tickets")
        logging.getLogger("somebody.else").exception("failed too")
    assert stream.getvalue().count("KeyError: 1") == 2
    assert text not in stream.getvalue()


def test_levels_below_the_chosen_one_are_silent():
    stream = io.StringIO()
    logs.configure("warning", stream=stream)
    logs.get_logger("murmura.test").info("quiet")
    assert stream.getvalue() == ""


def test_a_terminal_gets_text_and_not_json():
    stream = io.StringIO()
    logs.configure(format="pretty", stream=stream)
    logs.get_logger("murmura.test").info("serving", topics=2)
    assert "serving" in stream.getvalue()
    assert not stream.getvalue().startswith("{")


def test_a_storm_of_one_template_is_cut_and_counted():
    now = [0.0]
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(logs.RateLimit(("aiokafka",), limit=2, period_s=10, clock=lambda: now[0]))
    logger = logging.getLogger("aiokafka.conn")
    logger.addHandler(handler)
    try:
        for node in range(50):
            logger.error("Unable to connect to %s", node)
        logger.error("something else")
        now[0] = 11.0
        logger.error("Unable to connect to %s", 50)
    finally:
        logger.removeHandler(handler)
    assert stream.getvalue().splitlines() == [
        "Unable to connect to 0",
        "Unable to connect to 1",
        "something else",
        "(suppressed 48 of these) Unable to connect to 50",
    ]


def test_our_own_line_about_a_failure_is_written_ten_times_in_ten_seconds_and_then_counted():
    now, stream = [0.0], io.StringIO()
    limit = logs.OwnRateLimit(clock=lambda: now[0])
    logs.configure(stream=stream)
    processors = structlog.get_config()["processors"]
    structlog.configure(processors=[limit if isinstance(p, logs.OwnRateLimit) else p for p in processors])
    log = logs.get_logger("murmura.test")
    for offset in range(5000):
        log.error("an agent failed", agent="triage", offset=offset)
    log.error("an agent failed", agent="mood", offset=7)
    now[0] = 10.0
    log.error("an agent failed", agent="triage", offset=5000)
    assert [(line["agent"], line["offset"], line.get("suppressed")) for line in lines(stream)] == [
        *(("triage", offset, None) for offset in range(10)),
        ("mood", 7, None),
        ("triage", 5000, 4990),
    ]


def test_what_a_process_says_of_its_work_is_never_cut():
    stream = io.StringIO()
    logs.configure(stream=stream)
    for epoch in range(50):
        logs.get_logger("murmura.test").info("epoch", number=epoch)
    assert len(lines(stream)) == 50


def test_what_the_client_repeats_in_an_outage_is_written_three_times_a_minute(monkeypatch):
    now, stream = [0.0], io.StringIO()
    monkeypatch.setattr(logs.RateLimit.__init__, "__defaults__", (3, 10.0, lambda: now[0]))
    logs.configure(stream=stream)
    for second in range(150):
        now[0] = float(second)
        for _ in range(10):
            logging.getLogger("aiokafka.cluster").error("Topic %s not found in cluster metadata", "requests")
    written = [line["event"] for line in lines(stream)]
    assert len(written) == 9
    assert [line.split(" of these")[0] for line in written if "suppressed" in line] == ["(suppressed 597"] * 2


def test_a_collector_that_is_away_is_told_of_once_in_a_minute():
    stream = io.StringIO()
    logs.configure(stream=stream)
    exporter = logging.getLogger("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    for n in range(20):
        exporter.warning("Transient error %s encountered while exporting span batch, retrying in %.2fs.", n, 0.8)
        exporter.error("Failed to export spans batch due to timeout, max retries or shutdown.")
    assert [line["level"] for line in lines(stream)] == ["warning", "error"]


def test_other_loggers_are_never_cut():
    limit = logs.RateLimit(("aiokafka",), limit=1)
    record = logging.LogRecord("aiokafkaesque", logging.ERROR, "", 0, "again", (), None)
    assert all(limit.filter(record) for _ in range(5))


def test_a_missing_coordinator_is_said_once_it_is_missing_for_longer_than_a_set_up_takes():
    seconds = [0.0]
    quiet = logs.NewBroker(lambda: seconds[0])
    line = logging.makeLogRecord(
        {
            "name": "aiokafka.consumer.group_coordinator",
            "msg": "failed: %s",
            "args": ("[15] GroupCoordinatorNotAvailableError",),
        }
    )
    other = logging.makeLogRecord({"name": "aiokafka", "msg": "Unable to connect"})
    assert not quiet.filter(line)
    assert quiet.filter(other)
    seconds[0] = 14.0
    assert not quiet.filter(line)
    seconds[0] = 16.0
    assert quiet.filter(line)


async def test_a_quiet_client_silences_only_what_begins_in_its_block():
    stream = io.StringIO()
    logs.configure(stream=stream)
    logger = logging.getLogger("aiokafka.client")

    async def speak(word: str, enter: asyncio.Event, leave: asyncio.Event) -> None:
        enter.set()
        await leave.wait()
        logger.error(word)

    quiet, loud, go = asyncio.Event(), asyncio.Event(), asyncio.Event()
    with logs.quiet_client():
        inside = asyncio.create_task(speak("inside", quiet, go))
        logger.error("the block itself")
    outside = asyncio.create_task(speak("outside", loud, go))
    await asyncio.gather(quiet.wait(), loud.wait())
    with logs.quiet_client():
        go.set()
        await asyncio.gather(inside, outside)
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["outside"]
