"""Turns that differ in a name or a pronoun get the same intent, and a name that the model misses is known by its form."""

from typing import Any

import pytest
from dialogue_process import POLICY as OF_TRANSFERS
from dialogue_process import Process, turn
from dialogue_talk import POLICY, Talk

from murmura.agents.dialogue.policy.policy import Policy
from murmura.agents.dialogue.policy.policy_file import check_against_model, load_policy
from murmura.agents.dialogue.turn.people import predict_turn
from murmura.runtime.errors import SetupError
from murmura.runtime.testing.fakes import FakeEngine, FakeModel, abstained, classified, tagged
from murmura.schemas.manifest import TaskSpec

ALIKE = POLICY.model_copy(update={"people": "person"})
TASKS = [
    TaskSpec(name="intent", kind="classification", labels=["transfer", "balance", "theft"]),
    TaskSpec(name="entities", kind="tagging", labels=["O", "B-person", "I-person", "B-shop", "I-shop"]),
]
KNOWN, SHOP = "Ann", "Wei"
UNDERSTOOD = {
    "the money for someone is gone": "transfer",
    "they lost their card": "theft",
    "the shop someone": "balance",
}


def answers(text: str) -> dict[str, Any]:
    """A model that knows one name, takes another for a shop, and understands only what is said of nobody."""
    label = UNDERSTOOD.get(text)
    found = {kind: name for kind, name in (("person", KNOWN), ("shop", SHOP)) if name in text.split()}
    return {"intent": classified(label, 0.9) if label else abstained("balance", 0.3), "entities": tagged(text, **found)}


async def hear(text: str, policy: Policy = ALIKE) -> tuple[Any, list[tuple[str, str]], int]:
    """Return intent and entities of a turn, and the number of texts that the model was asked."""
    asked: list[str] = []

    def answer(given: Any) -> dict[str, Any]:
        asked.append(str(given))
        return answers(str(given))

    found = await predict_turn(text, policy, FakeEngine(FakeModel(TASKS, answer)))
    return found["intent"]["label"], [(each["label"], each["text"]) for each in found["entities"]["spans"]], len(asked)


@pytest.mark.parametrize("name", [KNOWN, SHOP, "Noa", "Mei Ling"])
async def test_the_intent_is_that_of_the_turn_without_the_name_whether_the_model_finds_it_or_not(name):
    assert await hear(f"the money for {name} is gone") == ("transfer", [("person", name)], 2)


@pytest.mark.parametrize("text", ["he lost his card", "she lost her card", "they lost their card"])
async def test_the_intent_does_not_depend_on_a_pronoun(text):
    label, _, _ = await hear(text)
    assert label == (await hear("they lost their card"))[0]


async def test_a_name_is_no_persons_where_no_intent_needs_one():
    assert await hear("the shop Noa") == (None, [], 2)
    assert await hear("the shop Wei") == (None, [("shop", "Wei")], 2)


async def test_a_turn_about_nobody_costs_one_pass_and_so_does_any_without_people():
    assert (await hear("what now"))[2] == 1
    assert await hear(f"the money for {KNOWN} is gone", POLICY) == (None, [("person", KNOWN)], 1)


@pytest.mark.parametrize(
    ("policy", "entities", "reply"),
    [
        (ALIKE, {"person": "Noa"}, "How much for Noa?"),
        (ALIKE, {}, "How much for Noa?"),
        (ALIKE, {"shop": "Noa"}, "How much for Noa?"),
        (POLICY, {}, f"{POLICY.again.template} To whom?"),
    ],
)
def test_a_name_that_was_asked_for_is_an_answer_whether_the_model_finds_it_or_not(policy, entities, reply):
    talk = Talk(policy)
    talk.say("send money", "transfer")
    assert talk.say("it was for Noa", **entities).reply.text == reply


@pytest.mark.parametrize(
    ("text", "output"),
    [
        ("do you speak Polish?", ""),
        ("can I use Apple Pay", "balance"),
        ("to Noa, not to Ann or Bo", ""),
        ("Nope", ""),
    ],
)
def test_what_does_not_answer_the_question_fills_nothing(text, output):
    talk = Talk(ALIKE)
    talk.say("send money", "transfer")
    talk.say(text, output)
    assert "payee" not in talk.state.slots


def test_people_that_are_no_entity_of_the_model_are_refused_with_the_place(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text("people: folk\nintents: {balance: {reply: See the app.}}\n")
    with pytest.raises(
        SetupError, match=r"policy\.yaml:1: people: task entities has no entity folk; it has person, shop"
    ):
        check_against_model(load_policy(path), TASKS, "desk")
    path.write_text("people: folk\nentity_task: null\nintents: {balance: {reply: See the app.}}\n")
    with pytest.raises(SetupError, match="no name of `people` is ever found"):
        load_policy(path)


async def test_a_second_reading_that_fails_leaves_the_intent_of_the_first(tmp_path):
    (tmp_path / "policy.yaml").write_text(f"people: amount\n{OF_TRANSFERS}")
    process = await Process(tmp_path / "policy.yaml", []).begin()
    predict = process.engine.predict

    async def reads_once(text, tasks):
        if "they" in text:
            raise RuntimeError("a bug")
        return await predict(text, tasks)

    process.engine.predict = reads_once
    state, reply = await process.hear(turn(1, "send it to her"))
    assert reply.value["text"] == "Hello. How much?"
    assert (state.first, reply.first) == (True, False)  # it may not fail when the turn comes again
    assert process.counted("murmura_failed_parts_total", agent="dialogue", part="people") == 1
