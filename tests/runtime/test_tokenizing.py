import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiny_model import tiny_encoder, tiny_tokenizer

from murmura.runtime.errors import ModelRefused
from murmura.runtime.model.texts.tokenizing import TextEncoder, read_tokenizer
from murmura.schemas.manifest import Limits, ModelManifest, TaskSpec

LIMIT = 8
ENCODE = TextEncoder(tiny_tokenizer(), LIMIT)
MOST_READ = 192 * LIMIT + 2048


def whole(text: str) -> tuple[list[int], bool]:
    """What the library gives for the whole text: ids cut to the limit, and whether something was cut off."""
    ids = tiny_tokenizer().encode(text).ids
    return (ids, False) if len(ids) <= LIMIT else ([*ids[: LIMIT - 1], ids[-1]], True)


def manifest(max_tokens: int = 32, vocab_size: int | None = None) -> ModelManifest:
    encoder = tiny_encoder(max_positions=64)
    if vocab_size is not None:
        encoder = encoder.model_copy(update={"vocab_size": vocab_size})
    task = TaskSpec(name="t", kind="classification", labels=["a"])
    return ModelManifest(name="m", encoder=encoder, tasks=[task], limits=Limits(max_tokens=max_tokens), files=[])


def test_a_text_of_exactly_the_limit_is_not_truncated() -> None:
    (item,) = ENCODE(["my card was lost hello help"])
    assert (item.tokens, item.truncated) == (8, False)


def test_one_token_more_is_truncated_to_the_limit() -> None:
    (item,) = ENCODE(["my card was lost hello help me"])
    assert (item.tokens, item.truncated) == (8, True)
    assert item.ids[-1] == tiny_tokenizer().token_to_id("[SEP]")


def test_texts_are_not_padded() -> None:
    assert [e.tokens for e in ENCODE(["hello", "my card", ""])] == [3, 4, 2]


def test_no_texts_give_no_tokens() -> None:
    assert ENCODE([]) == []


@pytest.mark.parametrize("bad", ["\ud800", "hello \udfff", "x" * 5000 + "\ud83d"])
def test_a_lone_surrogate_is_refused_by_its_index(bad: str) -> None:
    with pytest.raises(ValueError, match="text 1 has a lone surrogate"):
        ENCODE(["hello", bad])


PIECES = st.sampled_from(
    ["card ", "x" * 90, "y" * 300, " " * 400, "\u00e9", "\U0001f600", ".", "\n", "transfer", "\u200b" * 300]
)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(PIECES, max_size=40).map("".join), max_size=6))
def test_without_offsets_the_tokens_are_the_same(texts: list[str]) -> None:
    fast = TextEncoder(tiny_tokenizer(), LIMIT, offsets=False)
    assert [(e.ids, e.truncated) for e in fast(texts)] == [(e.ids, e.truncated) for e in ENCODE(texts)]


@settings(max_examples=300, deadline=None)
@example("x" * 90 + "\u200b" * 2100 + "x" * 90)  # one word of 180 letters, once the invisible are gone
@given(st.lists(PIECES, max_size=40).map("".join))
def test_a_long_text_gives_the_tokens_of_the_whole(text: str) -> None:
    (item,) = ENCODE([text])
    if len(text) <= MOST_READ:
        assert (item.ids, item.truncated) == whole(text)
    elif item.ids != whole(text)[0]:
        assert item.ids == whole(text[:MOST_READ])[0]
        assert item.truncated


@settings(max_examples=100, deadline=None)
@given(
    words=st.lists(st.sampled_from(["card", "my", "transfer", "\u00e9t\u00e9", "x" * 90, "y" * 300]), min_size=8),
    blanks=st.sampled_from([1, 30, 400]),
    more=st.integers(0, 10**5),
)
def test_words_that_fill_the_limit_within_what_is_read_give_the_tokens_of_the_whole(words, blanks, more) -> None:
    text = (" " * blanks).join(words) + " " + "card " * more
    (item,) = ENCODE([text])
    assert (item.ids, item.truncated) == whole(text)


@pytest.mark.parametrize("filler", [" ", "\u200b", "\n", "y", "\u0301"], ids=ascii)
def test_a_megabyte_that_gives_no_tokens_is_cut_and_says_so(filler: str) -> None:
    began = time.process_time()
    (item,) = ENCODE([filler * 2**20 + " card"])
    assert time.process_time() - began < 0.1
    assert item.truncated
    assert item.tokens < LIMIT


def test_a_megabyte_is_tokenised_in_the_time_of_its_beginning() -> None:
    began = time.process_time()
    (item,) = ENCODE(["my card was lost " * 60_000])
    assert time.process_time() - began < 0.2
    assert (item.tokens, item.truncated) == (LIMIT, True)


def test_a_limit_beyond_the_encoders_positions_is_refused() -> None:
    with pytest.raises(ModelRefused, match="max_tokens 65 is more than the encoder's 64 positions"):
        read_tokenizer(manifest(max_tokens=65), tiny_tokenizer().to_str().encode())


def test_a_tokenizer_with_more_tokens_than_the_encoder_is_refused() -> None:
    with pytest.raises(ModelRefused, match="do not belong together"):
        read_tokenizer(manifest(vocab_size=50), tiny_tokenizer().to_str().encode())


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff\xfe", b"[" * 10_000])
def test_what_is_no_tokenizer_is_refused_in_one_line(data: bytes) -> None:
    with pytest.raises(ModelRefused, match=r"tokenizer\.json cannot be read") as caught:
        read_tokenizer(manifest(), data)
    assert "\n" not in str(caught.value)
