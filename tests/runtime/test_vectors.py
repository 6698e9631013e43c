"""The pooled output: a vector of each text, the same in any batch, in graphs, models and the engine."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from tiny_model import INTENT, TASKS, tiny_encoder, write_tiny_model

from murmura.runtime.batching.engine import Engine
from murmura.runtime.errors import ModelRefused, RecordError
from murmura.runtime.model.folders.folder import read_manifest, write_manifest
from murmura.runtime.model.model import Model
from murmura.runtime.model.reference_sample import check_reference
from murmura.runtime.model.vectors import unit_vectors
from murmura.runtime.testing.fakes import FakeEngine, FakeModel
from murmura.schemas.manifest import POOLED, FileRole, ModelManifest

TEXTS = ["my card was lost in london", "hello", "please cancel order 12, thanks!", "transfer money " * 30, "hello"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny"
    return write_tiny_model(path, pooled=True, graphs=("ragged", "padded"))


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return Model.load(folder, device="cpu")


@pytest.fixture
async def engine(model: Model) -> AsyncIterator[Engine]:
    engine = Engine(model, max_in_flight=1, token_budget=64)
    await engine.start()
    yield engine
    await engine.stop(5)


def test_a_text_has_a_vector_of_length_one_with_the_same_bits_alone_and_in_any_batch(model: Model) -> None:
    together = model.embed(TEXTS)
    assert together.shape == (5, 16)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    assert all(np.array_equal(model.embed([text])[0], row) for text, row in zip(TEXTS, together, strict=True))
    assert np.array_equal(model.embed(TEXTS[::-1])[::-1], together)
    assert np.array_equal(together[1], together[4])
    assert together[0] @ together[1] < 0.999
    assert model.embed([]).shape == (0, 16)


def test_the_vector_is_the_mean_that_heads_read(model: Model, folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    given: list[Mapping[str, Any]] = []

    class Listening:
        device = "cpu"

        def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
            given.append(model.runner.run(feeds))
            return dict(given[-1])

        def terminate(self, thread: int | None = None) -> None: ...

    listening = Model(model.manifest, model._encoder._encode._tokenizer, Listening())
    vectors = listening.embed(TEXTS[:3])
    logits = given[0][POOLED] @ weights["heads.intent.weight"].T + weights["heads.intent.bias"]
    np.testing.assert_allclose(logits, given[0]["intent"], atol=1e-5)
    assert np.array_equal(vectors, unit_vectors(given[0][POOLED]))


def test_the_padded_graph_gives_the_same_vectors(model: Model, folder: Path) -> None:
    padded = Model.load(folder, device="cpu", graph="padded")
    np.testing.assert_allclose(padded.embed(TEXTS), model.embed(TEXTS), atol=1e-5)


def test_a_vector_of_several_layers_has_the_same_bits_alone_and_in_any_batch(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "m", [INTENT], pooled=True, pooled_layers=[0, 2], graphs=("ragged", "padded"))
    model, padded = (Model.load(folder, device="cpu", graph=graph) for graph in ("ragged", "padded"))
    together = model.embed(TEXTS)
    assert all(np.array_equal(model.embed([text])[0], row) for text, row in zip(TEXTS, together, strict=True))
    np.testing.assert_allclose(padded.embed(TEXTS), together, atol=1e-5)
    plain = Model.load(write_tiny_model(tmp_path / "plain", [INTENT], pooled=True), device="cpu")
    assert plain.predict(TEXTS) == model.predict(TEXTS)
    assert not np.allclose(plain.embed(TEXTS), together, atol=0.1)


def test_layers_of_a_vector_are_those_that_the_encoder_has() -> None:
    with pytest.raises(ValueError, match="pooled_layers: expected `pooled` and layers from 0 to 2"):
        ModelManifest(name="m", encoder=tiny_encoder(), tasks=[INTENT], files=[], pooled=True, pooled_layers=[3])


def test_a_row_of_zeros_stays_one() -> None:
    assert np.array_equal(unit_vectors(np.array([[0.0, 0.0], [3.0, 4.0]])), np.array([[0, 0], [0.6, 0.8]], np.float32))


def test_the_reference_sample_holds_the_vectors(model: Model, folder: Path) -> None:
    sample = json.loads((folder / "reference.json").read_text())
    check_reference(model, sample)
    sample["vectors"][1][0] += 0.01
    with pytest.raises(ModelRefused, match="vectors of the reference sample are not reproduced"):
        check_reference(model, sample)
    del sample["vectors"]
    with pytest.raises(ModelRefused, match="vectors of the reference sample are not reproduced"):
        check_reference(model, sample)


def test_a_model_without_the_output_says_how_to_get_one(tiny_model: Path) -> None:
    with pytest.raises(ValueError, match="model tiny has no pooled output: train or export it with `pooled: true`"):
        Model.load(tiny_model, device="cpu").embed(["hello"])


def test_a_graph_that_lacks_the_output_of_its_manifest_is_refused(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "m", [INTENT])
    manifest = read_manifest(folder)
    roles: dict[str, FileRole] = {entry.path: entry.role for entry in manifest.files}
    write_manifest(folder, manifest.model_copy(update={"pooled": True}), roles)
    with pytest.raises(ModelRefused, match="the graph has no pooled output; export the model again"):
        Model.load(folder, device="cpu")


def test_a_task_cannot_have_the_name_of_the_output() -> None:
    task = INTENT.model_copy(update={"name": POOLED})
    with pytest.raises(ValueError, match="a task is named 'pooled' in a model with the pooled output"):
        ModelManifest(name="m", encoder=tiny_encoder(), tasks=[task], files=[], pooled=True)


async def test_the_engine_gives_the_same_vectors_in_its_batches_with_the_model_that_gave_them(engine: Engine) -> None:
    found = await asyncio.gather(*(engine.embed(text) for text in TEXTS), *(engine.predict(text) for text in TEXTS))
    embedded = found[: len(TEXTS)]
    for text, each in zip(TEXTS, embedded, strict=True):
        assert np.array_equal(each.vector, engine.model.embed([text])[0])
        assert each.model == ("tiny", 0)


async def test_one_pass_gives_a_vector_beside_tasks(engine: Engine) -> None:
    found = await engine.predict("hello", ["intent"], with_vector=True)
    alone = await engine.predict("hello", ["intent"])
    assert (found.outputs, alone.vector) == (alone.outputs, None)
    assert found.vector is not None
    assert found.vector.model == found.model
    assert np.array_equal(found.vector.vector, engine.model.embed(["hello"])[0])


async def test_vectors_are_refused_by_a_model_without_them_and_for_an_empty_text(engine: Engine) -> None:
    with pytest.raises(RecordError, match="the text is empty"):
        await engine.embed("")
    with pytest.raises(RecordError, match="it has no pooled output"):
        await FakeEngine(FakeModel(TASKS)).embed("hello")


async def test_the_fakes_give_scripted_vectors() -> None:
    model = FakeModel([INTENT], vectors=lambda text: np.full(2, len(text), np.float32))
    assert (await FakeEngine(model).embed("abc")).vector.tolist() == [3, 3]
    assert model.embed(["a", "bc"]).tolist() == [[1, 1], [2, 2]]
