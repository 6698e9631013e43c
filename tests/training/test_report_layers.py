"""The picture of which task reads which layer, from gates that are known."""

import numpy as np
import pytest

from murmura.schemas.manifest import EncoderSpec, FileEntry, HeadForm, ModelManifest, TaskSpec
from murmura.training.report.layers import read_layer_shares
from murmura.training.report.markdown import markdown
from murmura.training.report.page import make_page
from murmura.training.report.page_data import PageData
from murmura.training.report.sections.layers import make_layers

pytestmark = pytest.mark.usefixtures("drawings")
GATES = {"early": np.log([8.0, 1, 1]), "late": np.log([1.0, 1, 2])}
"""What heads learned: the softmax of these is the share of the embeddings and of two layers."""


def softmax(gates: np.ndarray) -> list[float]:
    return [float(each) for each in np.exp(gates) / np.exp(gates).sum()]


@pytest.fixture
def manifest() -> ModelManifest:
    forms = {name: HeadForm(layers="mix", shares=softmax(gates)) for name, gates in GATES.items()}
    specs = {**forms, "all": HeadForm(layers="concat"), "plain": None}
    sizes = {"vocab_size": 9, "hidden_size": 8, "layers": 2, "heads": 2, "intermediate_size": 8, "max_positions": 8}
    return ModelManifest(
        name="desk",
        files=[FileEntry(path="model.ragged.onnx", role="graph:ragged", sha256="0" * 64, bytes=1)],
        encoder=EncoderSpec(source="scratch", sha256="0" * 64, **sizes),
        tasks=[
            TaskSpec(name=name, kind="classification", labels=["a", "b"], head=form) for name, form in specs.items()
        ],
    )


def test_known_gates_are_drawn_and_listed_for_tasks_that_mix_layers_alone(manifest: ModelManifest) -> None:
    found = read_layer_shares(manifest)
    assert found is not None
    assert found.columns == ["embeddings", "1", "2"]
    assert found.shares == {"early": pytest.approx([0.8, 0.1, 0.1]), "late": pytest.approx([0.25, 0.25, 0.5])}
    page = make_page(PageData(manifest, {}), sections=[make_layers])
    assert "early, emb. 0.80; early, 1 0.10; early, 2 0.10; late, emb. 0.25" in page
    assert 'id="layers"' in page
    text = markdown(manifest, {})
    assert "| task | embeddings | 1 | 2 |" in text
    assert "| late | 25.0 % | 25.0 % | 50.0 % |" in text
    assert "plain" not in text


def test_a_model_without_such_heads_has_no_picture(manifest: ModelManifest) -> None:
    plain = manifest.model_copy(update={"tasks": manifest.tasks[2:]})
    assert make_layers(PageData(plain, {})) is None
    assert "reads which layer" not in markdown(plain, {})
