"""One turn after another: what is asked, said and published, and what holds whatever people write."""

import json
from typing import Any

import pytest
from dialogue_talk import HOUR, POLICY, Talk
from hypothesis import given, settings
from hypothesis import strategies as st

from murmura.agents.dialogue.policy.policy import DEFAULT_MIN_SCORE, Policy
from murmura.agents.dialogue.turn.step import ReceivedTurn, Step, classify_delivery, replay_step
from murmura.runtime.testing.fakes import abstained, classified
from murmura.schemas.dialogue import ConversationState, HandOver, HandOverReason, Reply, ReplyKind


def said(result: Step) -> tuple[str, str]:
    return result.reply.kind.value, result.reply.text


def test_a_question_for_each_missing_slot_then_the_action_and_the_reply():
    talk = Talk()
    assert said(talk.say("send money", "transfer")) == ("asked", "Hello. To whom?")
    assert said(talk.say("to Ann", person="Ann")) == ("asked", "How much for Ann?")
    done = talk.say("20 quid", amount="20 quid")
    assert said(done) == ("answered", "20 quid to Ann.")
    assert [(a.topic, a.value) for a in done.actions] == [
        ("bank.transfers", {"to": "Ann", "sum": "20 quid", "said": "20 quid"})
    ]
    assert (done.state.asked, done.state.intent, done.handover) == (None, "transfer", None)


def test_everything_at_once_needs_no_question():
    assert said(Talk().say("£5 to Bo", "transfer", person="Bo", amount="£5")) == ("answered", "Hello. £5 to Bo.")


def test_slots_are_carried_over_and_overwritten_and_forgotten_when_done():
    talk = Talk()
    talk.say("send £5", "transfer", amount="£5")
    talk.say("no, £7", "transfer", amount="£7")
    assert talk.state.slots == {"amount": "£7"}
    assert said(talk.say("to Bo", person="Bo")) == ("answered", "£7 to Bo.")
    assert said(talk.say("and some to Ann", "transfer", person="Ann")) == ("asked", "How much for Ann?")


def test_slots_of_one_label_take_its_spans_in_turn():
    talk = Talk()
    assert said(talk.say("Ann saw Bo take it", "theft", person=["Ann", "Bo"], card="gold card"))[0] == "handed_over"
    assert talk.state.slots["witness"] == "Ann"


def test_another_intent_that_is_understood_takes_over_and_the_asked_slot_does_not():
    talk = Talk()
    talk.say("send money", "transfer")
    assert said(talk.say("what is my balance", "balance")) == ("answered", "See the app.")
    talk.say("send money", "transfer")
    assert said(talk.say("Ann, my balance holds it", "balance", person="Ann")) == ("asked", "How much for Ann?")


def test_who_is_asked_and_does_not_answer_is_asked_again_and_then_handed_over():
    talk = Talk()
    talk.say("send money", "transfer")
    assert said(talk.say("eh", abstained("balance", 0.01))) == ("not_understood", f"{POLICY.again.template} To whom?")
    handed = talk.say("what", "transfer")
    assert said(handed) == ("handed_over", POLICY.handover.reply.template)
    assert handed.handover.reason is HandOverReason.NOT_UNDERSTOOD
    assert [exchange.text for exchange in handed.handover.turns] == ["send money", "eh", "what"]


def test_the_first_turn_is_greeted_even_when_it_means_nothing():
    assert said(Talk().say("hi", abstained("balance", 0.01))) == ("greeted", "Hello.")


def test_a_score_below_the_policys_is_not_understood_and_a_very_low_one_goes_to_a_person_at_once():
    talk = Talk()
    talk.say("hi")
    assert said(talk.say("hm", classified("balance", 0.39)))[0] == "not_understood"
    talk = Talk()
    talk.say("hi")
    result = talk.say("qwrt", abstained("balance", 0.05))
    assert result.handover.reason is HandOverReason.LOW_CONFIDENCE
    assert result.handover.number == 2


@pytest.mark.parametrize("label", ["balance", "transfer", "terminate"])
@pytest.mark.parametrize("min_score", [0.0, 0.4])
def test_a_very_low_score_goes_to_a_person_at_once_whatever_its_label(label, min_score):
    policy = POLICY.model_copy(update={"greeting": None, "min_score": min_score})
    for earlier in ((), ("what is my balance",)):
        talk = Talk(policy)
        for text in earlier:
            talk.say(text, "balance")
        result = talk.say("what is it", classified(label, 0.09), person="Ann", amount="£5")
        assert said(result) == ("handed_over", policy.handover.reply.template)
        assert (result.handover.reason, result.actions) == (HandOverReason.LOW_CONFIDENCE, [])
        assert result.state.turns[-1].intent is None


