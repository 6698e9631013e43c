"""Tracing: who is sampled is decided on bytes, hops of one request are one trace, and off is nothing."""

import subprocess
import sys
from importlib.metadata import version

import pytest
from aiokafka.structs import ConsumerRecord
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from test_dispatcher import PARTITION, Line
from tiny_model import ENTITIES, INTENT, SENTIMENT

from murmura.agents.analysis import agent as analysis
from murmura.agents.classification import agent as classification
from murmura.runtime.agent.agent import agent
from murmura.runtime.agent.handler import Handler
from murmura.runtime.errors import SetupError
from murmura.runtime.observe.tracing import SCHEMA_URL, Tracing
from murmura.runtime.settings.routing_rules import Rule
from murmura.runtime.settings.settings import Settings, TracingSettings
from murmura.runtime.testing.fakes import FakeModel
from murmura.runtime.testing.rehearsal import rehearse
from murmura.runtime.wire.message import Publish

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"
MODEL = FakeModel([INTENT, SENTIMENT, ENTITIES], {})


def record(topic: str = "in", offset: int = 7) -> ConsumerRecord:
    return ConsumerRecord(topic, 3, offset, 0, 0, None, b"", None, -1, -1, ())


def parent(flags: str = "01", version: str = "00", more: str = "") -> bytes:
    return f"{version}-{TRACE}-{SPAN}-{flags}{more}".encode()


class Traced:
    def __init__(self, ratio: float = 1.0) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracing = Tracing(self.exporter, ratio, app="desk", group="murmura.desk", server="kafka:9092,other:1")

    async def rehearse(self, agents, *requests, **settings):
        made = Settings(app="desk", **settings)
        return await rehearse(agents, *requests, model=MODEL, settings=made, tracing=self.tracing)

    async def spans(self):
        """What was exported, in the order of their beginnings."""
        await self.tracing.stop()
        return sorted(self.exporter.get_finished_spans(), key=lambda span: span.start_time)


async def test_a_request_that_expired_has_a_span_without_a_model_that_says_so_and_is_no_error():
    traced = Traced()
    line = Dispatching(traced.tracing, agent(topics=["in"], output="out", max_age_s=60, name="a")(lambda *both: {}))
    line.receive(b'{"text": "old"}')
    await line.settle()
    (span,) = await traced.spans()
    assert span.attributes["murmura.status"] == "expired"
    assert "murmura.model" not in span.attributes
    assert span.status.status_code is StatusCode.UNSET
    (result,) = line.broker.taken
    assert f"{span.context.trace_id:032x}".encode() in dict(result.headers)["traceparent"]


class Dispatching(Line):
    """A dispatcher that traces, with records whose headers are told."""

    def __init__(self, tracing: Tracing, *agents) -> None:
        super().__init__(MODEL, *agents, tracing=tracing, max_hops=3)

    def receive(self, *values: bytes, **headers: bytes) -> None:
        for value in values:
            made = ConsumerRecord("in", 0, self.offset, 0, 0, None, value, None, -1, -1, tuple(headers.items()))
            self.offset += 1
            self.dispatcher.receive({PARTITION: [made]})


@pytest.mark.parametrize(
    ("traceparent", "sampled"),
    [
        (parent("01"), True),
        (parent("03"), True),
        (parent("0b"), True),
        (parent("00"), False),
        (parent("0a"), False),
        (b"", False),
        (b"01", False),
        (parent("01")[:54], False),
        (f"00-{'0' * 32}-{SPAN}-01".encode(), False),
        (f"00-{TRACE}-{'0' * 16}-01".encode(), False),
        (f"00-{TRACE.upper()}-{SPAN}-01".encode(), False),
        (b"x" * 54 + b"1", False),
        (parent(more="-more"), False),  # version 00 has no more fields
        (parent(version="01"), True),
        (parent(version="01", more="-what.ever"), True),
        (parent(version="01", more="more"), False),
        (b"01-" + b"g" * 32 + f"-{SPAN}-01".encode(), False),
        (parent(version="01")[:40] + b"-" * 14 + b"1", False),
        (parent(version="ff"), False),
        (parent(version="0x"), False),
        (parent() + b"\n", False),
        ("é".encode() * 40, False),
    ],
)
def test_the_flag_decides_for_a_record_that_has_one(traceparent, sampled):
    span = Traced(ratio=0.5).tracing.begin(record(), "1", traceparent)
    assert (span is not None) == sampled
    if span is not None:
        assert span.traceparent.startswith(f"00-{TRACE}-".encode())
        assert span.traceparent.endswith(b"-01")
        assert SPAN.encode() not in span.traceparent


