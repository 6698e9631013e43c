"""Logs: one JSON object a line, correlation ids on it, storms cut down."""

import io
import json
import logging

import pytest
import structlog

from murmura.runtime import logs


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


def test_other_loggers_are_never_cut():
    limit = logs.RateLimit(("aiokafka",), limit=1)
    record = logging.LogRecord("aiokafkaesque", logging.ERROR, "", 0, "again", (), None)
    assert all(limit.filter(record) for _ in range(5))
