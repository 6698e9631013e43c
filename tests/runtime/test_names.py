"""Names and pronouns that tell people apart are not read: whoever it is about, the text is the same."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from murmura.runtime.generation.names import find_names, mask_names, mask_pronouns

NAMES = [
    "James",
    "Mei Ling",
    "Lucía",
    "João",
    "Siobhán",
    "O'Brien",
    "Jean-Luc",
    "Nguyen",
    "Mr Okafor",
    "Dr. Müller",
    "WEI",
]
SENTENCES = [
    "{name} says my transfer hasn't arrived",
    "I sent £40 to {name} and it was not received",
    "Hello, this is {name}. I have lost my card",
    "why did {name}, my brother, get nothing?",
    "It was for {name}",
    "{name}",
    "My friend {name} and {amount}",
]
FORMS = [
    ("he", "she", "they"),
    ("him", "her", "them"),
    ("his", "her", "their"),
    ("his", "hers", "theirs"),
    ("himself", "herself", "themselves"),
    ("he's", "she's", "they're"),
    ("he was", "she was", "they were"),
    ("he hasn't", "she hasn't", "they haven't"),
]
letters = st.characters(categories=["Lu", "Ll"], max_codepoint=0x24F).filter(lambda each: len(each.lower()) == 1)
unknown_names = st.text(letters, min_size=1, max_size=9).map(lambda name: "Qz" + name)


@given(st.sampled_from(SENTENCES), st.one_of(st.sampled_from(NAMES), unknown_names))
def test_any_name_in_its_place_gives_the_same_text(sentence, name):
    assert mask_names(sentence.replace("{name}", name)) == mask_names(sentence.replace("{name}", "Anna"))


@given(
    st.sampled_from(FORMS),
    st.sampled_from(["my friend lost {} card", "{} told me", "I paid for {}.", "ask {}, please"]),
)
def test_any_pronoun_in_its_place_gives_the_same_text(forms, sentence):
    texts = [sentence.format(form) for form in forms] + [sentence.format(form.capitalize()) for form in forms]
    assert len({mask_names(text) for text in texts}) == len({mask_pronouns(text) for text in texts}) == 1


@given(
    st.one_of(
        st.text(st.characters(categories=["Lu", "Ll", "Zs", "Po"], max_codepoint=0x24F)),
        st.text("aB. {}'they HeIs\u0301"),
    )
)
def test_what_is_masked_is_masked_once(text):
    once = mask_names(text)
    assert mask_names(once) == once


@pytest.mark.parametrize(
    "text",
    [
        "why is my card not here",
        "My card is gone. Since {when} I think",
        "it was on Friday, I'm sure, or in March",
        "the theme of the other sheet",
    ],
)
def test_common_openings_slots_and_days_stay(text):
    assert mask_names(text) == text


def test_what_a_name_stands_in_stays():
    assert mask_names("it was my sister Anna at Pizza Express, €15") == "it was my sister {name} at {name}, €15"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("it was for Noa", ["Noa"]),
        ("Mei Ling", ["Mei Ling"]),
        ("to my brother Idris, please", ["Idris"]),
        ("Idris or Kwame Boateng", ["Kwame Boateng"]),
        ("Nope", []),
        ("Honestly, no idea", []),
        ("I forgot my PIN", []),
        ("on Friday I think", []),
    ],
)
def test_a_name_is_sure_where_it_is_capitalised_inside_a_sentence(text, found):
    assert [text[start:end] for start, end in find_names(text)] == found
