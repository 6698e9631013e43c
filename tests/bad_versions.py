"""Versions that must not serve: each is pushed to a store, and tampered with where a push would refuse it."""

import json
import os
import shutil
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import spox.opset.ai.onnx.v17 as op
from spox import Tensor, Var, argument, build
from tiny_model import TASKS, random_weights, tiny_encoder, write_tiny_model
from tiny_talker import write_talker

from murmura.runtime.model.folders.folder import read_manifest, write_manifest
from murmura.runtime.model.graph.build import build_graph
from murmura.runtime.release.store import ModelStore
from murmura.schemas.manifest import Base, TaskSpec


def resign(folder: Path, **changes: Any) -> Path:
    """Write the manifest anew for the files as they are now; those that are gone are not named any more."""
    manifest = read_manifest(folder)
    roles = {file.path: file.role for file in manifest.files if (folder / file.path).exists()}
    write_manifest(folder, manifest.model_copy(update=changes), roles)
    return folder


def with_weights(folder: Path, weights: dict[str, Any], tasks: Sequence[TaskSpec] = TASKS) -> Path:
    """Give a folder another graph than its reference sample was made with."""
    (folder / "model.ragged.onnx").write_bytes(build_graph(tiny_encoder(), tasks, weights, "ragged"))
    return resign(folder)


def not_finite(folder: Path) -> Path:
    weights = random_weights(tiny_encoder())
    weights["heads.intent.bias"][:] = np.nan
    return with_weights(folder, weights)


def not_reproduced(folder: Path) -> Path:
    return with_weights(folder, random_weights(tiny_encoder(), seed=77))


def wrong_shape(folder: Path) -> Path:
    wider = [TASKS[0].model_copy(update={"labels": [*TASKS[0].labels, "more"]}), *TASKS[1:]]
    return with_weights(folder, random_weights(tiny_encoder(), wider), wider)


def without_sample(folder: Path) -> Path:
    (folder / "reference.json").unlink()
    return resign(folder)


def empty_sample(folder: Path) -> Path:
    (folder / "reference.json").write_text('{"texts": [], "outputs": {}}')
    return resign(folder)


def lacks_task(folder: Path) -> Path:
    shutil.rmtree(folder)
    return write_tiny_model(folder, TASKS[1:])


def _with_graph(folder: Path, answer: Callable[[Var], Var]) -> Path:
    inputs = {name: argument(Tensor(np.int64, ("T",))) for name in ("input_ids", "position_ids")}
    inputs["seq_index"] = argument(Tensor(np.int64, ("N",)))
    inputs["pad_index"] = argument(Tensor(np.int64, ("B", "L")))
    inputs["attention_mask"] = argument(Tensor(np.float32, ("B", "L")))
    found = answer(inputs["attention_mask"])
    made = build(inputs, {task.name: op.identity(found) for task in TASKS})
    (folder / "model.ragged.onnx").write_bytes(made.SerializeToString())
    return resign(folder)


def endless(folder: Path) -> Path:
    """Harmless to load: it counts to 2 to the 62nd only when it is run."""

    def count(mask: Var) -> Var:
        one = op.const(np.ones(1, np.float32))
        often, go_on = op.const(np.array([2**62])), op.const(np.array([True]))
        (counted,) = op.loop(often, go_on, [mask], body=lambda i, on, value: [on, op.add(value, one)])
        return counted

    return _with_graph(folder, count)


def endless_replies(folder: Path) -> Path:
    """A decoder that never chooses the end of a reply."""
    shutil.rmtree(folder)
    return write_talker(folder, end_bias=-100.0)


def too_much_memory(folder: Path) -> Path:
    """Asks for 2 to the 40th numbers when it is run."""

    def expand(mask: Var) -> Var:
        rows = op.slice(op.shape(mask), op.const(np.array([0])), op.const(np.array([1])))
        huge = op.concat([rows, op.mul(op.div(rows, rows), op.const(np.array([2**40])))], axis=0)
        return op.expand(
            op.slice(mask, op.const(np.array([0])), op.const(np.array([1])), op.const(np.array([1]))), huge
        )

    return _with_graph(folder, expand)


def no_base(folder: Path) -> Path:
    return as_delta(folder, "package:nobody", "ab" * 32)


def as_delta(folder: Path, source: str, digest: str, tensors: dict[str, Any] | None = None) -> Path:
    """Make a model folder a delta folder with these tensors; none is no change at all, and so no model either."""
    from safetensors.numpy import save

    (folder / "model.ragged.onnx").unlink()
    (folder / "model.safetensors").unlink(missing_ok=True)
    (folder / "delta.safetensors").write_bytes(save(tensors or {"heads.intent.bias": np.zeros(4, np.float32)}))
    roles = {"delta.safetensors": "delta", "tokenizer.json": "tokenizer", "reference.json": "reference"}
    manifest = read_manifest(folder).model_copy(update={"base": Base(source=source, sha256=digest)})
    write_manifest(folder, manifest, roles)
    return folder


MADE: dict[Callable[[Path], Path], str] = {
    not_finite: "not_finite",
    not_reproduced: "not_reproduced",
    without_sample: "not_reproduced",
    empty_sample: "not_reproduced",
    wrong_shape: "wrong_shape",
    lacks_task: "lacks_task",
    endless: "endless",
    endless_replies: "endless",
    too_much_memory: "too_large",
    no_base: "no_base",
}
"""Makes a bad folder of a good one; and the reason of its refusal."""


def damaged(version: Path) -> None:
    graph = version / "model.ragged.onnx"
    graph.write_bytes(graph.read_bytes()[:-1])


def link(version: Path) -> None:
    os.link(version / "model.ragged.onnx", version.parent / "other.onnx")


def pickle(version: Path) -> None:
    (version / "tokenizer.json").rename(version / "weights.pkl")
    _rename_tokenizer(version, "weights.pkl")


def traversal(version: Path) -> None:
    _rename_tokenizer(version, "../../../outside.json")


def gone(version: Path) -> None:
    shutil.rmtree(version)


def _rename_tokenizer(version: Path, path: str) -> None:
    manifest = json.loads((version / "manifest.json").read_text())
    manifest["tokenizer"] = path
    next(file for file in manifest["files"] if file["role"] == "tokenizer")["path"] = path
    (version / "manifest.json").write_text(json.dumps(manifest))


TAMPERED: dict[Callable[[Path], None], str] = {
    damaged: "damaged",
    link: "link",
    pickle: "pickle",
    traversal: "unsafe_path",
    gone: "missing",
}
"""Changes a version in the store of a folder; and the reason of its refusal."""


def push_made(store: ModelStore, folder: Path, make: Callable[[Path], Path]) -> tuple[int, str]:
    """Push a folder that `make` has spoiled; returns number and digest."""
    version = store.push(make(write_tiny_model(folder)))
    return version, store.digest("tiny", version)


def push_tampered(store: ModelStore, folder: Path, tamper: Callable[[Path], None]) -> tuple[int, str]:
    """Push a good folder and change what lies in the store then."""
    version = store.push(write_tiny_model(folder))
    place = Path(store.address) / "tiny" / str(version)
    tamper(place)
    manifest = place / "manifest.json"
    return version, sha256(manifest.read_bytes()).hexdigest() if manifest.exists() else "0" * 64
