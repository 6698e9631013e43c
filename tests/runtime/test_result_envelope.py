"""A result's bytes are those of encoding its fields, whatever the request holds."""

import json

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from murmura.runtime.agent.agent import Agent
from murmura.runtime.agent.prediction import Prediction
from murmura.runtime.agent.routes import make_routes
from murmura.runtime.output.result import answer, expired
from murmura.runtime.testing.fakes import FakeModel, classified
from murmura.runtime.wire.request import Incoming
from murmura.schemas.ids import prediction_id
from murmura.schemas.manifest import TaskSpec
from murmura.schemas.result import Result

INTENT = TaskSpec(name="intent", kind="classification", labels=["a", "b"])
TIME = "2026-01-05T09:40:00.123Z"
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
OUTPUTS = {"intent": classified("a", 0.9, ("b", 0.1))}


def bound_agent(name, topics):
    agent = Agent(name=name, topics=topics, output="results")
    return make_routes([agent], FakeModel([INTENT]).manifest, "app")[topics[0]].agents[0]


def fields(bound, request, prediction):
    return {
        "request_id": request.request_id,
        "prediction_id": prediction_id(bound.agent.name, request.source, request.request_id),
        "agent": bound.agent.name,
        "status": "ok",
        "model": {"name": prediction.model[0], "version": prediction.model[1]},
        "source": {
            "topic": request.topic,
            "partition": request.partition,
            "offset": request.offset,
            "timestamp": request.timestamp,
        },
        "outputs": prediction.outputs,
        "truncated": prediction.truncated,
        "metadata": request.metadata or {},
        "time": TIME,
    }


requests = st.builds(
    Incoming,
    TEXT,
    request_id=TEXT,
    topic=st.sampled_from(["in", "other"]),
    partition=st.integers(0, 10_000),
    offset=st.integers(0, 2**62),
    timestamp=st.integers(-1, 2**45),
    key=st.none() | st.binary(max_size=5),
    metadata=st.none() | st.dictionaries(TEXT, TEXT, max_size=3),
    source=st.none() | TEXT,
    traceparent=st.none() | st.just(b"00-" + b"1" * 32 + b"-" + b"2" * 16 + b"-01"),
    hops=st.integers(0, 16),
)
models = st.tuples(TEXT, st.integers(0, 5))
BOUND = bound_agent("classification", ("in", "other"))


def test_how_slow_the_pass_was_stands_in_a_result_that_has_it():
    request = Incoming("t", request_id="r", topic="in", partition=0, offset=0, timestamp=0)
    prediction = Prediction(OUTPUTS, False, ("m", 1))
    prediction.pass_ratio = 1.23456
    ((message,), _) = answer(BOUND, request, prediction, TIME)
    assert Result.model_validate_json(message.value).pass_ratio == 1.235
    assert message.value.replace(b',"pass_ratio":1.235', b"") == msgspec.json.encode(fields(BOUND, request, prediction))


def test_a_result_in_place_of_a_candidate_that_failed_says_so():
    request = Incoming("t", request_id="r", topic="in", partition=0, offset=0, timestamp=0)
    prediction = Prediction(OUTPUTS, False, ("m", 1))
    prediction.candidate_failed = True
    ((message,), _) = answer(BOUND, request, prediction, TIME)
    assert Result.model_validate_json(message.value).candidate_failed
    expected = msgspec.json.encode(fields(BOUND, request, prediction))
    assert message.value.replace(b',"candidate_failed":true', b"") == expected


@given(requests, models, st.booleans())
def test_the_bytes_are_those_of_the_fields(request, model, truncated):
    prediction = Prediction(OUTPUTS, truncated, model)
    ((message,), has_result) = answer(BOUND, request, prediction, TIME)
    expected = fields(BOUND, request, prediction)
    assert has_result
    assert message.value == msgspec.json.encode(expected)
    assert Result.model_validate_json(message.value).request_id == request.request_id
    headers = dict(message.headers)
    assert headers["ce_id"].decode() == expected["prediction_id"]
    assert (headers["ce_subject"], headers["ce_time"]) == (request.request_id.encode(), TIME.encode())
    assert headers["murmura_hops"] == str(request.hops + 1).encode()
    assert headers.get("traceparent") == request.traceparent
    assert message.key == (request.key if request.key is not None else request.request_id.encode())


@given(requests, models, st.booleans())
def test_the_bytes_of_an_expired_one_are_those_of_its_fields(request, model, same_partition):
    message = expired(BOUND, request, model, TIME, same_partition=same_partition)
    fields_of_ok = fields(BOUND, request, Prediction({}, False, model))
    assert message.value == msgspec.json.encode(fields_of_ok | {"status": "expired"})
    ((ok,), _) = answer(BOUND, request, Prediction({}, False, model), TIME, same_partition=same_partition)
    assert ok.value == msgspec.json.encode(fields_of_ok)
    assert message._replace(value=b"") == ok._replace(value=b"")


def test_what_the_agent_decides_is_what_is_published():
    agent = Agent(
        name="a", topics=("in",), output="out", decide=lambda request, prediction: {"intent": classified("b")}
    )
    bound = make_routes([agent], FakeModel([INTENT]).manifest, "app")["in"].agents[0]
    request = Incoming("text", request_id="r", topic="in")
    ((message,), _) = answer(bound, request, Prediction(OUTPUTS, False, ("m", 1)), TIME)
    assert json.loads(message.value)["outputs"]["intent"]["label"] == "b"
