"""ONNX files as bytes: writes weights into one without copies, and checks a read one for external data.

Tensors may be stored in other files, which onnxruntime opens relative to the working folder, even for a graph given as
bytes, and through hard links. Such graphs are refused. Both functions work on the protobuf bytes directly, without `onnx`
and without a second copy of 90 MB.
"""

from collections.abc import Iterator, Mapping
from io import BufferedReader
from mmap import ACCESS_READ, mmap
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ....schemas.serving_event import RejectReason
from ...errors import ModelRefused

# Message -> field number -> message of that field; other fields are skipped. Numbers are those of onnx.proto.
_FIELDS: Final[dict[str, dict[int, str]]] = {
    "model": {7: "graph", 25: "function"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
_GRAPH, _INITIALIZER, _RAW_DATA = 7, 5, 9
_FLOAT: Final = 1
_EXTERNAL_DATA: Final = 13
_DATA_LOCATION: Final = 14
_MAX_DEPTH: Final = 32


def refuse_external_data(file: BufferedReader) -> None:
    """Raise ModelRefused when a tensor of the graph refers to another file, or the file is not protobuf."""
    try:
        # Not closed explicitly: a failing walk leaves views of it in its traceback, and the last one releases it.
        external = _has_external(memoryview(mmap(file.fileno(), 0, access=ACCESS_READ)), "model", 0)
    except (IndexError, ValueError):
        message = "the graph is not an ONNX file (damaged or cut off); copy or export it again"
        raise ModelRefused(message, RejectReason.DAMAGED) from None
    if external:
        message = "the graph keeps tensors in other files, which is never loaded; export it in one file"
        raise ModelRefused(message, RejectReason.UNSAFE_PATH)


def _has_external(data: memoryview, message: str, depth: int) -> bool:
    if depth > _MAX_DEPTH:
        raise ValueError("nested too deep")
    inner = _FIELDS[message]
    for field, value in _walk(data):
        if message == "tensor" and (field == _EXTERNAL_DATA or (field == _DATA_LOCATION and value == 1)):
            return True
        if field in inner and isinstance(value, memoryview) and _has_external(value, inner[field], depth + 1):
            return True
    return False


def _walk(data: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """Yield (field number, value) of one message: bytes for length-delimited fields, a number for varints."""
    at, end = 0, len(data)
    while at < end:
        key, at = _varint(data, at)
        wire = key & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield key >> 3, value
        elif wire in {1, 5}:
            at += 8 if wire == 1 else 4
        elif wire == 2:
            size, at = _varint(data, at)
            if at + size > end:
                raise ValueError("cut off")
            yield key >> 3, data[at : at + size]
            at += size
        else:
            raise ValueError("not protobuf")
    if at != end:
        raise ValueError("cut off")


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
    raise ValueError("not protobuf")


def with_initializers(model: Any, values: Mapping[str, npt.NDArray[np.float32]]) -> Iterator[bytes]:
    """Yield, piece by piece, the bytes of an onnx.ModelProto whose inputs named in `values` have become initializers.

    Handing the arrays to the protobuf library (or to spox) copies them at every step.
    """
    graph = model.graph
    inputs = [value for value in graph.input if value.name not in values]
    del graph.input[:]
    graph.input.extend(inputs)
    heads = {name: _initializer_head(graph, name, value) for name, value in values.items()}
    rest = graph.SerializeToString(deterministic=True)
    model.ClearField("graph")
    yield model.SerializeToString(deterministic=True)
    yield _prefix(_GRAPH, len(rest) + sum(len(head) + values[name].nbytes for name, head in heads.items())) + rest
    for name, head in heads.items():
        yield head
        yield values[name].astype("<f4", copy=False).tobytes()


def _initializer_head(graph: Any, name: str, value: npt.NDArray[np.float32]) -> bytes:
    """The bytes of a tensor up to its data."""
    tensor = graph.initializer.add()
    tensor.name, tensor.data_type = name, _FLOAT
    tensor.dims.extend(value.shape)
    fields: bytes = tensor.SerializeToString(deterministic=True) + _prefix(_RAW_DATA, value.nbytes)
    del graph.initializer[:]
    return _prefix(_INITIALIZER, len(fields) + value.nbytes) + fields


def _prefix(field: int, size: int) -> bytes:
    """Key and length of a length-delimited protobuf field."""
    out, number = bytearray([field << 3 | 2]), size
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)
