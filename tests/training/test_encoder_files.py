"""An encoder's folder with each of its files damaged in each way that people meet: one line that names the file."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from murmura.runtime.errors import SetupError
from murmura.training.model.encoders import build_encoder, load

POINTER = (
    b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db\nsize 90868376\n"
)
FILES = ("config.json", "tokenizer.json", "model.safetensors")
PAGE = b"<!DOCTYPE html><html><body>Please log in</body></html>\n"
DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "a pointer of Git LFS": lambda content: POINTER,
    "an empty file": lambda content: b"",
    "cut after its first byte": lambda content: content[:1],
    "cut in the middle": lambda content: content[: len(content) // 2],
    "without its last byte": lambda content: content.rstrip()[:-1],
    "a web page in its place": lambda content: PAGE,
    "a JSON list in its place": lambda content: b"[1, 2, 3]",
    "a JSON object in its place": lambda content: b"{}",
    "not UTF-8": lambda content: b"\xff\xfe" + content,
    "too deeply nested": lambda content: b'{"a":' * 100_000,
    "missing": lambda content: None,
}


@pytest.fixture
def encoder(base: Path, tmp_path: Path) -> Path:
    """A copy of the tiny checkpoint to damage."""
    return shutil.copytree(base, tmp_path / "encoder")


def refusal(folder: Path) -> str:
    with pytest.raises(SetupError) as caught:
        load(str(folder))
    said = str(caught.value)
    assert "\n" not in said
    assert len(said) < 600
    return said


def reconfigured(folder: Path, **changes: Any) -> Path:
    file = folder / "config.json"
    config = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    return file


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_one_line_that_names_it(encoder: Path, name: str, damage: str) -> None:
    file = encoder / name
    content = DAMAGES[damage](file.read_bytes())
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    said = refusal(encoder)
    assert name in said
    assert str(encoder) in said


@pytest.mark.parametrize("name", FILES)
def test_a_pointer_says_how_to_get_the_file(encoder: Path, name: str) -> None:
    (encoder / name).write_bytes(POINTER)
    assert refusal(encoder) == (
        f"{encoder / name}: a pointer of Git LFS, not the file itself; run `git lfs pull` there, or download it"
    )


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_bytes_changed_at_random_never_give_a_traceback(
    encoder: Path, base: Path, name: str, data: st.DataObject
) -> None:
    content = bytearray((base / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        # Most of a file of weights is numbers, which may be any: the header is where it breaks.
        content[data.draw(st.integers(0, min(len(content), 4000) - 1))] = data.draw(st.integers(0, 255))
    (encoder / name).write_bytes(content)
    said = ""
    try:
        found = load(str(encoder))
        build_encoder(found.spec, found.weights, dropout=0.0)
    except SetupError as error:
        said = str(error)
    finally:
        (encoder / name).write_bytes((base / name).read_bytes())
    assert "\n" not in said


@pytest.mark.parametrize(
    "key",
    [
        "vocab_size",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "intermediate_size",
        "max_position_embeddings",
    ],
)
@pytest.mark.parametrize(("value", "said"), [(None, "is missing"), (0, "is '0'"), ("32", "is '32'"), (1.5, "is '1.5'")])
def test_a_size_that_is_missing_or_none_is_named(encoder: Path, key: str, value: Any, said: str) -> None:
    file = reconfigured(encoder, **{key: value})
    found = refusal(encoder)
    assert found.startswith(f"{file}: ")
    assert key in found
    assert said in found


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"vocab_size": 7}, "has a token of id"),
        ({"vocab_size": 9999}, r"embeddings\.word_embeddings\.weight has the shape .*asks for \(9999, 32\)"),
        ({"hidden_size": 64}, "model.safetensors: embeddings.word_embeddings.weight has the shape"),
        ({"hidden_size": 33}, "hidden_size 33 cannot be shared by 2 heads"),
        ({"num_hidden_layers": 1}, "has more than the 1 layers that config.json names"),
        ({"num_hidden_layers": 3}, r"no tensor encoder\.layer\.2\."),
        ({"intermediate_size": 5}, r"asks for \(5, 32\)"),
        ({"hidden_act": "relu"}, "hidden_act is 'relu', expected 'gelu'"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type is 'relative_key'"),
        ({"layer_norm_eps": "small"}, "layer_norm_eps is 'small'"),
        ({"model_type": ["bert"]}, r"architecture \['bert'\] is not supported"),
    ],
)
def test_files_that_do_not_belong_together_are_refused(encoder: Path, changes: dict[str, Any], said: str) -> None:
    reconfigured(encoder, **changes)
    with pytest.raises(SetupError, match=said):
        load(str(encoder))


def test_weights_in_several_files_and_an_old_vocabulary_say_what_to_do(encoder: Path) -> None:
    (encoder / "tokenizer.json").rename(encoder / "vocab.txt")
    assert "save the tokenizer again with transformers' AutoTokenizer" in refusal(encoder)
    (encoder / "model.safetensors").rename(encoder / "model-00001-of-00002.safetensors")
    (encoder / "model.safetensors.index.json").write_text("{}")
    assert "the weights lie in several files" in refusal(encoder)


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_weights_of_half_precision_are_read_as_float32(encoder: Path, precision: torch.dtype) -> None:
    file = encoder / "model.safetensors"
    before = load(str(encoder)).weights
    save_file({name: value.to(precision) for name, value in load_file(file).items()}, file)
    after = load(str(encoder)).weights
    assert {value.dtype for value in after.values()} == {np.dtype(np.float32)}
    assert all(np.allclose(before[name], after[name], atol=1e-2) for name in before)


def test_an_encoder_with_one_type_of_segment_is_built_with_one(encoder: Path) -> None:
    file, name = encoder / "model.safetensors", "bert.embeddings.token_type_embeddings.weight"
    tensors = load_file(file)
    save_file({**tensors, name: tensors[name][:1].clone()}, file)
    found = load(str(encoder))
    assert build_encoder(found.spec, found.weights, dropout=0.0).config.type_vocab_size == 1


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_model_folder_of_ours_is_held_to_its_manifest(model_folder: Path, tmp_path: Path, name: str) -> None:
    folder = shutil.copytree(model_folder, tmp_path / "model")
    file = folder / name
    content = bytearray(file.read_bytes())
    content[-2] ^= 1
    file.write_bytes(content)
    with pytest.raises(SetupError, match=f"{name} is not the file that the manifest names"):
        load(str(folder))


def test_a_tokenizer_of_another_library_version_is_named(encoder: Path) -> None:
    file = encoder / "tokenizer.json"
    file.write_text(json.dumps({**json.loads(Tokenizer.from_file(str(file)).to_str()), "model": {"type": "Future"}}))
    assert refusal(encoder).startswith(f"{file}: not a tokenizer of the tokenizers library")
