"""A user's agent runs in a test as it runs in service, without a broker."""

from murmura.agents.analysis import agent as analysis
from murmura.agents.classification import agent as classification
from murmura.runtime.agent import Publish, agent
from murmura.runtime.rehearsal import rehearse
from murmura.runtime.testing import FakeModel, classified, tagged
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
