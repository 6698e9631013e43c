"""Replies as pieces and back, character for character, whatever the tokenizer."""

from string import ascii_lowercase

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from murmura.runtime.generation.reply_vocabulary import ReplyVocabulary, build_labels, list_slots
from murmura.runtime.model.kinds.generation import END

REPLIES = [
    "Would you like to book {restaurant_name} in {city}?",
    "Booking {restaurant_name} for {date}, at {time}.",
    "I'm sorry: the booking at {restaurant_name} failed.",
    "Would Sunday do? It costs {price}.",
    "{city}? ({date})",
]
SLOTS = ["city", "date", "price", "restaurant_name", "time"]
WORDS = [
    "would",
    "you",
    "like",
    "to",
    "book",
    "##ing",
    "in",
    "for",
    "at",
    "the",
    "?",
    ".",
    ",",
    "'",
    "{",
    "}",
    ":",
]


def wordpiece() -> Tokenizer:
    """As BERT's: lower case without accents, and words that it does not know."""
    pieces = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        *WORDS,
        *ascii_lowercase,
        *(f"##{letter}" for letter in ascii_lowercase),
    ]
    made = Tokenizer(models.WordPiece({piece: number for number, piece in enumerate(pieces)}, unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    made.enable_truncation(max_length=6)
    return made


def byte_pairs() -> Tokenizer:
    """A character of several bytes is several tokens, and a blank belongs to the word behind it."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)])
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(REPLIES, trainer)
    return made


def unigram() -> Tokenizer:
    """A blank is a character of its words."""
    scores = [("<unk>", 0.0), ("</s>", 0.0), *((f"▁{word}", -2.0) for word in WORDS[:5]), ("▁", -3.0), ("ing", -2.5)]
    made = Tokenizer(models.Unigram([*scores, *((letter, -4.0) for letter in ascii_lowercase)], unk_id=0))
    made.normalizer, made.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Metaspace()
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return made


TOKENIZERS = {"wordpiece": wordpiece(), "byte_pairs": byte_pairs(), "unigram": unigram()}
VOCABULARIES = {
    name: ReplyVocabulary(build_labels(REPLIES, tokenizer, SLOTS), tokenizer) for name, tokenizer in TOKENIZERS.items()
}
every_tokenizer = pytest.mark.parametrize("name", TOKENIZERS)
PARTS = st.sampled_from(
    [
        "{city}",
        "{date}",
        "{other}",
        "{",
        "}",
        " ",
        "  ",
        "\n",
        "Book",
        "booking",
        "É",
        "e\u0301",
        "京都",
        "\u200b",
        "[SEP]",
        "ß",
    ]
)
ANY_REPLY = st.lists(st.one_of(PARTS, st.text(max_size=6)), max_size=12).map("".join)


@every_tokenizer
@given(reply=ANY_REPLY)
def test_a_reply_of_training_comes_back_character_for_character(name, reply):
    labels = build_labels([reply], TOKENIZERS[name], SLOTS)
    vocabulary = ReplyVocabulary(labels, TOKENIZERS[name])
    assert len(set(labels)) == len(labels)
    assert vocabulary.find_unknown(reply) is None
    assert vocabulary.decode(vocabulary.encode(reply)) == reply


@every_tokenizer
@given(reply=ANY_REPLY)
def test_of_any_other_reply_only_what_no_piece_spells_is_left_out(name, reply):
    vocabulary = VOCABULARIES[name]
    spelt = "".join(character for character in reply if vocabulary.find_unknown(character) is None)
    assert vocabulary.decode([*vocabulary.encode(reply), 0, 5]) == spelt


@every_tokenizer
def test_slots_are_pieces_and_words_keep_their_blank_and_letter_case(name):
    vocabulary = VOCABULARIES[name]
    reply = "Would you book {city}({date})?"
    pieces = [vocabulary.labels[number] for number in vocabulary.encode(reply)]
    assert {" Would", " you", " {city}", "{date}"} <= set(pieces)
    assert {vocabulary.slots[number] for number in vocabulary.encode(reply) if number in vocabulary.slots} == {
        "city",
        "date",
    }
    assert list_slots(reply) == ["city", "date"]


def test_a_piece_begins_as_the_words_of_the_encoder_that_mean_it():
    tokenizer, vocabulary = TOKENIZERS["wordpiece"], VOCABULARIES["wordpiece"]
    begins = vocabulary.lower_ids(tokenizer)
    words = {
        label: [tokenizer.id_to_token(number) for number in ids]
        for label, ids in zip(vocabulary.labels, begins, strict=True)
    }
    assert words[END] == ["[SEP]"]
    assert (words[" Would"], words["ing"], words["?"]) == (["would"], ["##ing"], ["?"])
    assert words[" {date}"] == words["{date}"] == ["d", "##a", "##t", "##e"]


@every_tokenizer
def test_every_piece_begins_as_some_word(name):
    tokenizer = TOKENIZERS[name]
    begins = VOCABULARIES[name].lower_ids(tokenizer)
    assert all(ids and max(ids) < tokenizer.get_vocab_size() for ids in begins)


def test_the_most_common_pieces_are_kept_and_the_rest_is_spelt():
    tokenizer = TOKENIZERS["wordpiece"]
    every = build_labels(REPLIES, tokenizer, SLOTS)
    few = build_labels(REPLIES, tokenizer, SLOTS, len(every) - 5)
    assert few == every[:-5]
    assert all(ReplyVocabulary(few).decode(ReplyVocabulary(few, tokenizer).encode(reply)) == reply for reply in REPLIES)
    with pytest.raises(ValueError, match="10 pieces are too few"):
        build_labels(REPLIES, tokenizer, SLOTS, 10)


def test_what_cannot_be_a_vocabulary_is_refused():
    with pytest.raises(ValueError, match="a slot cannot be called 'end'"):
        build_labels(REPLIES, TOKENIZERS["wordpiece"], ["end"])
    with pytest.raises(ValueError, match="the first label"):
        ReplyVocabulary(["x", END])
    with pytest.raises(ValueError, match="only decodes"):
        ReplyVocabulary([END, "x"]).encode("x")
