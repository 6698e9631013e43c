"""What the model must not state by itself is found in texts and in the pieces of a decoder."""

import pytest

from murmura.runtime.generation.facts import find_fact, is_fact_piece
from murmura.runtime.model.replies.pieces import forbid_pieces, forbid_slots


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("Cards take 5 days.", "5"),
        ("We send £20.", "£20"),
        ("It costs €.", "€"),
        ("Half of it is back.", "Half"),
        ("Cards take five working days.", "five"),
        ("Twenty-five of them came.", "Twenty-five"),
        ("You hear from us tomorrow.", "tomorrow"),
        ("We open on Monday, as always.", "Monday"),
        ("It expires in May.", "May"),
        ("It expired in march or March.", "March"),
        ("We answer within a day.", "a day"),
        ("It takes a few working days.", "a few working days"),
        ("We sent one payment back.", "one payment"),
        ("Write to help@bank.", "help@bank"),
        ("See www.bank for it.", "www"),
        ("See bank.example for it.", "bank.example"),
        ("See https://x", "https"),
        ("About ½ of it.", "½"),
        ("There are 五 of them.", "五"),
        ("On the third, perhaps.", "third"),
        ("That was this morning.", "this morning"),
    ],
)
def test_a_fact_is_found_and_named(text, fact):
    assert find_fact(text) == fact


@pytest.mark.parametrize(
    "text",
    [
        "We ask {shop} for {amount} back. You hear from us within {days}.",
        "The card is blocked, and a new one is on its way.",
        "May I ask which card it is? It may take a while.",
        "Have a good day!",
        "No one knows. Which one of them?",
        "Please wait one moment, I march on; the sun sat down, and someone often tends to it.",
        "Is there anything else? First things first.",
    ],
)
def test_other_words_are_no_facts(text):
    assert find_fact(text) is None


def test_pieces_that_are_facts_are_forbidden_and_parts_of_words_are_not():
    labels = [
        "{end}",
        "{days}",
        " {days}",
        "7",
        " 12th",
        " €",
        "@",
        " www",
        "http",
        " ten",
        " Monday",
        " monday",
        " March",
        " May",
    ]
    others = ["ten", " march", " one", " card", "s", ".", " a", " money", " tend"]
    assert [label for label in labels[1:] + others if is_fact_piece(label)] == labels[3:]
    bias = forbid_pieces([*labels, *others], is_fact_piece)
    assert [value < 0 for value in bias] == [False] * 3 + [True] * 11 + [False] * 9


def test_slots_without_a_value_and_braces_are_forbidden():
    labels = ["{end}", " {days}", "{city}", "{", " a"]
    assert [value < 0 for value in forbid_slots(labels, ["days"])] == [False, False, True, True, False]
    assert forbid_slots(labels, {"days"}) is forbid_slots(labels, ("days",))
