"""Builds the ONNX graph of a multitask encoder from arrays: one encoder, one output per task. Needs no torch.

Two layouts of the same weights:

- *ragged*: the tokens of all texts of a batch are concatenated, `T` in all. Everything but attention runs on `[T, H]`, only
  attention on `[B, S]`. No work is spent on padding, and an answer does not depend on the other texts of its batch.
- *padded*: the usual `[B, S]`, for devices with fixed shapes.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

from spox import build

from ....schemas.manifest import EncoderSpec, ModelManifest, TaskSpec
from ..kinds.forms import Reads
from ..kinds.registry import kind_of
from ..onnx_bytes import with_initializers
from ..weights import Weights, check_weights
from .bert import Bert
from .layouts import Padded, Ragged
from .parameters import Parameters, Var

Form = Literal["ragged", "padded"]
LAYOUTS: Final = {"ragged": Ragged, "padded": Padded}
ARCHITECTURES: Final = {"bert": Bert}
"""By the manifest's name: what makes states of a layout's tokens."""
NO_METADATA: Final[Mapping[str, str]] = {}


def describe_model(manifest: ModelManifest) -> dict[str, str]:
    """Return the ONNX metadata of a model: name, version and digest of the recipe.

    The version is that of the build; a model store gives a pushed folder its next number.
    """
    known = {"murmura.name": manifest.name, "murmura.version": str(manifest.version)}
    return known | ({"murmura.recipe": manifest.recipe} if manifest.recipe else {})


def build_graph(
    encoder: EncoderSpec,
    tasks: Sequence[TaskSpec],
    weights: Weights,
    form: Form = "ragged",
    metadata: Mapping[str, str] = NO_METADATA,
) -> bytes:
    """Return the serialised ONNX model (opset 20). The same weights and metadata give the same bytes.

    Inputs of the ragged form: `input_ids`, `position_ids`, `seq_index` int64 [T]; `pad_index` int64 [B, S], the row in
    [0, T) of each token and T for padding; `attention_mask` float32 [B, S]. `seq_index` is the index of each token in the
    flattened [B * S]. Inputs of the padded form: `input_ids` int64 [B, S] and `attention_mask` float32 [B, S].
    Outputs, named by the tasks: logits [B, C]; of kinds that read tokens [T, C] (padded: [B, S, C]).
    """
    return b"".join(_serialise(encoder, tasks, weights, form, metadata))


def write_graph(path: Path, manifest: ModelManifest, weights: Weights, form: Form = "ragged") -> None:
    """Write the graph of a manifest with its metadata, as `build_graph` returns it, without holding it all in memory."""
    with path.open("wb") as file:
        file.writelines(_serialise(manifest.encoder, manifest.tasks, weights, form, describe_model(manifest)))


def _serialise(
    encoder: EncoderSpec, tasks: Sequence[TaskSpec], weights: Weights, form: Form, metadata: Mapping[str, str]
) -> Iterator[bytes]:
    check_weights(encoder, tasks, weights)
    parameters, layout = Parameters(weights), LAYOUTS[form]()
    states = ARCHITECTURES[encoder.architecture](encoder, parameters, layout).states()
    pooled = layout.mean(states, encoder.hidden_size)

    def output(task: TaskSpec) -> Var:
        kind = kind_of(task)
        if kind.reads is Reads.TOKENS:
            return layout.by_token(kind.build_head(parameters, states, task), kind.width(task))
        return kind.build_head(parameters, pooled, task)

    outputs = {task.name: output(task) for task in tasks}  # which collects the parameters
    model = build({**layout.inputs, **parameters.variables}, outputs)
    model.graph.name = "murmura"
    for key, value in sorted(metadata.items()):
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    return with_initializers(model, parameters.values)
