"""Where an encoder comes from: a folder, the hub, a Python package that carries one, or nothing but sizes."""

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from ...runtime.errors import SetupError
from ...runtime.model.deltas.base_checkpoints import CheckpointMissing, download_from_hub, find_in_package
from ...runtime.model.deltas.delta import checkpoint_weights, read_delta
from ...runtime.model.folders.folder import open_checked, read_manifest
from ...schemas.manifest import MANIFEST_NAME, EncoderSpec, ModelManifest
from ..recipe.recipe import Encoder
from .encoder_files import (
    CONFIG,
    TOKENIZER,
    WEIGHTS,
    check_sizes,
    check_vocabulary,
    find_weights,
    read_spec,
    read_tokenizer,
    read_weights,
)
from .methods.graph_parts import add_parts
from .special_tokens import SpecialTokens, read_special_tokens

if TYPE_CHECKING:
    from transformers import BertModel

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
    special: SpecialTokens
    manifest: ModelManifest | None = None
    folder: Path | None = None
    """Set where the source is a folder, which no address can find again."""
    delta: Weights | None = None
    """What the folder held, where it was a delta: `weights` are assembled from it and its `base`."""
    base: Weights | None = None
    plain: "Checkpoint | None" = None
    """The same without the template of a verbaliser, where it was given one."""


def open_checkpoint(encoder: Encoder, texts: Iterable[str], *, seed: int = 0) -> Checkpoint:
    """Load the recipe's encoder. `texts` are read only from scratch, to train the vocabulary."""
    return from_scratch(encoder, texts, seed=seed) if encoder.source == "scratch" else load(encoder.source)


def load(source: str) -> Checkpoint:
    """Load a BERT-type checkpoint or a model folder of ours. Only safetensors: a pickle can run code.

    SetupError names the file that is missing, damaged, or does not fit the others.
    """
    folder = locate(source)
    ours = _read_own_manifest(folder)
    if ours is not None and ours.is_delta:
        return _load_delta(folder)
    file = find_weights(folder)
    named, kept = (source, None) if ":" in source else (folder.resolve().name, folder.resolve())
    sha256 = digest(file)
    if ours is not None:
        spec = ours.encoder.model_copy(update={"source": named, "sha256": sha256})
    else:
        spec = read_spec(folder, named, sha256)
    tokenizer = read_tokenizer(folder)
    check_vocabulary(folder, tokenizer, spec)
    special = read_special_tokens(tokenizer, str(folder / TOKENIZER))
    weights = read_weights(file)
    weights = weights if ours is not None else checkpoint_weights(weights)
    check_sizes(file, spec, weights)
    return Checkpoint(spec, weights, tokenizer, special, ours, kept)


def _load_delta(folder: Path) -> Checkpoint:
    read = read_delta(folder)
    tokenizer = read_tokenizer(folder)
    special = read_special_tokens(tokenizer, str(folder / TOKENIZER))
    spec = read.manifest.encoder
    return Checkpoint(
        spec, read.weights, tokenizer, special, read.manifest, delta=dict(read.delta), base=dict(read.base)
    )


def _read_own_manifest(folder: Path) -> ModelManifest | None:
    """Return the manifest of a model folder of ours; what is read of it must be as the manifest says."""
    if not (folder / MANIFEST_NAME).is_file():
        return None
    manifest = read_manifest(folder)
    for entry in manifest.files:
        if entry.path in {WEIGHTS, TOKENIZER}:
            open_checked(folder, entry).close()
    return manifest


def locate(source: str) -> Path:
    """Return the folder of a source; SetupError says what to install or where it was looked for."""
    kind, _, name = source.partition(":")
    try:
        if kind == "package":
            return find_in_package(name, CONFIG)
        if kind == "hub":
            return download_from_hub(name, [CONFIG, TOKENIZER, WEIGHTS])
    except CheckpointMissing as error:
        raise SetupError(f"encoder {source} is not here: {error}") from None
    folder = Path(source)
    if not folder.is_dir():
        raise SetupError(
            f"encoder {source}: no such folder; expected a folder, hub:OWNER/NAME, package:NAME or scratch"
        )
    return folder


def digest(path: Path) -> str:
    """Return the SHA-256 of a file in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def build_encoder(spec: EncoderSpec, weights: Weights, *, dropout: float) -> "BertModel":
    """Make the torch module of an encoder. Names of parameters are those of `weights`."""
    from transformers import BertConfig, BertModel  # noqa: PLC0415  (takes seconds; refusals and checks need none of it)

    types = weights.get("embeddings.token_type_embeddings.weight")
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
        pad_token_id=None,  # padding is masked, whatever its id
        **({} if types is None else {"type_vocab_size": len(types)}),
    )
    module = BertModel(config, add_pooling_layer=False)
    add_parts(module, spec, weights)
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
    return Checkpoint(spec, weights, tokenizer, read_special_tokens(tokenizer))


def train_tokenizer(texts: Iterable[str], vocab_size: int, *, lowercase: bool) -> Tokenizer:
    """Train a BERT-type WordPiece tokenizer; the same texts give the same vocabulary."""
    texts = list(texts)
    vocabulary = _vocabulary(texts, vocab_size, lowercase)
    tokenizer = _bert_tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"), lowercase)  # noqa: S106
    tokenizer.add_special_tokens(SPECIAL)
    ends = [(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=ends
    )
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