def test_a_very_low_score_on_a_first_turn_gets_the_greeting_alone():
    result = Talk().say("hi", classified("transfer", 0.02), person="Ann", amount="£5")
    assert (said(result), result.actions) == (("greeted", "Hello."), [])


def test_while_a_question_is_open_another_intent_takes_over_only_with_a_clear_score():
    talk = Talk()
    talk.say("send money", "transfer")
    assert said(talk.say("twenty", classified("balance", 0.49))) == (
        "not_understood",
        f"{POLICY.again.template} To whom?",
    )
    assert (talk.state.intent, talk.state.asked) == ("transfer", "payee")
    assert said(talk.say("what is my balance", classified("balance", 0.5))) == ("answered", "See the app.")


def test_while_a_question_is_open_a_very_low_score_asks_again():
    talk = Talk()
    talk.say("send money", "transfer")
    assert said(talk.say("er", classified("balance", 0.02))) == ("not_understood", f"{POLICY.again.template} To whom?")


def test_out_of_scope_is_misunderstood_however_low_its_score():
    talk = Talk()
    talk.say("hi")
    assert said(talk.say("pizza", abstained("other", 0.05, "out_of_scope")))[0] == "not_understood"


def test_an_intent_without_a_rule_is_not_understood():
    talk = Talk()
    talk.say("hi")
    assert said(talk.say("close my account", "terminate"))[0] == "not_understood"


def test_an_intent_for_people_is_handed_over_once_all_is_known_with_its_action():
    talk = Talk()
    talk.say("my card was stolen", "theft")
    result = talk.say("the blue one, Bo saw it", card="blue one", person="Bo")
    assert said(result) == ("handed_over", "Your blue one is blocked.")
    assert result.handover.reason is HandOverReason.POLICY
    assert result.actions[0].value == {"card": "blue one"}


def test_with_a_person_turns_are_handed_on_until_they_give_the_conversation_back_or_it_expires():
    def handed_over() -> Talk:
        talk = Talk()
        talk.say("my card was stolen", "theft", card="gold", person="Bo")
        return talk

    talk = handed_over()
    waiting = talk.say("are you there", "balance")
    assert (said(waiting), waiting.reply.model) == (("with_person", POLICY.handover.waiting.template), None)
    assert waiting.handover.reason is HandOverReason.CONTINUED
    back = talk.say("my balance please", "balance", metadata={"handover": "ended"})
    assert said(back) == ("answered", "See the app.")
    talk = handed_over()
    talk.now += 25 * HOUR
    assert said(talk.say("my balance please", "balance")) == ("answered", "Hello. See the app.")


def test_after_a_long_silence_it_starts_anew_and_goes_on_counting():
    talk = Talk()
    talk.say("send £5", "transfer", amount="£5")
    talk.now += 24 * HOUR - 1000
    assert said(talk.say("to Ann", person="Ann"))[1] == "£5 to Ann."
    talk.now += 24 * HOUR
    result = talk.say("to Ann", "transfer", person="Ann")
    assert said(result) == ("asked", "Hello. How much for Ann?")
    assert (result.state.number, len(result.state.turns)) == (3, 1)


def test_a_turn_is_known_again_by_its_id_and_by_its_place():
    talk = Talk()
    for text in ("a", "b"):
        talk.say(text, "balance")
    last = talk.heard("b")
    assert classify_delivery(None, last) is None
    assert classify_delivery(talk.state, last) == "last"
    sent_twice = last._replace(source=last.source.model_copy(update={"offset": 9}))
    assert classify_delivery(talk.state, sent_twice) == "last"
    talk.offset, talk.now = 1, talk.now - 1000
    assert classify_delivery(talk.state, talk.heard("a")) == "older"
    forgotten = talk.heard("a")._replace(prediction_id="0" * 32)
    assert classify_delivery(talk.state, forgotten) == "older"
    made_anew = forgotten._replace(source=forgotten.source.model_copy(update={"timestamp": talk.now + 9000}))
    assert classify_delivery(talk.state, made_anew) is None
    elsewhere = forgotten._replace(source=forgotten.source.model_copy(update={"partition": 1}))
    assert classify_delivery(talk.state, elsewhere) is None


