"""A complete model folder in milliseconds: a WordPiece vocabulary, random weights, our graph, manifest and reference.

Needs no torch and no pre-trained weights. `write_tiny_model(folder)` gives what `Model.load(folder)` loads.
"""

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from murmura.runtime.model.folders.folder import write_manifest
from murmura.runtime.model.folders.weights import weight_shapes
from murmura.runtime.model.graph.build import Form, write_graphs
from murmura.runtime.model.inputs import TextPair
from murmura.runtime.model.model import Model
from murmura.runtime.model.reference_sample import make_reference
from murmura.schemas.manifest import EncoderSpec, FileRole, Limits, ModelManifest, TaskSpec

WORDS = [
    "my",
    "card",
    "was",
    "lost",
    "and",
    "i",
    "want",
    "a",
    "new",
    "one",
    "please",
    "help",
    "me",
    "transfer",
    "money",
    "to",
    "the",
    "account",
    "in",
    "london",
    "on",
    "monday",
    "it",
    "is",
    "great",
    "bad",
    "why",
    "how",
    "what",
    "when",
    "where",
    "who",
    "cancel",
    "order",
    "refund",
    "payment",
    "failed",
    "thanks",
    "hello",
    "weather",
    "tomorrow",
]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
REFERENCE_TEXTS = ("my card was lost", "please transfer 20 money to london, on monday!", "hello")
REFERENCE_PAIRS = (TextPair("my card was lost", "i want a new card"), TextPair("hello", "thanks"))

INTENT = TaskSpec(
    name="intent", kind="classification", labels=["card_lost", "transfer", "refund", "other"], out_of_scope="other"
)
SENTIMENT = TaskSpec(name="sentiment", kind="classification", labels=["negative", "neutral", "positive"])
TOPICS = TaskSpec(name="topics", kind="multi_label", labels=["cards", "payments", "travel"])
ENTITIES = TaskSpec(name="entities", kind="tagging", labels=["O", "B-place", "I-place", "B-time", "I-time"])
TASKS = (INTENT, SENTIMENT, TOPICS, ENTITIES)


def tiny_tokenizer() -> Tokenizer:
    """BERT's normaliser, words and special tokens over a vocabulary of a few words, letters, digits and marks."""
    alphabet = list("abcdefghijklmnopqrstuvwxyz0123456789.,!?'-")
    pieces = SPECIAL + alphabet + ["##" + c for c in alphabet] + [w for w in dict.fromkeys(WORDS) if len(w) > 1]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", vocabulary["[SEP]"]), ("[CLS]", vocabulary["[CLS]"]))
    return tokenizer


def tiny_encoder(*, hidden: int = 16, layers: int = 2, heads: int = 2, max_positions: int = 64) -> EncoderSpec:
    return EncoderSpec(
        source="scratch",
        sha256="0" * 64,
        vocab_size=tiny_tokenizer().get_vocab_size(),
        hidden_size=hidden,
        layers=layers,
        heads=heads,
        intermediate_size=2 * hidden,
        max_positions=max_positions,
    )


def random_weights(
    encoder: EncoderSpec,
    tasks: Sequence[TaskSpec] = TASKS,
    seed: int = 0,
    *,
    scale: float = 0.4,
    pooled_layers: Sequence[int] = (),
) -> dict[str, npt.NDArray[np.float32]]:
    """Normal weights large enough that answers differ from text to text; LayerNorm near one."""
    random = np.random.default_rng(seed)
    weights = {}
    for name, shape in weight_shapes(encoder, tasks, pooled_layers).items():
        values = random.normal(0.0, scale, shape)
        weights[name] = (values * 0.2 + 1.0 if name.lower().endswith("norm.weight") else values).astype(np.float32)
    return weights


def write_tiny_model(
    folder: Path,
    tasks: Sequence[TaskSpec] = TASKS,
    *,
    name: str = "tiny",
    version: int = 0,
    seed: int = 0,
    max_tokens: int = 32,
    graphs: Sequence[Form] = ("ragged",),
    encoder: EncoderSpec | None = None,
    scale: float = 0.4,
    pooled: bool = False,
    pooled_layers: Sequence[int] = (),
    added: Mapping[str, npt.NDArray[np.float32]] = MappingProxyType({}),
) -> Path:
    """Write a model folder with random weights and return it; `added` is added to some. The same arguments give the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    encoder = encoder or tiny_encoder()
    weights = random_weights(encoder, tasks, seed, scale=scale, pooled_layers=pooled_layers)
    weights |= {name: weights[name] + values for name, values in added.items()}
    checkpoint = save(weights)
    (folder / "model.safetensors").write_bytes(checkpoint)
    (folder / "tokenizer.json").write_text(tiny_tokenizer().to_str())
    roles: dict[str, FileRole] = {"tokenizer.json": "tokenizer", "model.safetensors": "training"}
    manifest = ModelManifest(
        name=name,
        version=version,
        encoder=encoder.model_copy(update={"sha256": sha256(checkpoint).hexdigest()}),
        tasks=list(tasks),
        limits=Limits(max_tokens=max_tokens),
        pooled=pooled,
        pooled_layers=list(pooled_layers),
        files=[],
    )
    roles |= write_graphs(folder, manifest, weights, graphs)
    write_manifest(folder, manifest, roles)
    model = Model.load(folder, device="cpu", graph=graphs[0], verify=False)
    sample = [*REFERENCE_TEXTS, *(REFERENCE_PAIRS if model.pair_tasks else ())]
    (folder / "reference.json").write_text(json.dumps(make_reference(model, sample)))
    write_manifest(folder, manifest, roles | {"reference.json": "reference"})
    return folder
