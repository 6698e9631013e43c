"""Data that a tiny encoder learns in seconds, and the folders that come of it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from markupsafe import Markup
from run_share import SHARE
from safetensors.numpy import save_file
from tiny_few_rows import INTENT, PLAIN
from tiny_training import RECIPE, rows, write_jsonl

from murmura.training.export.export import export
from murmura.training.fit.loop import fit
from murmura.training.fit.setup import Fitting, prepare
from murmura.training.model.encoders import from_scratch
from murmura.training.recipe.recipe import Encoder, load_recipe
from murmura.training.report.page_data import PageData
from murmura.training.report.plots import Plot
from murmura.training.run_folders.run_folder import RunFolder

DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


@pytest.fixture(autouse=True)
def progress_only_with_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine must not bring events that an idle one does not."""
    monkeypatch.setattr("murmura.training.fit.loop.PROGRESS_S", float("inf"))


@pytest.fixture
def drawings() -> None:
    """Pages of models get their drawings: for tests that look at them."""


@pytest.fixture(autouse=True)
def leave_out_drawings(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make pages without drawings, which take a tenth of a second each and a third of a retraining here."""
    if "drawings" not in request.fixturenames:
        monkeypatch.setattr(PageData, "draw", lambda page, name, make: Plot(Markup(), name))


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train.jsonl and test.jsonl: three intents, two topics, places as spans."""
    folder = tmp_path_factory.mktemp("data")
    write_jsonl(folder / "train.jsonl", rows(360, 1))
    write_jsonl(folder / "test.jsonl", rows(60, 2))
    return folder


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT checkpoint as one finds them: config.json, model.safetensors, tokenizer.json; untrained."""
    folder = tmp_path_factory.mktemp("base") / "tiny-bert"
    folder.mkdir()
    sizes = {**RECIPE["encoder"]}
    found = from_scratch(Encoder(**sizes), (row["text"] for row in rows(360, 1)), seed=0)
    found.tokenizer.save(str(folder / "tokenizer.json"))
    save_file({f"bert.{name}": array for name, array in found.weights.items()}, folder / "model.safetensors")
    spec = found.spec
    config = {
        "model_type": "bert",
        "vocab_size": spec.vocab_size,
        "hidden_size": spec.hidden_size,
        "num_hidden_layers": spec.layers,
        "num_attention_heads": spec.heads,
        "intermediate_size": spec.intermediate_size,
        "max_position_embeddings": spec.max_positions,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def write_recipe(tmp_path: Path) -> Callable[..., Path]:
    """`write_recipe(seed=3, tasks={...})` writes RECIPE with these keys replaced (None: left out)."""

    def write(name: str = "tiny", **changes: Any) -> Path:
        path = tmp_path / f"{name}.yaml"
        merged = {key: value for key, value in {**RECIPE, **changes}.items() if value is not None}
        path.write_text(yaml.dump(merged, Dumper=DUMPER, sort_keys=False))
        return path

    return write


@pytest.fixture(scope="session")
def run(pytestconfig: pytest.Config, data: Path) -> Path:
    """A finished run of RECIPE, made once a run of the tests."""

    def make(folder: Path) -> Path:
        recipe = folder / "tiny.yaml"
        recipe.write_text(yaml.safe_dump(RECIPE, sort_keys=False))
        fit(recipe, data, folder / "run", quiet=True)
        return folder / "run"

    return pytestconfig.stash[SHARE].once("run", make)


@pytest.fixture(scope="session")
def model_folder(pytestconfig: pytest.Config, run: Path) -> Path:
    """The exported model of RECIPE, both graphs; made once a run."""

    def make(folder: Path) -> Path:
        export(run, folder / "tiny", graphs=("ragged", "padded"))
        return folder / "tiny"

    return pytestconfig.stash[SHARE].once("model_folder", make)


@pytest.fixture
def few(tmp_path: Path) -> Path:
    """A folder with ten training rows a label."""
    folder = tmp_path / "few"
    folder.mkdir()
    write_jsonl(folder / "train.jsonl", rows(30, 1))
    write_jsonl(folder / "test.jsonl", rows(60, 2))
    return folder


@pytest.fixture
def open_run(base: Path, tmp_path: Path, write_recipe: Callable[..., Path]) -> Callable[..., Fitting]:
    """`open_run(data, few_rows=0)` prepares a run over the checkpoint with these keys of the recipe."""

    def opened(data: Path, **keys: Any) -> Fitting:
        keys = {"encoder": str(base), "tasks": {"intent": INTENT}, **PLAIN, **keys}
        return prepare(load_recipe(write_recipe(**keys)), data, RunFolder(tmp_path / "run"))

    return opened
