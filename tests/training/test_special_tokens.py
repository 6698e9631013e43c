"""What is asked of tokenizers of every family: special tokens, words, and what cannot be done with them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_training import rows, write_jsonl
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from murmura.runtime.errors import SetupError
from murmura.runtime.model.decoding import Rows
from murmura.runtime.model.kinds.registry import kind_of
from murmura.runtime.model.model import Model
from murmura.runtime.model.texts.words import split_words
from murmura.schemas.manifest import TaskSpec
from murmura.training.data.example import Example, Span
from murmura.training.evaluate.evaluate import evaluate
from murmura.training.export.export import export
from murmura.training.fit.loop import fit
from murmura.training.fit.rows.encoding import count_tokens
from murmura.training.fit.start.optimiser import drop_words
from murmura.training.kinds.registry import KINDS
from murmura.training.model.encoders import train_tokenizer
from murmura.training.model.special_tokens import read_special_tokens

TEXTS = [row["text"] for row in rows(120, 1)]
CHINESE = ["我的卡丢了", "今天天气好"]
ENDS = ["<s>", "<pad>", "</s>"]


def around(tokenizer: Tokenizer) -> Tokenizer:
    ends = [(name, tokenizer.token_to_id(name)) for name in ("<s>", "</s>")]
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    return tokenizer


def unigram() -> Tokenizer:
    """As XLM-R's: ids of special tokens first, padding 1, unknown 3, blanks kept in front of words."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    special = [*ENDS, "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=120, special_tokens=special, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    return around(tokenizer)


def byte_level() -> Tokenizer:
    """As RoBERTa's: nothing is unknown, since every byte has a token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=299, special_tokens=ENDS, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    return around(tokenizer)


def byte_fallback() -> Tokenizer:
    """As Llama's: letters that are not known become tokens of single bytes."""
    single = [f"<0x{byte:02X}>" for byte in range(256)]
    vocabulary = {name: number for number, name in enumerate([*ENDS, "<unk>", *single, *"abcdefghijklmnopqrstuvwxyz▁"])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.ByteFallback()
    tokenizer.add_special_tokens([*ENDS, "<unk>"])
    return around(tokenizer)


def word_pieces() -> Tokenizer:
    return train_tokenizer(TEXTS, 200, lowercase=True)


FAMILIES = {"word pieces": word_pieces, "unigram": unigram, "byte level": byte_level, "byte fallback": byte_fallback}
SOME_UNKNOWN = [name for name in FAMILIES if name != "byte level"]


@pytest.mark.parametrize(
    ("family", "unknown", "kept"),
    [
        ("word pieces", "[UNK]", {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}),
        ("unigram", "<unk>", {*ENDS, "<unk>"}),
        ("byte level", None, set(ENDS)),
        ("byte fallback", "<unk>", {*ENDS, "<unk>"}),
    ],
)
def test_special_tokens_are_those_of_the_tokenizer(family: str, unknown: str | None, kept: set[str]) -> None:
    tokenizer = FAMILIES[family]()
    special = read_special_tokens(tokenizer)
    assert (None if special.unknown is None else tokenizer.id_to_token(special.unknown)) == unknown
    assert {tokenizer.id_to_token(number) for number in special.kept} == kept


@pytest.mark.parametrize("family", SOME_UNKNOWN)
def test_texts_of_another_language_are_mostly_unknown_in_every_family(family: str) -> None:
    tokenizer = FAMILIES[family]()
    unknown = read_special_tokens(tokenizer).unknown_ids
    assert count_tokens(CHINESE, tokenizer, unknown).mostly_unknown == 1.0
    assert count_tokens(TEXTS, tokenizer, unknown).mostly_unknown == 0.0


def test_where_nothing_is_unknown_the_share_is_none_and_not_zero() -> None:
    tokenizer = byte_level()
    assert count_tokens(CHINESE, tokenizer, read_special_tokens(tokenizer).unknown_ids).mostly_unknown is None


@pytest.mark.parametrize("family", SOME_UNKNOWN)
def test_word_dropout_reads_words_as_unknown_and_leaves_special_tokens(family: str) -> None:
    tokenizer = FAMILIES[family]()
    special = read_special_tokens(tokenizer)
    ids = torch.arange(tokenizer.get_vocab_size()).repeat(40, 1)
    dropped = drop_words(ids, 0.5, special)
    kept = sorted(special.kept)
    assert torch.equal(dropped[:, kept], ids[:, kept])
    changed = dropped != ids
    assert set(dropped[changed].tolist()) == {special.unknown}
    others = [number for number in range(tokenizer.get_vocab_size()) if number not in special.kept]
    assert changed[:, others].any(0).all()
    assert 0.45 < changed[:, others].float().mean() < 0.55


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "text",
    [
        "We met in Vienna, (today) at 9.",
        "to  New York\u00a0or Rome!",
        "\u200bNew York\u200b: £20",
        "send money to 北京 and paris",
        "Zu\u0308rich, (London)",
    ],
)
def test_perfect_tags_serve_the_same_words_whatever_the_tokenizer(family: str, text: str) -> None:
    encoding = FAMILIES[family]().encode(text)
    kind, labels = KINDS.get("tagging"), ["O", "B-p", "I-p"]
    spec = TaskSpec(name="t", kind="tagging", labels=labels, words="text")
    words = [(s, e) for s, e in split_words(text) if text[s].isalnum()]
    for first in range(len(words)):
        span = Span(words[first][0], words[min(first + 1, len(words) - 1)][1], "p")
        target = kind.target(Example(text, spans=(span,)), encoding, {label: at for at, label in enumerate(labels)})
        rows = Rows(np.eye(3)[np.maximum(target, 0)] * 9.0, np.array([0, len(target)]), [encoding], [text])
        served = kind_of(spec).make_decoder(spec)(rows, spec.thresholds)[0]["spans"]
        expected = (span.start, span.end)
        if family != "word pieces" or "北" not in text:  # an unknown word of several characters is one token
            assert [(each["start"], each["end"]) for each in served] == [expected], text[span.start : span.end]


