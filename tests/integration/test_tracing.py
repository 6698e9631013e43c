"""On a real Kafka, with OpenTelemetry's own wire: a trace that a sender began leads through two processes' agents."""

import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from serving import Desk, ids

from murmura.agents.analysis import agent as analysis
from murmura.agents.classification import agent as classification

TRACE, SENDER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@contextmanager
def collector():
    """Takes spans over HTTP; yields its address and the list that they are added to."""
    spans = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope in resource.scope_spans:
                    spans.extend(scope.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1/traces", spans
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


async def test_a_trace_leads_from_the_sender_through_all_hops_of_two_processes(desk: Desk, make_topics):
    (between,) = await make_topics("between", prefix=desk.prefix)
    first = [replace(classification, topics=(desk.requests,), output=desk.classified)]
    second = [replace(analysis, topics=(between,), output=desk.analysed)]
    rules = [{"agent": "classification", "otherwise": True, "topic": between}]
    parent = f"00-{TRACE}-{SENDER}-01".encode()
    await desk.send({"id": "traced", "text": "hello london"}, headers=[("traceparent", parent)])
    await desk.send({"id": "not", "text": "hello"}, headers=[("traceparent", parent[:-1] + b"0")])
    with collector() as (endpoint, spans):
        tracing = {"exporter": "otlp", "endpoint": endpoint, "sample_ratio": 1.0}
        async with (
            desk.serving(first, tracing=tracing, routing=rules),
            desk.serving(second, tracing=tracing, app=f"{desk.prefix}-2"),
        ):
            analysed = await desk.read(desk.analysed, 2)
    assert sorted(ids(analysed)) == ["not", "traced"]
    hop = {span.name.split(".")[-1]: span for span in spans}
    assert (len(spans), set(hop)) == (2, {"requests", "between"})
    assert {span.trace_id.hex() for span in spans} == {TRACE}
    assert hop["requests"].parent_span_id.hex() == SENDER
    assert hop["between"].parent_span_id == hop["requests"].span_id
    carried = {record.value and ids([record])[0]: dict(record.headers)["traceparent"].decode() for record in analysed}
    assert carried["traced"] == f"00-{TRACE}-{hop['between'].span_id.hex()}-01"
    assert carried["not"] == f"00-{TRACE}-{SENDER}-00"


async def test_a_collector_that_is_away_holds_nobody_up(desk: Desk):
    await desk.send({"text": "hello"})
    gone = {"exporter": "otlp", "endpoint": "http://127.0.0.1:9/v1/traces", "sample_ratio": 1.0}
    async with desk.serving(tracing=gone):
        await desk.read(desk.classified, 1)
        began = time.monotonic()
    assert time.monotonic() - began < 60
