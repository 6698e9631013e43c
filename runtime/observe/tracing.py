"""OpenTelemetry: one span per sampled record, from its arrival until its results are acknowledged.

A record whose `traceparent` is sampled is traced, with the span named there as parent; one that is not sampled is not
traced. Without a `traceparent`, a share of the request ids starts a trace: all hops of a request have its id, so they
decide alike. Messages published for a traced record have its span's `traceparent`.

The decision uses raw bytes; only sampled records cost a span. No other module imports OpenTelemetry.
"""

import asyncio
import re
import sys
import threading
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4
from zlib import crc32

from ..errors import SetupError
from ..settings.kafka import CLIENT_ID
from ..wire.message import Record
from ..wire.request import names_of

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

    from ..settings.settings import Settings
    from ..wire.request import Incoming

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.44.0"
"""The version of OpenTelemetry's semantic conventions that the attributes follow."""
_FLAGS: Final = 54
"""Index of the last digit of the flags in `00-<32 digits>-<16 digits>-<2 digits>`."""
_SAMPLED: Final = frozenset(b"13579bdf")
_IDS: Final = rb"-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}"
_FORM: Final = re.compile(rb"00" + _IDS)
_LATER: Final = re.compile(rb"(?!ff)[0-9a-f]{2}" + _IDS + rb"(?:-.*)?", re.DOTALL)
"""Later versions start with the same fields and may have more; ff is not a version."""
_STOP_S: Final = 3.0


class Span:
    """One traced record. It is exported when `end` is called, and only then."""

    __slots__ = ("_span", "record", "traceparent")

    def __init__(self, span: Any, record: Record) -> None:
        self._span = span
        self.record = record
        context = span.get_span_context()
        self.traceparent = b"00-%032x-%016x-01" % (context.trace_id, context.span_id)

    def handled_by(self, agent: str) -> None:
        """Set the handler of the record."""
        self._span.set_attribute("murmura.agent", agent)

    def answered(self, model: str, version: int, rows: int) -> "Span":
        """Set the model that answered, and the number of texts in its batch."""
        self._span.set_attributes({"murmura.model": f"{model}/{version}", "murmura.batch.rows": rows})
        return self

    def expired(self) -> "Span":
        """Say that the request was too old, and no model was asked."""
        self._span.set_attribute("murmura.status", "expired")
        return self

    def failed(self, reason: str) -> None:
        """Mark the span as failed: the record became a dead letter."""
        from opentelemetry.trace import StatusCode  # noqa: PLC0415  (an extra)

        self._span.set_status(StatusCode.ERROR, reason)
        self._span.set_attribute("error.type", reason)

    def end(self) -> None:
        self._span.end()


class Tracing:
    """Starts spans. One per process; `stop` exports the remaining spans."""

    def __init__(
        self, exporter: "SpanExporter", sample_ratio: float, *, app: str, group: str = "", server: str = ""
    ) -> None:
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415  (an extra)
        from opentelemetry.sdk.trace import TracerProvider, sampling  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

        # OTEL_RESOURCE_ATTRIBUTES adds further ones.
        resource = Resource.create({"service.name": "murmura", "service.namespace": app,
                                    "service.version": version("murmura"), "service.instance.id": str(uuid4())})  # fmt: skip
        # Sampling is decided here, before the SDK runs. Shutdown is explicit, not at interpreter exit.
        self._provider = TracerProvider(sampler=sampling.ALWAYS_ON, resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("murmura", version("murmura"), schema_url=SCHEMA_URL)
        self._below = int(sample_ratio * 2**32)
        host, _, port = server.partition(",")[0].strip().rpartition(":")
        self._fixed: dict[str, str | int] = {
            "messaging.system": "kafka",
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.consumer.group.name": group,
            "messaging.client.id": CLIENT_ID,
            **({"server.address": host.strip("[]"), "server.port": int(port)} if port.isdigit() else {}),
        }

    @classmethod
    def from_settings(cls, settings: "Settings") -> "Tracing | None":
        """Return tracing as set; None when it is off. Raises SetupError without the extra."""
        chosen = settings.tracing
        if chosen.exporter == "none":
            return None
        try:
            exporter = _make_exporter(chosen.exporter, chosen.endpoint)
        except ImportError as error:
            raise SetupError(
                f"tracing.exporter {chosen.exporter} needs {error.name}, which is not installed: pip install 'murmura[tracing]'"
            ) from None
        server = settings.kafka.bootstrap_servers
        return cls(exporter, chosen.sample_ratio, app=settings.app, group=settings.group, server=server)

    def begin(self, record: Record, request_id: str, traceparent: bytes | None) -> Span | None:
        """Return the span of a sampled record, else None."""
        if traceparent is None:
            if crc32(request_id.encode()) >= self._below:
                return None
            return self._start_span(record, request_id, None)
        if len(traceparent) <= _FLAGS or traceparent[_FLAGS] not in _SAMPLED:
            return None
        parent = (_FORM if traceparent.startswith(b"00") else _LATER).fullmatch(traceparent)
        return self._start_span(record, request_id, parent) if parent else None

    def begin_refused(self, record: Record, request: "Incoming | None") -> Span | None:
        """Return the span of a rejected record; without a request its ids come from the headers."""
        names = names_of(record) if request is None else (request.request_id, request.traceparent)
        return self.begin(record, *names)

    def _start_span(self, record: Record, request_id: str, parent: "re.Match[bytes] | None") -> Span | None:
        from opentelemetry.context import Context  # noqa: PLC0415  (an extra)
        from opentelemetry.trace import (  # noqa: PLC0415
            NonRecordingSpan,
            SpanContext,
            SpanKind,
            TraceFlags,
            set_span_in_context,
        )

        context = Context()
        if parent is not None:
            named = SpanContext(int(parent[1], 16), int(parent[2], 16), True, TraceFlags(TraceFlags.SAMPLED))
            context = set_span_in_context(NonRecordingSpan(named), context)
        attributes: dict[str, str | int] = {
            **self._fixed,
            "messaging.destination.name": record.topic,
            "messaging.destination.partition.id": str(record.partition),
            "messaging.kafka.offset": record.offset,
            # Kafka messages have no id of their own: use the coordinates. The request id is the same at all hops.
            "messaging.message.id": f"{record.topic}/{record.partition}/{record.offset}",
            "messaging.message.conversation_id": request_id,
            "murmura.request_id": request_id,
        }
        if record.value is None:
            attributes["messaging.kafka.message.tombstone"] = True
        else:
            attributes["messaging.message.body.size"] = len(record.value)
        started = self._tracer.start_span(
            f"process {record.topic}", context, kind=SpanKind.CONSUMER, attributes=attributes
        )
        # OTEL_SDK_DISABLED makes invalid spans: their ids would break the sender's trace.
        return Span(started, record) if started.is_recording() else None

    async def stop(self) -> None:
        """Export the ended spans. Waits at most 3 s for a collector that does not answer."""
        ending = threading.Thread(target=self._provider.shutdown, name="tracing-end", daemon=True)
        ending.start()
        await asyncio.to_thread(ending.join, _STOP_S)


def _make_exporter(name: str, endpoint: str) -> "SpanExporter":
    if name == "console":
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter  # noqa: PLC0415

        return ConsoleSpanExporter(out=sys.stderr)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415

    return OTLPSpanExporter(endpoint=endpoint, timeout=_STOP_S)
