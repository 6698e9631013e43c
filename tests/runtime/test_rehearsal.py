"""A user's agent runs in a test as it runs in service, without a broker."""

import pytest

from murmura.agents.analysis import agent as analysis
from murmura.agents.classification import agent as classification
from murmura.runtime.agent.agent import agent
from murmura.runtime.agent.handler import Handler
from murmura.runtime.testing.fakes import FakeModel, classified, tagged
from murmura.runtime.testing.rehearsal import rehearse
from murmura.runtime.wire.message import Publish
from murmura.schemas.manifest import TaskSpec
from murmura.schemas.result import Result

INTENT = TaskSpec(name="intent", kind="classification", labels=["refund", "praise"])
SENTIMENT = TaskSpec(name="sentiment", kind="classification", labels=["negative", "positive"])
PLACES = TaskSpec(name="places", kind="tagging", labels=["O", "B-place", "I-place"])
COMPLAINT = "my parcel never reached Leeds"
MODEL = FakeModel(
    [INTENT, SENTIMENT, PLACES],
    {
        COMPLAINT: {
            "intent": classified("refund", 0.9),
            "sentiment": classified("negative", 0.8),
            "places": tagged(COMPLAINT, place="Leeds"),
        }
    },
)


@agent(topics=["shop.reviews"], tasks=["sentiment"], output="shop.moods")
def mood(request, prediction):
    if prediction["sentiment"]["label"] == "negative":
        return prediction.outputs, Publish("murmura.analysis.requests", request.value, key=request.key)
    return None


async def test_an_agent_answers_and_hands_on_to_another():
    answers = await rehearse([mood, analysis], {"text": COMPLAINT, "id": "r1"}, model=MODEL)
    first, second = answers.results
    assert (first["agent"], second["agent"]) == ("mood", "analysis")
    assert {first["request_id"], second["request_id"]} == {"r1"}
    assert second["outputs"]["places"]["spans"][0]["text"] == "Leeds"
    Result.model_validate(second)


async def test_silence_is_an_answer():
    answers = await rehearse([mood], {"text": "lovely"}, model=FakeModel([SENTIMENT], {}))
    assert answers.dead_letters == []


async def test_a_bad_request_becomes_a_dead_letter():
    answers = await rehearse([classification], b"{", {"text": "fine"}, model=MODEL)
    assert [dict(letter.headers)["murmura_dl_reason"] for letter in answers.dead_letters] == [b"not_json"]
    assert len(answers.results) == 1


@pytest.mark.parametrize(
    ("publish", "why"),
    [
        (Publish("t", "text of the request"), "value: expected bytes, a dict or None, found str"),
        (Publish("t", b"x", headers=(("a", "b"),)), "header: expected a name and bytes, found (str, str)"),
        (Publish("t", b"x", headers=(("a",),)), "header: expected a name and bytes, found (str)"),
        (Publish("t", b"x", key=3), "key: expected bytes, a str or None, found int"),
        (Publish("t", b"x", partition=-1), "partition: expected a number from 0 on, found int"),
        (Publish("t", b"x", partition=True), "partition: expected a number from 0 on, found bool"),
        (Publish(None, b"x"), "topic: expected the name of one, found NoneType"),
        (Publish("not a topic", b"x"), "topic: expected the name of one, found str"),
    ],
)
async def test_what_no_broker_would_take_is_refused_here_as_in_service(publish, why):
    @agent(topics=["in"], tasks=["intent"])
    def wrong(request, prediction):
        return publish

    answers = await rehearse([wrong], {"text": COMPLAINT}, model=MODEL)
    (letter,) = answers.dead_letters
    headers = dict(letter.headers)
    assert headers["murmura_dl_reason"] == b"agent_failed"
    assert headers["murmura_dl_message"].decode() == f"wrong published a record with a wrong {why}"


async def test_an_agent_cannot_pass_for_another_record():
    """Whoever could set these could undo the hop limit and tear a trace."""
    own = {"murmura_hops": b"0", "murmura_cause": b"?", "murmura_request_id": b"?", "traceparent": b"?", "mine": b"1"}

    @agent(topics=["in"], tasks=["intent"])
    def disguised(request, prediction):
        return Publish("t", request.value, headers=tuple(own.items()))

    answers = await rehearse([disguised], {"text": COMPLAINT, "id": "7"}, model=MODEL)
    (message,) = answers.handed_on
    assert dict(message.headers) == {
        "murmura_hops": b"1", "murmura_cause": b"7", "murmura_request_id": b"7", "mine": b"1",
        "content-type": b"application/vnd.murmura.request+json",
    }  # fmt: skip


async def test_a_handler_cannot_pass_for_another_record_either():
    class Reader(Handler):
        name, topics, outputs = "reader", ("in",), ("t",)

        async def handle(self, record, engine):
            return [Publish("t", b"x", headers=(("murmura_request_id", b"?"), ("murmura_hops", b"0")))]

    answers = await rehearse([Reader()], {"text": COMPLAINT, "id": "7"}, model=MODEL)
    headers = dict(answers.published[0].headers)
    assert (headers["murmura_request_id"], headers["murmura_hops"]) == (b"7", b"1")