def test_a_share_of_the_requests_begins_a_trace_and_all_hops_decide_alike():
    some, none, every = Traced(0.01), Traced(0.0), Traced(1.0)
    names = [f"order-{n}" for n in range(20_000)]
    chosen = [name for name in names if some.tracing.begin(record(), name, None)]
    assert 150 < len(chosen) < 250
    assert chosen == [name for name in chosen if some.tracing.begin(record("another"), name, None)]
    assert not any(none.tracing.begin(record(), name, None) for name in names)
    assert all(every.tracing.begin(record(), name, None) for name in names[:100])


async def test_one_trace_spans_two_hops():
    traced = Traced()
    rules = (Rule(agent="classification", otherwise=True, topic="murmura.analysis.requests"),)
    answers = await traced.rehearse([classification, analysis], {"id": "1", "text": "hello"}, routing=rules)
    first, second = await traced.spans()
    assert [span.name for span in (first, second)] == [
        "process murmura.classification.requests",
        "process murmura.analysis.requests",
    ]
    assert (first.kind, first.parent) == (SpanKind.CONSUMER, None)
    assert first.context.trace_id == second.context.trace_id
    assert second.parent.span_id == first.context.span_id
    assert first.end_time > first.start_time
    assert dict(first.attributes) == {
        "messaging.system": "kafka",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.client.id": "murmura",
        "messaging.message.id": "murmura.classification.requests/0/0",
        "messaging.message.conversation_id": "1",
        "messaging.message.body.size": 28,
        "server.address": "kafka",
        "server.port": 9092,
        "messaging.consumer.group.name": "murmura.desk",
        "messaging.destination.name": "murmura.classification.requests",
        "messaging.destination.partition.id": "0",
        "messaging.kafka.offset": 0,
        "murmura.request_id": "1",
        "murmura.model": "fake/0",
        "murmura.batch.rows": 1,
    }
    carried = [dict(message.headers)["traceparent"].decode() for message in answers.published]
    assert {trace.split("-")[1] for trace in carried} == {f"{first.context.trace_id:032x}"}
    assert carried[0].split("-")[2] == f"{first.context.span_id:016x}"
    resource = first.resource.attributes
    assert (resource["service.name"], resource["service.namespace"]) == ("murmura", "desk")
    assert resource["service.version"] == version("murmura")
    assert len(resource["service.instance.id"]) == 36
    assert first.instrumentation_scope.schema_url == SCHEMA_URL


def test_every_attribute_is_one_of_the_convention():
    from opentelemetry.semconv._incubating.attributes import messaging_attributes as names
    from opentelemetry.semconv.schemas import Schemas

    known = {value for name, value in vars(names).items() if name.startswith("MESSAGING_") and isinstance(value, str)}
    span = Traced().tracing.begin(record(), "1", None)
    used = {name for name in span._span.attributes if name.startswith("messaging.")}
    assert used <= known
    assert {"messaging.operation.name", "messaging.system", "messaging.operation.type"} <= used
    assert SCHEMA_URL in {schema.value for schema in Schemas}


def test_a_record_without_a_value_is_a_tombstone():
    empty = ConsumerRecord("in", 0, 1, 0, 0, b"k", None, None, 0, -1, ())
    span = Traced().tracing.begin(empty, "1", None)
    assert span._span.attributes["messaging.kafka.message.tombstone"] is True
    assert "messaging.message.body.size" not in span._span.attributes


