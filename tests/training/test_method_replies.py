"""Replies of models with other methods than LoRA around the encoder: the export writes those of the network."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from tiny_methods import METHODS
from tiny_replies import REPLIES, reply_rows
from tiny_training import write_jsonl

from murmura.runtime.model.deltas.delta import assemble
from murmura.runtime.model.model import Model
from murmura.training.export import reply_parity
from murmura.training.export.export import export
from murmura.training.fit.checkpoint import checkpoint_weights, restore
from murmura.training.fit.loop import fit
from murmura.training.fit.setup import prepare
from murmura.training.kinds.replies.decoder import Decoded
from murmura.training.model.replies import decode_replies
from murmura.training.recipe.recipe import load_recipe
from murmura.training.run_folders.run_folder import RunFolder


@pytest.mark.parametrize(
    ("name", "by_delta"), [("bottleneck", True), ("dora", False), ("ia3", False), ("adalora", True)]
)
def test_with_other_methods_around_the_encoder_the_exported_model_writes_the_replies_of_the_network(
    base: Path, tmp_path: Path, name: str, by_delta: bool
) -> None:
    write_jsonl(tmp_path / "replies.jsonl", reply_rows(60, 0))
    recipe = REPLIES | {"encoder": str(base), "method": METHODS[name], "budget": {"steps": 25, "evaluations": 1}}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    fit(path, tmp_path, tmp_path / "run", quiet=True)
    folder, draw = RunFolder(tmp_path / "run"), np.random.default_rng(0)
    learned = {  # some steps teach a method little: let it say more
        key: array if key.startswith("heads.") else array + draw.normal(0, 1, array.shape).astype(np.float32)
        for key, array in folder.weights().items()
    }
    folder.save_record(folder.record(), learned)
    export(tmp_path / "run", tmp_path / "exported", delta=by_delta)
    if by_delta:
        assemble(tmp_path / "exported", base, tmp_path / "assembled")
    model = Model.load(tmp_path / ("assembled" if by_delta else "exported"))
    pairs = folder.pairs()["reply"]
    texts = [np.array(row.ids) for encoded in model.encode(pairs) for row in encoded.rows]
    network = prepare(load_recipe(path), tmp_path, RunFolder(tmp_path / "again")).model
    begun = checkpoint_weights(network, low_rank=True)

    def decode(arrays: dict[str, Any]) -> list[Decoded]:
        restore(network, arrays, low_rank=True)
        return decode_replies(network, 0, texts, device="cpu", bf16=False)

    heads = {key: array for key, array in learned.items() if key.startswith("heads.")}
    without, truth = decode(begun | heads), decode(learned)
    scores, others = ([each.score for each in replies] for replies in (truth, without))
    assert reply_parity.prove_replies(model, truth, "reply", pairs) == 0
    within = 1e-4 if by_delta else 1e-6  # a delta is rounded
    assert [each.score for each in model.generate(pairs)] == pytest.approx(scores, abs=within)
    assert scores != pytest.approx(others, abs=10 * within), "what the method trains has a say in the replies"
