"""A generated reply is sent only where nothing speaks against it; otherwise its template is, with the reason."""

import pytest

from murmura.agents.dialogue.policy.policy import Policy
from murmura.agents.dialogue.turn.draft import Brief
from murmura.agents.dialogue.turn.wording import Worded, choose_wording, find_unknown_name, make_net
from murmura.runtime.model.generated import Generated
from murmura.schemas.dialogue import Wording, WordingReason
from murmura.schemas.result import ModelRef

POLICY = Policy.model_validate(
    {
        "constants": {"days": "five working days"},
        "words": ["Visa"],
        "intents": {"pin": {"reply": "Change the PIN in the app, under Cards."}},
    }
)
VALUES = {"amount": "£20", "days": "five working days", "payee": "Ann {x}"}
BRIEF = Brief("We send {amount} within {days}.", [], VALUES)
PIECES = ["{end}", " We", " {amount}", " send", " Your", " refund", " it", "Vic"]
NET = make_net(POLICY, 0.5, PIECES)
GOOD = Generated("Your {amount} is on its way: {days}.", (1, 2), 0.8, "end")


def test_a_reply_without_a_fault_is_sent_with_its_values_and_what_stands_around_it():
    text = "Your £20 is on its way: five working days."
    assert choose_wording(GOOD, BRIEF, NET) == Worded(text, Wording.GENERATED, None, 0.8, words=text)
    by = choose_wording(GOOD._replace(model=("desk", 3)), BRIEF, NET)
    assert by == Worded(text, Wording.GENERATED, None, 0.8, model=ModelRef(name="desk", version=3), words=text)
    around = BRIEF._replace(before="Hello.", after="Bye.")
    text = "Your refund: {amount} to {payee}, {days}."
    worded = choose_wording(GOOD._replace(text=text), around, NET)
    assert worded.text == f"Hello. {worded.words} Bye."
    assert worded.words == "Your refund: £20 to Ann {x}, five working days."


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"finish": "length"}, "too_long"),
        ({"text": " "}, "empty"),
        ({"score": 0.49}, "low_score"),
        ({"score": float("nan")}, "low_score"),
        ({"text": "Your {amount} is on its way."}, "missing_slot"),
        ({"text": "Your {amount} is on its way to {city}: {days}."}, "unknown_slot"),
        ({"text": "Your {amount} is on its way: {days}. {"}, "unknown_slot"),
        ({"text": "Your {amount} is there tomorrow, not in {days}."}, "fact"),
        ({"text": "Your {amount}k is on its way: {days}."}, "fact"),
        ({"text": "Your x{amount} is on its way: {days}."}, "fact"),
        ({"text": "It is on its way: {amount}{days}."}, "fact"),
        ({"text": "Your {amount} goes to Victoria: {days}."}, "unknown_name"),
        ({"text": "Victoria sends {amount}: {days}."}, "unknown_name"),
    ],
)
def test_the_template_is_sent_in_place_of_a_reply_with_a_fault(changed, reason):
    worded = choose_wording(GOOD._replace(**changed), BRIEF, NET)
    assert worded[:3] == ("We send £20 within five working days.", "template", reason)


@pytest.mark.parametrize("reason", [WordingReason.LATE, WordingReason.FAILED, WordingReason.FILTERED])
def test_the_template_is_sent_where_there_is_no_reply(reason):
    worded = choose_wording(reason, BRIEF._replace(before="Hello."), NET)
    words = "We send £20 within five working days."
    assert worded == Worded(f"Hello. {words}", Wording.TEMPLATE, reason, words=words)


def test_a_reply_that_its_values_make_too_long_is_not_sent():
    brief = BRIEF._replace(values={**VALUES, "amount": "9" * 200})
    reply = GOOD._replace(text="Your " + "{amount} " * 10 + "{days}")
    assert choose_wording(reply, brief, NET).reason == "too_long"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("I'll ask. Your PIN is in Cards, and I'm glad. Visa takes it.", None),
        ('We send it. "Your refund" is (Your) it.', "Your"),
        ("We send it to\nAcme, I think.", "Acme"),
        ("We send it to Acme-Visa now.", "Acme-Visa"),
        ("ACME sends it.", "ACME"),
        ("We use iPhones.", "iPhones"),
    ],
)
def test_a_capitalised_word_inside_a_sentence_is_known_or_named(text, name):
    assert find_unknown_name(text, NET.names, NET.vocabulary) == name


def test_without_a_vocabulary_a_sentence_may_begin_with_any_word():
    assert find_unknown_name("Perhaps. Victoria?", NET.names) is None