def test_the_environment_adds_to_the_resource(monkeypatch):
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "k8s.pod.name=murmura-1,service.name=other")
    span = Traced().tracing.begin(record(), "1", None)
    attributes = span._span.resource.attributes
    assert (attributes["k8s.pod.name"], attributes["service.name"]) == ("murmura-1", "murmura")


async def test_a_handler_is_a_hop_too():
    class Greeter(Handler):
        name, topics, outputs = "greeter", ("in",), ("murmura.classification.requests",)

        async def handle(self, record, engine):
            return [Publish(self.outputs[0], record.value)]

    traced = Traced()
    await traced.rehearse([Greeter(), classification], {"id": "1", "text": "hello"})
    first, second = await traced.spans()
    assert first.attributes["murmura.agent"] == "greeter"
    assert second.parent.span_id == first.context.span_id


async def test_what_ends_as_a_dead_letter_says_so():
    @agent(topics=["in"], tasks=["intent"], output="out")
    def broken(request, prediction):
        raise KeyError

    traced = Traced()
    await traced.rehearse([broken], {"text": "hello"})
    (span,) = await traced.spans()
    assert (span.status.status_code, span.attributes["error.type"]) == (StatusCode.ERROR, "agent_failed")


async def test_what_cannot_be_read_has_a_span_where_its_sender_began_a_trace():
    traced = Traced(0.0)
    line = Dispatching(traced.tracing)
    line.receive(b"no json", traceparent=parent())
    line.receive(b"no json either")
    line.receive(b'{"text": "a"}', traceparent=parent(), murmura_hops=b"9")
    line.receive(b'{"text": "a", "tasks": ["nope"], "id": "7"}', traceparent=parent())
    await line.settle()
    spans = await traced.spans()
    assert [span.attributes["error.type"] for span in spans] == ["not_json", "hop_limit", "unknown_task"]
    assert {span.status.status_code for span in spans} == {StatusCode.ERROR}
    assert {f"{span.parent.span_id:016x}" for span in spans} == {SPAN}
    assert spans[-1].attributes["murmura.request_id"] == "7"


async def test_the_end_of_a_circle_is_in_the_trace():
    traced = Traced()
    rules = (
        Rule(agent="classification", otherwise=True, topic="murmura.analysis.requests"),
        Rule(agent="analysis", otherwise=True, topic="murmura.classification.requests"),
    )
    await traced.rehearse([classification, analysis], {"text": "hello"}, routing=rules, limits={"max_hops": 2})
    spans = await traced.spans()
    assert [span.status.status_code for span in spans] == [StatusCode.UNSET] * 3 + [StatusCode.ERROR]
    assert len({span.context.trace_id for span in spans}) == 1


async def test_a_dead_letter_instead_of_what_was_published_says_so_too():
    @agent(topics=["in"], tasks=["intent"], output="out")
    def astray(request, prediction):
        return (prediction.outputs, Publish("nowhere", b"x")) if request.text == "astray" else prediction.outputs

    traced = Traced()
    line = Dispatching(traced.tracing, astray)
    line.receive(b'{"text": "astray"}', b'{"text": "fine"}')
    await line.settle()
    assert [span.attributes.get("error.type") for span in await traced.spans()] == ["agent_failed", None]


@pytest.mark.parametrize("traceparent", [None, parent()])
def test_with_opentelemetry_switched_off_nothing_is_traced(monkeypatch, traceparent):
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert Traced().tracing.begin(record(), "1", traceparent) is None


async def test_a_record_that_is_not_sampled_passes_its_traceparent_on_as_it_came():
    traced = Traced(0.0)
    answers = await traced.rehearse([classification], {"text": "hello"})
    assert "traceparent" not in dict(answers.published[0].headers)
    assert await traced.spans() == []


def test_off_makes_nothing_and_imports_nothing():
    assert Tracing.from_settings(Settings()) is None
    ask = "import murmura.runtime.serve, sys; print('opentelemetry.sdk' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True).stdout == "False\n"


def test_without_the_extra_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(SetupError, match=r"tracing.exporter otlp needs .*: pip install 'murmura\[tracing\]'"):
        Tracing.from_settings(Settings(tracing=TracingSettings(exporter="otlp")))