def test_a_tokenizer_that_cannot_encode_every_text_is_refused() -> None:
    bare = word_pieces()
    bare.post_processor = processors.TemplateProcessing(single="$A", special_tokens=[])
    with pytest.raises(SetupError, match=r"^x/tokenizer\.json: no token stands around a text"):
        read_special_tokens(bare, "x/tokenizer.json")
    unnamed = json.loads(word_pieces().to_str())
    unnamed["model"]["unk_token"] = "[NEVER]"
    with pytest.raises(SetupError, match=r"its unknown token '\[NEVER\]' is not in its vocabulary"):
        read_special_tokens(Tokenizer.from_str(json.dumps(unnamed)))
    without = json.loads(unigram().to_str())
    without["model"]["unk_id"] = None
    with pytest.raises(SetupError, match="a Unigram model without unk_id"):
        read_special_tokens(Tokenizer.from_str(json.dumps(without)))


@pytest.fixture
def encoder_with(base: Path, tmp_path: Path) -> Callable[[str], Path]:
    """`encoder_with(family)` is the tiny checkpoint with a tokenizer of another family and a table of its size."""

    def make(family: str) -> Path:
        folder = shutil.copytree(base, tmp_path / family.replace(" ", "-"))
        tokenizer = FAMILIES[family]()
        tokenizer.add_special_tokens([AddedToken("<mask>", special=True)])
        tokenizer.save(str(folder / "tokenizer.json"))
        size, name = tokenizer.get_vocab_size(), "bert.embeddings.word_embeddings.weight"
        tensors = load_file(folder / "model.safetensors")
        save_file({**tensors, name: torch.randn(size, tensors[name].shape[1]) * 0.02}, folder / "model.safetensors")
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "vocab_size": size}))
        return folder

    return make


@pytest.mark.parametrize("family", FAMILIES)
def test_an_encoder_of_every_family_learns_sentences(
    family: str, encoder_with: Callable[[str], Path], data: Path, tmp_path: Path, write_recipe: Callable[..., Path]
) -> None:
    task = {"intent": {"train": "train.jsonl"}}
    budget = {"epochs": 6, "evaluations": 1}
    recipe = write_recipe(encoder=str(encoder_with(family)), tasks=task, budget=budget, max_tokens=32)
    record = fit(recipe, data, tmp_path / "run", quiet=True)
    assert record.validation["intent"]["main"] > 0.8