labels = st.sampled_from(["balance", "transfer", "theft", "unheard of"])
scores = st.floats(0, 1)
answers = st.one_of(
    st.builds(classified, labels, scores),
    st.builds(abstained, labels, scores, st.sampled_from(["below_threshold", "out_of_scope"])),
)
words = st.text(min_size=1, max_size=8) | st.sampled_from(["{payee}", "{", "}}", "x" * 5000])
entities = st.dictionaries(
    st.sampled_from(["person", "amount", "card", "weather"]), st.lists(words, min_size=1, max_size=3)
)
turns = st.tuples(words, answers, entities, st.sampled_from([0, 0, 0, 25 * HOUR]), st.booleans())
policies = st.sampled_from(
    [
        POLICY,
        POLICY.model_copy(update={"greeting": None, "min_score": 0.0, "switch_score": 0.0, "remember_turns": 1}),
        POLICY.model_copy(update={"greeting": None, "min_score": None}),
        POLICY.model_copy(update={"handover": POLICY.handover.model_copy(update={"after": 1, "below": 1.0})}),
    ]
)


def talked(policy: Policy, said: list[Any]) -> Talk:
    talk = Talk(policy)
    for text, answer, found, pause, given_back in said:
        talk.now += pause
        talk.say(text, answer, metadata={"handover": "ended"} if given_back else {}, **found)
    return talk


@settings(max_examples=200, deadline=None)
@given(policies, st.lists(turns, min_size=1, max_size=25))
def test_whatever_is_said_the_state_stays_bounded_and_the_reply_fits_it(policy, said):
    talk = talked(policy, said)
    slots = {slot for rule in policy.intents.values() for slot in rule.needs}
    for number, result in enumerate(talk.steps, start=1):
        state, reply = result.state, result.reply
        assert state.number == reply.number == number
        assert len(state.turns) <= policy.remember_turns
        assert set(state.slots) <= slots
        assert len(state.model_dump_json()) < 20_000 + 8000 * len(state.actions) + 6000 * len(state.turns)
        assert 0 < len(reply.text) <= 2000
        assert state.misunderstood < policy.handover.after
        assert (result.handover is not None) == state.with_person
        assert (reply.kind is ReplyKind.ASKED) <= (state.asked is not None)
        if state.asked is not None:
            needs = list(policy.intents[state.intent].needs)
            assert state.asked not in state.slots
            assert set(needs[: needs.index(state.asked)]) <= set(state.slots)
        if result.actions:
            answer = said[number - 1][1]
            asked = result.state.number > 1 and number > 1 and talk.steps[number - 2].state.asked is not None
            least = DEFAULT_MIN_SCORE if policy.min_score is None else policy.min_score
            assert asked or answer["score"] >= max(least, policy.handover.below)
            assert reply.kind in {ReplyKind.ANSWERED, ReplyKind.HANDED_OVER}
            assert set(policy.intents[state.intent].needs) <= set(state.slots)


@settings(max_examples=100, deadline=None)
@given(policies, st.lists(turns, min_size=1, max_size=15), st.integers(0, 14))
def test_replaying_from_any_stored_state_gives_the_same_and_the_last_turn_the_same_reply(policy, said, cut):
    """The crash between two turns: what was stored is read back as JSON, and the log goes on."""
    whole = talked(policy, said)
    cut = min(cut, len(said) - 1)
    stored = ConversationState.model_validate_json(whole.steps[cut].state.model_dump_json())
    assert stored == whole.steps[cut].state
    turn = ReceivedTurn("dialogue", "c-1", "", stored.reply("dialogue", "r", {}).request_id, stored.turns[-1].id,
                 stored.source, {})  # fmt: skip
    repeated = replay_step(stored, turn)
    first = whole.steps[cut]
    assert repeated.reply.text == first.reply.text
    assert repeated.actions == first.actions
    assert repeated.state == first.state
    rest = Talk(policy, stored)
    rest.now, rest.offset = stored.source.timestamp, stored.source.offset
    for text, answer, found, pause, given_back in said[cut + 1 :]:
        rest.now += pause
        rest.say(text, answer, metadata={"handover": "ended"} if given_back else {}, **found)
    assert rest.state == whole.state
    assert [s.reply for s in rest.steps] == [s.reply for s in whole.steps[cut + 1 :]]
    for result in whole.steps:
        assert Reply.model_validate(json.loads(result.reply.model_dump_json())) == result.reply
        if result.handover is not None:
            assert HandOver.model_validate(json.loads(result.handover.model_dump_json())) == result.handover
