"""Looks into an ONNX file for what must not be there: tensors that lie in other files.

onnxruntime follows such references relative to the working folder, also for a graph given as bytes, and through hard
links. We never write them. The protobuf is walked as it lies (no copy, no parse of the weights), which needs no `onnx`.
"""

from collections.abc import Iterator
from io import BufferedReader
from mmap import ACCESS_READ, mmap
from typing import Final

from ..schemas.serving_event import RejectReason
from .errors import ModelRefused

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
_EXTERNAL_DATA: Final = 13
_DATA_LOCATION: Final = 14
_MAX_DEPTH: Final = 32


def refuse_external_data(file: BufferedReader) -> None:
    """Raise ModelRefused when a tensor of the graph refers to another file, or the file is not protobuf."""
    try:
        # Not closed by hand: a failing walk leaves views of it in its traceback, and the last of them lets go of it.
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
