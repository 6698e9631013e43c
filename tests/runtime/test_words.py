"""Words by the text alone, held against those of the tokenizer that serves most models."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from murmura.runtime.model.decoding import word_spans
from murmura.runtime.model.words import find_words, split_words, trim_span

BERT = Tokenizer(WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
BERT.normalizer = BertNormalizer(lowercase=True)
BERT.pre_tokenizer = BertPreTokenizer()

LATIN = st.characters(codec="utf-8", categories=["Lu", "Ll", "Nd", "P", "Zs"], max_codepoint=0x24F)
PIECES = st.one_of(LATIN, st.sampled_from(["\u200b", "\u00ad", "\t", "$", "+", "京", "🇩🇪", "'", "."]))
INVISIBLE = st.text(st.sampled_from([" ", "\u00a0", "\t", "\n", "\u200b", "\ufeff", "\u2060", "\x00"]), max_size=3)


def texts_of(text: str) -> list[str]:
    return [text[start:end] for start, end in split_words(text)]


@given(st.lists(PIECES, max_size=30).map("".join))
def test_words_are_those_of_a_bert_tokenizer(text: str) -> None:
    assert split_words(text) == [(start, end) for _, start, end in word_spans(BERT.encode(text))]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("live in U.S.A. now", ["live", "in", "U", ".", "S", ".", "A", ".", "now"]),
        ("10kg £5", ["10kg", "£5"]),
        ("Zu\u0308rich e\u0301te\u0301", ["Zu\u0308rich", "e\u0301te\u0301"]),
        ("去北京 トウキョウ", ["去", "北", "京", "ト", "ウ", "キ", "ョ", "ウ"]),
        ("กิน", ["กิ", "น"]),
        ("New\u200bYork", ["New\u200bYork"]),
        ("\u200b \ufeff", []),
    ],
)
def test_marks_stay_with_their_letter_and_scripts_without_blanks_have_a_word_a_character(
    text: str, words: list[str]
) -> None:
    assert texts_of(text) == words


@given(INVISIBLE, INVISIBLE, st.sampled_from(["New York", "x", "Zu\u0308rich", "東京"]))
def test_a_span_is_trimmed_to_what_is_seen_of_it(before: str, after: str, name: str) -> None:
    text = f"to{before}{name}{after}now"
    assert trim_span(text, 2, len(text) - 3) == (2 + len(before), 2 + len(before) + len(name))


def test_a_span_keeps_the_marks_of_its_last_letter_and_one_of_blanks_is_none() -> None:
    assert trim_span("Zu\u0308", 0, 2) == (0, 3)
    assert trim_span("a \u200b b", 1, 4) is None


@given(st.lists(PIECES, max_size=20).map("".join), st.integers(0, 20), st.integers(0, 20))
def test_the_words_of_a_span_are_those_that_it_touches(text: str, start: int, end: int) -> None:
    words = split_words(text)
    touched = [number for number, (first, last) in enumerate(words) if first < end and start < last and start < end]
    assert find_words(words, start, end) == ((touched[0], touched[-1]) if touched else None) or start >= end
