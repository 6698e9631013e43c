"""Tasks that are added to a finished model: what it had before answers as before, to the bit."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from tiny_replies import TASK, reply_rows
from tiny_training import rows, write_jsonl
from torch import Tensor

from murmura.runtime.errors import SetupError
from murmura.runtime.model.deltas.delta import DELTA_NAME, assemble
from murmura.runtime.model.folders.folder import read_manifest
from murmura.runtime.model.inputs import TextPair
from murmura.runtime.model.kinds.generation import Generation
from murmura.runtime.model.model import Model
from murmura.training.export.export import export
from murmura.training.fit.loop import fit
from murmura.training.fit.rows import pooled_texts
from murmura.training.kinds.kind import EncodedTexts
from murmura.training.model.network import MultiTask
from murmura.training.recipe.recipe import load_recipe
from murmura.training.run_folders.run_folder import RunFolder

WriteRecipe = Callable[..., Path]
TOPICS: dict[str, Any] = {
    "kind": "multi_label",
    "columns": {"label": "topics"},
    "train": "train.jsonl",
    "epochs": 4,
    "head": {"layers": "mix", "hidden": 16},
}
PARTS = ("weight", "bias", "hidden.weight", "hidden.bias", "mix.weight", "mix.scale", "norm.mean", "norm.deviation")
TEXTS = ["i lost my card in paris", "send money to rome", "hello"]


def test_its_own_tasks_answer_as_before_and_the_new_ones_have_learned(
    reply_desk: Path, tmp_path: Path, write_recipe: WriteRecipe
) -> None:
    recipe = write_recipe(tasks={"intent": {"train": "nowhere.jsonl"}, "topics": TOPICS}, max_tokens=32, pooled=True)
    record = fit(recipe, reply_desk, tmp_path / "run", add_to=reply_desk / "desk", quiet=True)
    export(tmp_path / "run", tmp_path / "desk")
    before, after = (Model.load(folder, device="cpu") for folder in (reply_desk / "desk", tmp_path / "desk"))

    assert [spec.name for spec in record.tasks] == ["reply", "intent", "topics"]
    assert after.manifest.tasks[:2] == before.manifest.tasks
    assert record.validation["topics"]["main"] > 0.7
    assert "intent" in after.manifest.data
    asked = [*TEXTS, TextPair("request city", "user: hey i need help")]
    for one, other in zip(before.predict(asked), after.predict(asked), strict=True):
        assert one == {name: answer for name, answer in other.items() if name != "topics"}
    old, new = (load_file(folder / "model.safetensors") for folder in (reply_desk / "desk", tmp_path / "desk"))
    assert {name for name in new if name not in old} == {f"heads.topics.{part}" for part in PARTS}
    assert all(np.array_equal(array, new[name]) for name, array in old.items())


def test_a_frozen_encoder_reads_each_text_once_and_the_head_learns_the_same(
    reply_desk: Path, tmp_path: Path, write_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    encode = MultiTask.encode

    def count(model: MultiTask, ids: Tensor, mask: Tensor) -> EncodedTexts:
        read.append(len(ids))
        return encode(model, ids, mask)

    monkeypatch.setattr(MultiTask, "encode", count)
    recipe = write_recipe(tasks={"topics": TOPICS}, max_tokens=32, budget={"evaluations": 1})
    heads = []
    for most in (2**30, 0):
        monkeypatch.setattr(pooled_texts, "MOST_BYTES", most)
        read.clear()
        fit(recipe, reply_desk, tmp_path / str(most), add_to=reply_desk / "desk", quiet=True)
        heads.append(
            (
                {name: each for name, each in RunFolder(tmp_path / str(most)).weights().items() if "topics" in name},
                sum(read),
            )
        )
    (once, few), (always, many) = heads
    assert few < 300 < many
    assert all(np.allclose(array, always[name], atol=1e-4) for name, array in once.items())


def test_other_limits_and_a_model_that_has_all_are_refused_before_the_first_step(
    reply_desk: Path, tmp_path: Path, write_recipe: WriteRecipe
) -> None:
    recipe = write_recipe(tasks={"topics": TOPICS}, budget={"evaluations": 1})
    with pytest.raises(SetupError, match="max_tokens: 24, but the tasks that stay read 32 tokens: write 32"):
        fit(recipe, reply_desk, tmp_path / "run", add_to=reply_desk / "desk")
    with pytest.raises(SetupError, match="has every task of the recipe: there is none to add"):
        fit(write_recipe(tasks={"reply": TASK}), reply_desk, tmp_path / "run", add_to=reply_desk / "desk")


@pytest.fixture
def packaged_base(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a tiny checkpoint in a package, where a delta finds its base again."""
    package = tmp_path / "packages/tiny_base"
    shutil.copytree(base, package / "model")
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(package.parent)
    return "package:tiny_base"


def test_a_delta_keeps_its_factors_and_gets_a_decoder_of_few_bytes(
    packaged_base: str, tmp_path: Path, write_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Generation, "find_fault", lambda *_: None)  # two steps teach no end
    write_jsonl(tmp_path / "train.jsonl", rows(60, 1))
    write_jsonl(tmp_path / "replies.jsonl", reply_rows(60, 0))
    steps = {"encoder": packaged_base, "budget": {"steps": 2, "evaluations": 1}, "optimiser": None}
    steps |= {"allow_unknown": True}
    both = {"intent": {"train": "train.jsonl"}, "reply": TASK}
    lora = {"rank": 4, "decoder_rank": 8}
    begin = write_recipe("begin", tasks={"intent": both["intent"]}, lora=lora, **steps)
    fit(begin, tmp_path, tmp_path / "begin.run", quiet=True)
    export(tmp_path / "begin.run", tmp_path / "begin", delta=True)

    fit(write_recipe("both", tasks=both, lora=lora, **steps), tmp_path, tmp_path / "run", add_to=tmp_path / "begin")
    export(tmp_path / "run", tmp_path / "both", delta=True)

    old, new = (load_file(tmp_path / name / DELTA_NAME) for name in ("begin", "both"))
    assert all(np.array_equal(array, new[name]) for name, array in old.items())
    assert any(name.startswith("derived/heads.reply.layers.0.") for name in new)
    assert read_manifest(tmp_path / "both").base == read_manifest(tmp_path / "begin").base
    assemble(tmp_path / "both", None, tmp_path / "model", weights=False)
    assert Model.load(tmp_path / "model", device="cpu").predict(["hello"])
    recipe = write_recipe("vectors", tasks=both, lora=lora, pooled="distilled", **steps)
    record = fit(recipe, tmp_path, tmp_path / "vectors", add_to=tmp_path / "both", quiet=True)
    kept = load_file(tmp_path / "vectors" / "checkpoint.safetensors")
    assert (record.pooled_layers, kept["heads.pooled.weight"].shape) == ([1, 2], (32, 64))
    assert all(np.array_equal(array, kept[name]) for name, array in new.items())
    with pytest.raises(SetupError, match="is a delta, whose encoder can only be read"):
        load_and_fit(tmp_path, write_recipe("again", tasks=both, **steps | {"encoder": str(tmp_path / "begin")}))


def load_and_fit(folder: Path, recipe: Path) -> None:
    assert not load_recipe(recipe).encoder.frozen
    fit(recipe, folder, folder / "again.run", quiet=True)
