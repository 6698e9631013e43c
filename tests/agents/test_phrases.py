"""Phrases that stop a text are found as their definition says, wherever they stand, in time that is in proportion to the text."""

import random
import re
import sys
import time
import unicodedata

import pytest
import regex

from murmura.agents.dialogue.policy import phrases as module
from murmura.agents.dialogue.policy.phrases import Phrases
from murmura.runtime.generation.facts import find_fact
from murmura.runtime.generation.names import mask_pronouns
from murmura.runtime.generation.normal_forms import INVISIBLE, normalise

LISTS = {
    "insult": ["you idiot*", "go to hell", "scum", "c'mon, you"],
    "threat": ["kill you", "i know where you live", "idiot* you know"],
    "none": [],
}
PIECES = [
    *[
        "you",
        "idiot",
        "idiots",
        "go",
        "to",
        "hell",
        "scum",
        "c'mon,",
        "kill",
        "i",
        "know",
        "where",
        "live",
        "YOU",
        "ｇｏ",
        "Ki\u200bll",
        "idiot́",
        "é",
        "ſcum",
        "ﷺ",
        "x-",
        ".",
        "\xad",
        "\u034f",
        "\u3164",
        "\u2003",
        "\x01",
    ],
    *(" ", " ", " ", " ", "\n", "  \t", ""),
]


UNSEEN = r"(?V1)[\p{Default_Ignorable_Code_Point}[\p{Cc}--[\t-\r\x1c-\x1f\x85]]]+"


def find_plainly(text: str) -> list[str]:
    plain = unicodedata.normalize("NFKC", regex.sub(UNSEEN, "", text)).casefold()

    def is_in(phrase: str) -> bool:
        words = r"\s+".join(re.escape(word).replace(r"\*", r"\w*") for word in phrase.split())
        return re.search(rf"(?<!\w){words}(?!\w)", plain) is not None

    return [label for label, phrases in LISTS.items() if any(map(is_in, phrases))]


@pytest.mark.parametrize("part", [1, 7, 40])
def test_what_is_found_part_by_part_is_what_is_found_at_once(monkeypatch, part):
    monkeypatch.setattr(module, "PART", part)
    drawn, found = random.Random(part), Phrases(LISTS)
    seen: set[str] = set()
    for _ in range(800):
        text = "".join(drawn.choice(PIECES) + drawn.choice(["", " ", " "]) for _ in range(drawn.randrange(30)))
        labels = find_plainly(text)
        assert found.find_labels(text) == labels, ascii(text)
        seen.update(labels)
    assert seen == {"insult", "threat"}


@pytest.mark.parametrize(
    ("text", "labels"), [("kill" + " " * 200 + "you", ["threat"]), ("kill" + " " * 201 + "you", [])]
)
def test_a_blank_is_up_to_200_characters_of_white_space(text, labels):
    assert Phrases(LISTS).find_labels("x" * 7_900 + " " + text) == labels


def test_lists_without_phrases_find_nothing():
    assert Phrases({}).find_labels("x " * 10_000) == Phrases({"none": []}).find_labels("") == []


def test_a_character_is_invisible_where_unicode_says_that_it_is_ignorable_or_a_control():
    everything = "".join(map(chr, range(sys.maxunicode + 1)))
    assert INVISIBLE.findall(everything) == regex.findall(UNSEEN, everything)
    assert Phrases(LISTS).find_labels("s\ufe0fcu\u115fm") == Phrases(LISTS).find_labels("sc\x01um") == ["insult"]
    assert find_fact("It takes fi\u00adve days.") == "five"


@pytest.mark.parametrize("blank", ["\n", "\u00a0", "\u3000"])
def test_a_long_text_is_cut_before_any_white_space(blank):
    text = "x" * 7_995 + blank + "cafe\u0301" + blank + "x" * 9_000
    assert text[module.PART] == "\u0301"
    assert Phrases({"other": ["caf\u00e9"]}).find_labels(text) == ["other"]


def test_what_grows_in_its_plain_form_is_looked_at_in_more_parts():
    text = "\ufdfa" * 8_000 + " you idiot"
    looked = [*Phrases(LISTS).search(text)]
    assert (len(looked), looked[-1]) == (19, ["insult"])
    assert not module.is_one_part("\ufdfa" * 500)


HOSTILE = [
    "kill ",
    "you ",
    "i ",
    " ",
    "{a}",
    "A",
    "1 ",
    "you idio ",
    "\u0301\u0323",
    "\u0301",
    "e\u0301",
    "\ufdfa",
    "\u200ba",
]


@pytest.mark.parametrize("repeated", HOSTILE, ids=ascii)
def test_a_long_text_costs_little_a_part_whatever_it_repeats(repeated):
    text = (repeated * (100_000 // len(repeated)))[:100_000]
    took, parts = [], Phrases(LISTS).search(text)
    began = time.thread_time()
    for _ in parts:
        took.append(time.thread_time() - began)
        began = time.thread_time()
    assert len(took) > 12
    assert sum(took) < 2  # hours for marks, if they were sorted
    mask_pronouns(text[:10_000])
    assert time.thread_time() - began < 0.5


def test_marks_in_a_row_are_cut_and_other_text_is_as_unicode_has_it():
    assert normalise("NFC", "e" + "\u0301\u0323" * 1000 + "a\u0301") == unicodedata.normalize(
        "NFC", "e" + "\u0301\u0323" * 15 + "a\u0301"
    )
    for text in ("Zoe\u0308 e\u0301t\u00e9 \ufb01n", "\u1100\u1161\u11a8", "\u2764\ufe0f" * 15):
        assert normalise("NFKC", text) == unicodedata.normalize("NFKC", text)
