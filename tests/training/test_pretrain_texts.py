"""Where the texts of a pre-training come from, and the words that a vocabulary gets from them."""

import json
from pathlib import Path

import numpy as np
import pytest
from tiny_training import write_jsonl

from murmura.runtime.errors import SetupError
from murmura.training.model.encoders import Checkpoint, from_scratch
from murmura.training.pretrain.texts import read_documents, read_pairs
from murmura.training.pretrain.vocabulary import WORDS, extend_vocabulary
from murmura.training.recipe.keys.pretraining import NewWords, PairSource, TextSource
from murmura.training.recipe.recipe import Encoder


def read(folder: Path, **source: object) -> list[list[str]]:
    documents = read_documents([TextSource.model_validate(source)], folder, seed=0)
    return [[text.text for text in each] for each in documents]


def test_lines_are_texts_and_an_empty_line_ends_a_document(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\n\n\n three \n")
    assert read(tmp_path, path="a.txt") == [["one", "two"], ["three"]]


def test_json_lines_have_a_text_a_list_of_texts_or_turns(tmp_path: Path) -> None:
    turns = [{"role": "user", "text": "hi"}, {"role": "agent", "text": " "}, {"role": "agent", "text": "hello"}]
    rows = [{"text": "one"}, {"text": ["two", "three"]}, {"turns": turns, "reply": "bye"}]
    write_jsonl(tmp_path / "a.jsonl", rows)
    assert read(tmp_path, path="a.jsonl") == [["one"], ["two", "three"], ["hi", "hello", "bye"]]
    assert read(tmp_path, path="a.jsonl", format="jsonl", rows=1) in (
        [["one"]],
        [["two", "three"]],
        [["hi", "hello", "bye"]],
    )


def test_rows_of_one_group_are_a_document_in_their_order(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("said,call\na,1\nb,2\nc,1\n")
    assert read(tmp_path, path="a.csv", column="said", group="call") == [["a", "c"], ["b"]]


def test_dialogues_are_read_whole_with_texts_or_utterances(tmp_path: Path) -> None:
    lines = [{"dialogue": "1", "turns": [{"role": "user", "text": "a"}, {"role": "user", "text": "b"}]}]
    write_jsonl(tmp_path / "a.jsonl", lines)
    assert read(tmp_path, path="a.jsonl", format="dialogues") == [["a", "b"]]
    (tmp_path / "b.json").write_text(json.dumps([{"turns": [{"utterance": "c"}, {"utterance": "d"}]}]))
    assert read(tmp_path, path="b.json", format="sgd") == [["c", "d"]]


def test_of_what_ingest_made_consented_texts_are_read_once_and_none_that_is_held_out(tmp_path: Path) -> None:
    folder = tmp_path / "feedback"
    folder.mkdir()
    (folder / "dataset.json").write_text("{}")
    write_jsonl(folder / "intent.train.jsonl", [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}])
    write_jsonl(folder / "topics.train.jsonl", [{"text": "a", "label": ["z"]}])
    write_jsonl(folder / "intent.heldout.jsonl", [{"text": "held", "label": "x"}])
    write_jsonl(folder / "left_out.jsonl", [{"text": "no consent"}])
    liked = [{"text": "c", "part": "train"}, {"text": "held", "part": "heldout"}]
    write_jsonl(folder / "preferences.jsonl", liked)
    write_jsonl(folder / "reply.train.jsonl", [{"turns": [{"role": "user", "text": "hi"}], "reply": "hello"}])
    assert sorted(read(tmp_path, path="feedback")) == [["a"], ["b"], ["c"], ["hi", "hello"]]


def test_pairs_have_two_texts_and_may_have_a_third_that_means_something_else(tmp_path: Path) -> None:
    rows = [
        {"text": "a", "text_pair": "b", "label": "same", "not": "c"},
        {"text": "a", "text_pair": "d", "label": "other"},
    ]
    write_jsonl(tmp_path / "p.jsonl", rows)
    source = PairSource.model_validate({"path": "p.jsonl", "negative": "not", "where": {"label": "same"}})
    assert [(each.text, each.other, each.negative) for each in read_pairs([source], tmp_path, seed=0)] == [
        ("a", "b", "c")
    ]


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("none.txt", None, "no such file; paths in a recipe are relative to --data"),
        ("blank.txt", "\n \n", "no texts; expected some in 'text'"),
        ("rows.jsonl", '{"said": "a"}\n', "rows.jsonl:1: column 'text' is missing; found said"),
        ("rows.jsonl", '{"text": 3}\n', "rows.jsonl:1: column 'text' is int"),
    ],
)
def test_a_source_without_texts_is_one_line(tmp_path: Path, name: str, content: str | None, problem: str) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(SetupError, match=problem):
        read(tmp_path, path=name)


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    encoder = Encoder(source="scratch", hidden_size=8, layers=1, vocab_size=100, max_positions=16)
    return from_scratch(encoder, ["a card of the bank", "the card is here"], seed=0)


def test_a_new_word_begins_as_the_mean_of_its_pieces_and_others_keep_their_ids(checkpoint: Checkpoint) -> None:
    texts = ["Bankcard is here"] * 5 + ["the bank 12345"] * 9 + ["reached"]
    pieces = checkpoint.tokenizer.encode("bankcard", add_special_tokens=False).ids
    assert len(pieces) > 2
    rule = NewWords(least_count=5, least_pieces=3)
    found, words = extend_vocabulary(checkpoint, texts, rule)
    assert words == ["bankcard"]
    size = checkpoint.spec.vocab_size
    assert found.tokenizer.encode("a BANKCARD here", add_special_tokens=False).ids == [
        *checkpoint.tokenizer.encode("a", add_special_tokens=False).ids,
        size,
        *checkpoint.tokenizer.encode("here", add_special_tokens=False).ids,
    ]
    assert (found.spec.vocab_size, found.tokenizer.get_vocab_size()) == (size + 1, size + 1)
    table = found.weights[WORDS]
    assert np.array_equal(table[:size], checkpoint.weights[WORDS])
    assert np.allclose(table[size], checkpoint.weights[WORDS][pieces].mean(0))


def test_no_new_word_leaves_the_checkpoint_as_it_is(checkpoint: Checkpoint) -> None:
    assert extend_vocabulary(checkpoint, ["the card"], NewWords()) == (checkpoint, [])
