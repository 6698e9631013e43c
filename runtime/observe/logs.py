"""Logging: structlog for our own events and for everything that uses the standard library's logging.

Writes JSON lines, or coloured columns on a terminal. Correlation ids are context variables (`structlog.contextvars`):
use `bound_contextvars(request_id=...)` around the work. Payloads (values, keys, texts) are never logged.
"""

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, Final, Literal, TextIO

import structlog

from ..settings.redaction import redact_text

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["auto", "json", "pretty"]

_FIRST: Final = ("timestamp", "level", "event")
_LIMITED: Final = frozenset({"warning", "warn", "error", "exception"})
_MOST_KEYS: Final = 1000
# During an outage aiokafka logs some 80 lines a second. An unreachable collector is logged at every attempt of every
# export, and costs only spans: one line per minute is enough.
BROKER: Final = ("aiokafka",)
BROKER_PERIOD_S: Final = 60.0
COLLECTOR: Final = ("opentelemetry",)
# A new broker creates its offsets topic when a group first needs it.
COORDINATOR_S: Final = 15.0
# At DEBUG these log complete requests and records: passwords of SASL PLAIN, keys and texts.
_LOGS_PAYLOADS: Final = ("aiokafka.conn", "aiokafka.producer.producer")
# Limit of our own warnings: an agent that fails on every record would log up to 20,000 lines a second.
OWN_LINES: Final = 10
OWN_PERIOD_S: Final = 10.0


def configure(level: Level = "info", format: Format = "auto", stream: TextIO | None = None) -> None:
    """Send all logging of this process to `stream` (default: stderr). May be called repeatedly."""
    stream = stream or sys.stderr
    pretty = format == "pretty" or (format == "auto" and stream.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if pretty else "iso", utc=not pretty),
    ]
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_renderers(pretty, stream)],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    _limit_loggers(handler, level)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            OwnRateLimit(),
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def _renderers(pretty: bool, stream: TextIO) -> list[structlog.typing.Processor]:
    if pretty:
        # The default formatter shows local variables of every frame, texts and keys included.
        plain = structlog.dev.plain_traceback
        columns = structlog.dev.ConsoleRenderer(colors=stream.isatty(), pad_event_to=32, exception_formatter=plain)
        return [_remove_credentials, columns]
    lines = structlog.processors.JSONRenderer()
    return [structlog.processors.format_exc_info, _remove_credentials, _order_keys, lines]


def _remove_credentials(logger: Any, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Remove credentials from addresses: libraries log the address that they cannot connect to."""
    for key, value in event.items():
        if isinstance(value, str) and ("://" in value or "@" in value or "?" in value):
            event[key] = redact_text(value)
    return event


def _order_keys(logger: Any, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Order the keys for human readers."""
    return {key: event[key] for key in _FIRST if key in event} | dict(event)


def _limit_loggers(handler: logging.Handler, level: Level) -> None:
    handler.addFilter(RateLimit(BROKER, period_s=BROKER_PERIOD_S))
    handler.addFilter(NewBroker())
    handler.addFilter(RateLimit(COLLECTOR, limit=1, period_s=60.0))
    # These repeat at INFO what our own events say.
    for name in ("aiokafka", "uvicorn", "faststream"):
        logging.getLogger(name).setLevel(logging.DEBUG if level == "debug" else logging.WARNING)
    for name in _LOGS_PAYLOADS:
        logging.getLogger(name).setLevel(logging.INFO if level == "debug" else logging.NOTSET)


class LineCounts:
    """Counts lines by key, at most `limit` in `period_s`. The period of a key starts with its first line."""

    def __init__(self, limit: int, period_s: float, clock: Callable[[], float]) -> None:
        self._limit, self._period_s, self._clock = limit, period_s, clock
        self._lines: dict[tuple[str, ...], tuple[float, int]] = {}
        """By key: start of the period, number of lines in it."""

    def count(self, key: tuple[str, ...]) -> tuple[bool, int]:
        """Count a line; return whether to write it, and how many of its key the last period suppressed."""
        now = self._clock()
        start, lines = self._lines.get(key, (now, 0))
        left_out = 0
        if now - start >= self._period_s:
            left_out = max(lines - self._limit, 0)
            start, lines = now, 0
        if len(self._lines) >= _MOST_KEYS and key not in self._lines:  # messages built before they were logged
            self._lines.clear()
        self._lines[key] = (start, lines + 1)
        return lines < self._limit, left_out


class RateLimit(logging.Filter):
    """Passes at most `limit` lines in `period_s` per message template of the named loggers.

    It counts templates, not lines: `"Unable to connect to %s"` is the same for all addresses. After the period, the
    next line of the template starts with the number of suppressed lines. Add it to a handler, because a logger's filter
    does not see the records of its child loggers.
    """

    def __init__(
        self,
        loggers: tuple[str, ...],
        limit: int = 3,
        period_s: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._loggers, self._counts = loggers, LineCounts(limit, period_s, clock)

    def filter(self, record: logging.LogRecord) -> bool:
        if not any(record.name == name or record.name.startswith(name + ".") for name in self._loggers):
            return True
        passes, suppressed = self._counts.count((record.name, str(record.msg)))
        if suppressed:
            record.msg = f"(suppressed {suppressed} of these) {record.msg}"
        return passes


class OwnRateLimit:
    """Drops our own warnings and errors beyond `limit` in `period_s` of one event, one logger and one agent.

    The first line of the next period has the number of dropped lines in `suppressed`.
    """

    def __init__(
        self, limit: int = OWN_LINES, period_s: float = OWN_PERIOD_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._counts = LineCounts(limit, period_s, clock)

    def __call__(self, logger: Any, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        if method in _LIMITED:
            key = (str(logger.name), str(event.get("event")), str(event.get("agent")))
            passes, suppressed = self._counts.count(key)
            if not passes:
                raise structlog.DropEvent
            if suppressed:
                event["suppressed"] = suppressed
        return event


class NewBroker(logging.Filter):
    """Drops aiokafka's lines about a missing group coordinator until it has been missing for longer than at setup."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._first: float | None = None

    def filter(self, record: logging.LogRecord) -> bool:
        if "GroupCoordinatorNotAvailable" not in record.getMessage() or not record.name.startswith(BROKER):
            return True
        now = self._clock()
        self._first = now if self._first is None else self._first
        return now - self._first > COORDINATOR_S


_quiet: ContextVar[bool] = ContextVar("quiet", default=False)


def _is_not_quiet(record: logging.LogRecord) -> bool:
    return not _quiet.get()


@contextlib.contextmanager
def quiet_client() -> Iterator[None]:
    """Drop the Kafka client's log lines in this block and in tasks started in it. The block's error reports the
    problem.

    Other clients of the process keep logging: a context variable distinguishes them.
    """
    # A filter belongs to one logger and does not see the records of its child loggers.
    for name, logger in logging.root.manager.loggerDict.items():
        if isinstance(logger, logging.Logger) and name.startswith(BROKER):
            logger.addFilter(_is_not_quiet)
    token = _quiet.set(True)
    try:
        yield
    finally:
        _quiet.reset(token)


def get_logger(name: str, **bound: Any) -> structlog.stdlib.BoundLogger:
    """Return a logger that adds `bound` to each line."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name, **bound)
    return logger