@pytest.mark.parametrize("family", SOME_UNKNOWN)
def test_chinese_stops_the_run_in_every_family_that_has_an_unknown_token(
    family: str, encoder_with: Callable[[str], Path], tmp_path: Path, write_recipe: Callable[..., Path]
) -> None:
    chinese = [{"text": CHINESE[n % 2] * (1 + n), "label": "ab"[n % 2]} for n in range(12)]
    write_jsonl(tmp_path / "zh.jsonl", chinese)
    recipe = write_recipe(encoder=str(encoder_with(family)), tasks={"x": {"train": "zh.jsonl"}})
    with pytest.raises(SetupError, match="mostly unknown to the encoder's vocabulary: x 100%"):
        fit(recipe, tmp_path, tmp_path / "run", quiet=True)


def test_an_encoder_without_an_unknown_token_says_what_goes_unnoticed(
    encoder_with: Callable[[str], Path],
    data: Path,
    tmp_path: Path,
    write_recipe: Callable[..., Path],
) -> None:
    task: dict[str, Any] = {"intent": {"train": "train.jsonl"}}
    keys = {"encoder": str(encoder_with("byte level")), "tasks": task, "budget": {"steps": 2, "evaluations": 1}}
    record = fit(write_recipe(**keys), data, tmp_path / "run", quiet=True)
    report = record.data["intent"]
    assert report.parts["train"].tokens is not None
    assert report.parts["train"].tokens.unknown is None
    assert any("has no unknown token: texts of a language that it does not know" in note for note in report.notes)
    with pytest.raises(SetupError, match=r"word_dropout 0\.1: the encoder's tokenizer has no unknown token"):
        fit(write_recipe(**keys, word_dropout=0.1), data, tmp_path / "run2", quiet=True)


@pytest.mark.parametrize("family", ["unigram", "byte level"])
def test_a_tagger_on_another_tokenizer_serves_the_words_of_the_text(
    family: str, encoder_with: Callable[[str], Path], tmp_path: Path, write_recipe: Callable[..., Path]
) -> None:
    for name, count, seed in (("train", 3200, 1), ("test", 300, 2)):
        whole = [row for row in rows(count, seed) if len(row["text"]) <= 29]  # a token is a letter or more
        ends = [{**row, "text": row["text"] + "." * (n % 2)} for n, row in enumerate(whole)]
        write_jsonl(tmp_path / f"{name}.jsonl", ends)
    tasks = {"places": {"kind": "tagging", "train": "train.jsonl", "validation": "test.jsonl", "test": "test.jsonl"}}
    recipe = write_recipe(encoder=str(encoder_with(family)), tasks=tasks, max_tokens=32, budget={"epochs": 12})
    fit(recipe, tmp_path, tmp_path / "run", quiet=True)
    assert export(tmp_path / "run", tmp_path / "out").tasks[0].words == "text"
    figures = evaluate(tmp_path / "out", tmp_path)["places"]["test"].figures
    assert figures["f1"] == figures["f1_exact"] > 0.9
    (answer,) = Model.load(tmp_path / "out", device="cpu").predict(["i lost my card in rome, paris."])
    assert {span["text"] for span in answer["places"]["spans"]} <= {"rome", "paris"}


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_changes_no_answer_whatever_its_id(family: str, encoder_with: Callable[[str], Path]) -> None:
    from murmura.training.model.encoders import build_encoder, load
    from murmura.training.model.padding import pad

    found = load(str(encoder_with(family)))
    network = build_encoder(found.spec, found.weights, dropout=0.0).eval()
    texts = [np.array(found.tokenizer.encode(text).ids) for text in ("send money to rome", "paris")]
    ids, mask = pad(texts)
    with torch.no_grad():
        together = network(input_ids=ids, attention_mask=mask).last_hidden_state[1, : len(texts[1])]
        alone = network(input_ids=torch.tensor(texts[1])[None]).last_hidden_state[0]
    assert torch.allclose(together, alone, atol=1e-5)
