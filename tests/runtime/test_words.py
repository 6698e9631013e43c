"""Words by the text alone, held against those of the tokenizer that serves most models."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer, WhitespaceSplit

from murmura.runtime.model.decoding import Rows
from murmura.runtime.model.kinds.registry import kind_of
from murmura.runtime.model.texts.tokenizing import word_spans
from murmura.runtime.model.texts.words import _split_any, align_words, find_words, split_words, trim_span
from murmura.schemas.manifest import TaskSpec

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


@given(st.lists(PIECES, max_size=30).map("".join))
def test_words_align_with_the_tokens_of_a_bert_tokenizer_as_its_own_do(text: str) -> None:
    encoding = BERT.encode(text)
    assert align_words(text, encoding.offsets) == list(word_spans(encoding))


@pytest.mark.parametrize(
    ("text", "offsets", "words"),
    [
        ("in Vienna.", [(0, 0), (0, 2), (2, 10), (0, 0)], [(1, "in"), (2, "Vienna")]),  # "▁Vienna." is one token
        ("(today)", [(0, 6), (6, 7)], [(0, "today"), (1, ")")]),
        ("去北京吧", [(0, 1), (1, 3), (3, 4)], [(0, "去"), (1, "北京"), (2, "吧")]),
        ("New York", [(0, 3), (3, 6)], [(0, "New"), (1, "Yo")]),  # cut by the limit of tokens
        ("a \u200b b", [(0, 1), (4, 5)], [(0, "a"), (1, "b")]),
        ("U.S.A. now", [(0, 6), (7, 10)], [(0, "U.S.A"), (1, "now")]),
        ("x", [(0, 0), (0, 0)], []),
    ],
)
def test_a_word_belongs_to_the_first_token_that_touches_it(
    text: str, offsets: list[tuple[int, int]], words: list[tuple[int, str]]
) -> None:
    assert [(token, text[start:end]) for token, start, end in align_words(text, offsets)] == words


@given(st.text(st.characters(codec="utf-8", max_codepoint=0x30F), max_size=30))
def test_latin_texts_are_split_in_one_go_as_others_are_by_characters(text: str) -> None:
    assert split_words(text) == _split_any(text)


@given(st.text(max_size=20), st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=8))
def test_offsets_in_any_order_are_no_error(text: str, offsets: list[tuple[int, int]]) -> None:
    align_words(text, [(min(start, len(text)), min(end, len(text))) for start, end in offsets])


@given(st.text(max_size=20), st.data())
def test_every_word_has_a_token_of_its_own_whatever_the_offsets(text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    aligned = align_words(text, [*pairwise(cuts)])
    tokens = [token for token, _, _ in aligned]
    assert tokens == sorted(set(tokens))
    assert all(0 <= start < end <= len(text) for _, start, end in aligned)
    assert all(before[2] <= after[1] for before, after in pairwise(aligned))


def serve(fields: dict[str, object]) -> list[str]:
    """Return the spans of a tagger that begins a place at every word; its tokenizer splits at blanks alone."""
    tokenizer = Tokenizer(WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    text = "Vienna, (Rome)"
    encoding = tokenizer.encode(text)
    logits = np.eye(3)[[1] * len(encoding.ids)] * 9.0
    spec = TaskSpec.model_validate({"name": "t", "kind": "tagging", "labels": ["O", "B-p", "I-p"], **fields})
    rows = Rows(logits, np.array([0, len(logits)]), [encoding], [text])
    return [span["text"] for span in kind_of(spec).make_decoder(spec)(rows, spec.thresholds)[0]["spans"]]


def test_a_manifest_without_a_word_rule_is_served_by_the_words_of_its_tokenizer() -> None:
    assert serve({}) == ["Vienna,", "(Rome)"]
    assert serve({"words": "text"}) == ["Vienna", "Rome"]
