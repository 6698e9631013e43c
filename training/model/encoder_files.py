"""Reads the three files of an encoder's folder. Whatever is wrong with one is one line with its path and what to do."""

import json
from pathlib import Path
from typing import Any, Final

from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from tokenizers import Tokenizer

from ...runtime.errors import SetupError
from ...runtime.model.folders.weights import weight_shapes
from ...schemas.manifest import EncoderSpec

WEIGHTS: Final = "model.safetensors"
TOKENIZER: Final = "tokenizer.json"
CONFIG: Final = "config.json"
SUPPORTED: Final = ("bert",)
POINTER: Final = b"version https://git-lfs.github.com/spec/"
"""How a file begins that Git LFS left in the place of a large one."""
SIZES: Final = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "intermediate_size": "intermediate_size",
    "max_positions": "max_position_embeddings",
}
"""Sizes of an encoder, and their keys in `config.json`."""
AGAIN: Final = "the file is damaged or incomplete; download it again"
Weights = dict[str, NDArray[Any]]


def find_weights(folder: Path) -> Path:
    """Return the path of the weights. SetupError where there are none in safetensors: a pickle can run code."""
    file = folder / WEIGHTS
    if (folder / f"{WEIGHTS}.index.json").is_file() and not file.is_file():
        raise SetupError(f"{folder}: the weights lie in several files, expected one {WEIGHTS}; save them again as one")
    if not file.is_file():
        raise SetupError(f"{folder}: no {WEIGHTS}; other formats are not read (a pickle can run code)")
    _refuse_pointer(file)
    return file


def read_weights(file: Path) -> Weights:
    """Read a safetensors file; tensors of less precision than float32 become float32."""
    try:
        tensors = load_file(file)
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        raise SetupError(f"{file}: not a readable safetensors file ({_first_line(error)}): {AGAIN}") from None
    return {name: t.float().numpy() if t.is_floating_point() else t.numpy() for name, t in tensors.items()}


def read_tokenizer(folder: Path) -> Tokenizer:
    """Read `tokenizer.json`, without its truncation and padding: MiniLM's file cuts at 128 and pads every text to 128."""
    file = folder / TOKENIZER
    if not file.is_file():
        old = (folder / "vocab.txt").is_file()
        advice = (
            "; vocab.txt alone is not read, save the tokenizer again with transformers' AutoTokenizer" if old else ""
        )
        raise SetupError(f"{folder}: no {TOKENIZER}{advice}")
    _refuse_pointer(file)
    _read_object(file)  # says where its JSON ends; the library below says less
    try:
        return plain_tokenizer(Tokenizer.from_file(str(file)))
    except Exception as error:  # noqa: BLE001  (the library raises bare Exception)
        raise SetupError(f"{file}: not a tokenizer of the tokenizers library ({_first_line(error)}): {AGAIN}") from None


def plain_tokenizer(tokenizer: Tokenizer) -> Tokenizer:
    """Switch off truncation and padding."""
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def read_spec(folder: Path, source: str, sha256: str) -> EncoderSpec:
    """Read `config.json`. SetupError for another architecture than BERT's, and for a size that is missing or none."""
    file = folder / CONFIG
    if not file.is_file():
        raise SetupError(f"{folder}: no {CONFIG}")
    _refuse_pointer(file)
    config = _read_object(file)
    found = config.get("model_type")
    if found not in SUPPORTED:
        raise SetupError(f"{file}: architecture {found!r} is not supported; supported: {', '.join(SUPPORTED)}")
    for key, expected in (("position_embedding_type", "absolute"), ("hidden_act", "gelu")):
        if config.get(key, expected) != expected:
            raise SetupError(f"{file}: {key} is {config[key]!r}, expected {expected!r}, as BERT has it")
    sizes = {name: _read_size(file, config, key) for name, key in SIZES.items()}
    epsilon = config.get("layer_norm_eps", 1e-12)
    if isinstance(epsilon, bool) or not isinstance(epsilon, int | float) or not 0 < epsilon < 1:
        raise SetupError(f"{file}: layer_norm_eps is {epsilon!r}, expected a number between 0 and 1")
    try:
        return EncoderSpec.model_validate({"source": source, "sha256": sha256, "layer_norm_eps": epsilon, **sizes})
    except ValidationError as error:
        reason = error.errors(include_url=False, include_input=False)[0]["msg"]
        raise SetupError(f"{file}: {reason}; {AGAIN}") from None


def check_sizes(file: Path, spec: EncoderSpec, weights: Weights) -> None:
    """Raise SetupError where the weights of `file` are not those of the sizes in `config.json`."""
    for name, shape in weight_shapes(spec, ()).items():
        if name not in weights:
            raise SetupError(f"{file}: no tensor {name}; {CONFIG} asks for one of shape {shape}")
        if weights[name].shape != shape:
            raise SetupError(f"{file}: {name} has the shape {weights[name].shape}, {CONFIG} asks for {shape}")
    types = weights.get("embeddings.token_type_embeddings.weight")
    if types is None or types.ndim != 2 or types.shape[1] != spec.hidden_size or not len(types):
        found = "missing" if types is None else f"of shape {types.shape}"
        raise SetupError(
            f"{file}: embeddings.token_type_embeddings.weight is {found}, expected (types, {spec.hidden_size})"
        )
    if any(name.startswith(f"encoder.layer.{spec.layers}.") for name in weights):
        raise SetupError(f"{file}: has more than the {spec.layers} layers that {CONFIG} names (num_hidden_layers)")


def check_vocabulary(folder: Path, tokenizer: Tokenizer, spec: EncoderSpec) -> None:
    """Raise SetupError where the tokenizer gives ids for which the encoder has no vector."""
    highest = max(tokenizer.get_vocab().values(), default=-1)
    if highest >= spec.vocab_size:
        raise SetupError(
            f"{folder / TOKENIZER}: has a token of id {highest}, the encoder has {spec.vocab_size} vectors "
            f"({CONFIG}: vocab_size); they do not belong together"
        )


def _refuse_pointer(file: Path) -> None:
    with file.open("rb") as opened:
        begins = opened.read(len(POINTER))
    if not begins:
        raise SetupError(f"{file}: an empty file; download it again")
    if begins == POINTER:
        raise SetupError(f"{file}: a pointer of Git LFS, not the file itself; run `git lfs pull` there, or download it")


def _read_object(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise SetupError(f"{file}: not JSON ({_first_line(error)}): {AGAIN}") from None
    if not isinstance(found, dict):
        raise SetupError(f"{file}: expected a JSON object, found {type(found).__name__}; {AGAIN}")
    return found


def _read_size(file: Path, config: dict[str, Any], key: str) -> int:
    found = config.get(key)
    if key not in config:
        raise SetupError(f"{file}: {key!r} is missing; expected a whole number from 1 on, as BERT's config has it")
    if isinstance(found, bool) or not isinstance(found, int) or found < 1:
        raise SetupError(f"{file}: {key} is {str(found)[:40]!r}, expected a whole number from 1 on")
    return found


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
