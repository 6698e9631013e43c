from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tiny_model import TASKS, random_weights, tiny_encoder

from murmura.runtime.errors import ModelRefused
from murmura.runtime.model.folders.onnx_bytes import refuse_external_data
from murmura.runtime.model.graph.build import build_graph


def check(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(data)
    with (tmp_path / "m.onnx").open("rb") as file:
        refuse_external_data(file)


def external() -> TensorProto:
    tensor = numpy_helper.from_array(np.zeros(4, np.float32), "w")
    onnx.external_data_helper.set_external_data(tensor, "weights.data")
    tensor.ClearField("raw_data")
    return tensor


def model(graph: onnx.GraphProto) -> onnx.ModelProto:
    return helper.make_model(graph)


def initializer() -> onnx.ModelProto:
    return model(helper.make_graph([], "g", [], [], [external()]))


def location_only() -> onnx.ModelProto:
    tensor = external()
    del tensor.external_data[:]
    return model(helper.make_graph([], "g", [], [], [tensor]))


def constant() -> onnx.ModelProto:
    return model(helper.make_graph([helper.make_node("Constant", [], ["y"], value=external())], "g", [], []))


def nested() -> onnx.ModelProto:
    inner = helper.make_graph([], "inner", [], [], [external()])
    node = helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=helper.make_graph([], "e", [], []))
    return model(helper.make_graph([node], "g", [], []))


def sparse() -> onnx.ModelProto:
    graph = helper.make_graph([], "g", [], [])
    graph.sparse_initializer.add().values.CopyFrom(external())
    return model(graph)


def in_function() -> onnx.ModelProto:
    made = model(helper.make_graph([], "g", [], []))
    node = helper.make_node("Constant", [], ["y"], value=external())
    made.functions.append(helper.make_function("d", "f", [], ["y"], [node], [helper.make_opsetid("", 20)]))
    return made


@pytest.mark.parametrize("make", [initializer, location_only, constant, nested, sparse, in_function])
def test_tensors_in_other_files_are_refused_wherever_they_hide(tmp_path: Path, make: object) -> None:
    with pytest.raises(ModelRefused, match="in other files"):
        check(tmp_path, make().SerializeToString())  # type: ignore[operator]


@pytest.mark.parametrize(
    "data", [b"", b"\xff" * 40, b"\x80\x04\x95 a pickle", b"PK\x03\x04" + b"\0" * 60, b"\x3a\xff\xff\x7f"]
)
def test_what_is_not_protobuf_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(ModelRefused, match="not an ONNX file"):
        check(tmp_path, data)


def test_a_graph_cut_off_is_refused(tmp_path: Path) -> None:
    data = build_graph(tiny_encoder(), TASKS, random_weights(tiny_encoder()))
    with pytest.raises(ModelRefused, match="not an ONNX file"):
        check(tmp_path, data[:-3])


def test_our_own_graphs_pass(tmp_path: Path) -> None:
    for form in ("ragged", "padded"):
        check(tmp_path, build_graph(tiny_encoder(), TASKS, random_weights(tiny_encoder()), form))
