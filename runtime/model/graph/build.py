"""Builds the ONNX graph of a multitask encoder from arrays: one encoder, one output per task. Needs no torch.

Two layouts of the same weights:

- *ragged*: the tokens of all texts of a batch are concatenated, `T` in all. Everything but attention runs on `[T, H]`, only
  attention on `[B, S]`. No work is spent on padding, and an answer does not depend on the other texts of its batch.
- *padded*: the usual `[B, S]`, for devices with fixed shapes.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

import spox.opset.ai.onnx.v20 as op

from ....schemas.manifest import HIDDEN, POOLED, EncoderSpec, FileRole, ModelManifest, TaskSpec
from ..folders.weights import Weights, check_weights
from ..kinds.forms import Reads
from ..kinds.registry import generating_tasks, kind_of
from .bert import Bert
from .decoder import write_decoders
from .head_inputs import HeadInputs
from .layouts import Padded, Ragged
from .parameters import Parameters, Var, finish_graph

Form = Literal["ragged", "padded"]
LAYOUTS: Final = {"ragged": Ragged, "padded": Padded}
ARCHITECTURES: Final = {"bert": Bert}
"""By the manifest's name: what makes the outputs of all layers of a layout's tokens."""
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
    *,
    pooled: bool = False,
    pooled_layers: Sequence[int] = (),
) -> bytes:
    """Return the serialised ONNX model (opset 20). The same weights and metadata give the same bytes.

    Inputs of the ragged form: `input_ids`, `position_ids`, `seq_index` int64 [T]; `pad_index` int64 [B, S], the row in
    [0, T) of each token and T for padding; `attention_mask` float32 [B, S]. `seq_index` is the index of each token in the
    flattened [B * S]. Inputs of the padded form: `input_ids` int64 [B, S] and `attention_mask` float32 [B, S].
    Outputs, named by the tasks: logits [B, C]; of kinds that read tokens [T, C] (padded: [B, S, C]). For tasks that generate
    there is one output together, `hidden`: the states [T, H] (padded: [B, S, H]) that their decoders read. With `pooled`
    there is an output `pooled`: the mean [B, H] of each text's states; with `pooled_layers` `heads.pooled` of their means.
    """
    return b"".join(_serialise(encoder, tasks, weights, form, metadata, pooled=pooled, pooled_layers=pooled_layers))


def write_graph(path: Path, manifest: ModelManifest, weights: Weights, form: Form = "ragged") -> None:
    """Write the graph of a manifest with its metadata, as `build_graph` returns it, without holding it all in memory."""
    with path.open("wb") as file:
        about = describe_model(manifest)
        encoder, tasks, pooled, layers = manifest.encoder, manifest.tasks, manifest.pooled, manifest.pooled_layers
        file.writelines(_serialise(encoder, tasks, weights, form, about, pooled=pooled, pooled_layers=layers))


def write_graphs(
    folder: Path, manifest: ModelManifest, weights: Weights, forms: Sequence[Form] = ("ragged",)
) -> dict[str, FileRole]:
    """Write all graphs of a manifest under their names: `model.FORM.onnx`, and the decoders. Returns path -> role."""
    roles: dict[str, FileRole] = {}
    for form in forms:
        write_graph(folder / f"model.{form}.onnx", manifest, weights, form)
        roles[f"model.{form}.onnx"] = "graph:ragged" if form == "ragged" else "graph:padded"
    return roles | write_decoders(folder, manifest, weights, describe_model(manifest))


def _serialise(
    encoder: EncoderSpec,
    tasks: Sequence[TaskSpec],
    weights: Weights,
    form: Form,
    metadata: Mapping[str, str],
    *,
    pooled: bool,
    pooled_layers: Sequence[int],
) -> Iterator[bytes]:
    check_weights(encoder, tasks, weights, pooled_layers)
    parameters, layout = Parameters(weights), LAYOUTS[form]()
    built = ARCHITECTURES[encoder.architecture](encoder, parameters, layout)
    layers = built.outputs()
    inputs = HeadInputs(parameters, layout, layers, encoder.hidden_size, built.masked)

    def output(task: TaskSpec) -> Var:
        kind = kind_of(task)
        read = inputs.of(task)
        if kind.reads is Reads.TOKENS:
            return layout.by_token(kind.build_head(parameters, read, task), kind.width(task))
        if task.head is None:
            return kind.build_head(parameters, read, task)
        # A product with a single row has other bits, so each text is in it twice.
        twice = kind.build_head(parameters, op.concat([read, read], axis=0), task)
        return op.split(twice, axis=0, num_outputs=2)[0]

    generating = generating_tasks(tasks)
    outputs = {task.name: output(task) for task in tasks if task not in generating}  # which collects the parameters
    if generating:
        outputs[HIDDEN] = layout.by_token(inputs.last, encoder.hidden_size)
    if pooled:
        means = [inputs.mean_of(layer) for layer in pooled_layers]
        outputs[POOLED] = _map_means(parameters, means) if means else inputs.mean
    return finish_graph(layout.inputs, outputs, parameters, metadata)


def _map_means(parameters: Parameters, means: Sequence[Var]) -> Var:
    """Return `heads.pooled` of the means [B, H] of some layers. A product with a single row has other bits, so each text is in it twice."""
    joined = op.concat(means, axis=1)
    twice = parameters.linear(op.concat([joined, joined], axis=0), f"heads.{POOLED}")
    return op.split(twice, axis=0, num_outputs=2)[0]
