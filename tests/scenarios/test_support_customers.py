"""The customers of `benchmarks/desk_conversations.py`: the same each time, other than training rows, and what they say when."""

import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
from desk_customers import Customer, draw_customers, draw_pairs, find_shared, put_slots, read_trained, read_words

WORDS = read_words()


def customer() -> Customer:
    values = {"shop": "Asda", "amount": "£17"}
    return Customer(["hi", "refund me"], values, {"shop": "it was {shop}"}, ["bananas"])


def test_a_customer_answers_what_is_asked_and_then_goes_on():
    asked = customer()
    said = [asked.speak(slot) for slot in (None, None, "shop", "shop", "shop", "shop", "amount", None)]
    assert said == ["hi", "refund me", "bananas", "it was Asda", "Asda", None, None, None]


def test_customers_and_pairs_are_the_same_each_time():
    random.seed(1)
    customers, pairs = draw_customers(WORDS, 200), draw_pairs(WORDS, 200)
    random.seed(2)
    assert (draw_customers(WORDS, 200), draw_pairs(WORDS, 200)) == (customers, pairs)
    assert len({str(each) for each in customers}) == 200
    assert len(pairs) == len({pair.turns for pair in pairs}) == 200
    assert {pair.kind for pair in pairs} == {"name", "pronoun"}


def test_a_pair_differs_in_its_last_turn_alone_and_has_no_slot_left():
    for pair in draw_pairs(WORDS, 200):
        assert pair.turns[0] != pair.turns[1]
        assert not any("{" in text or "}" in text for text in (*pair.before, *pair.turns))


def test_no_wording_of_the_customers_is_a_training_text():
    said = [text for texts in WORDS["openings"].values() for text in texts]
    said += [text for texts in WORDS["real"].values() for text in texts] + WORDS["questions"]
    said += [rule["turn"] for rule in (*WORDS["pairs"]["by_name"], *WORDS["pairs"]["by_pronoun"]["turns"])]
    assert [*find_shared([*said, *WORDS["unclear"], *WORDS["greetings"]], read_trained())] == []


@pytest.mark.parametrize(
    ("text", "values", "slotted"),
    [
        ("£20 to Anna Lee, Anna?", {"a": "Anna", "b": "Anna Lee", "m": "£20"}, "{m} to {b}, {a}?"),
        ("Annabel is no Anna.", {"a": "Anna"}, "Annabel is no {a}."),
    ],
)
def test_values_are_put_back_to_their_slots(text, values, slotted):
    assert put_slots(text, values) == slotted
