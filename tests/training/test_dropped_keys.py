"""A key of a recipe is used by retraining and by `--add-to`, or they say in a line that it is not. None is dropped in silence."""

from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from pydantic import BaseModel

from murmura.runtime.errors import SetupError
from murmura.schemas.manifest import EncoderSpec, FileEntry, ModelManifest, TaskSpec
from murmura.training.compute.phase_rows import count_run_rows
from murmura.training.fit.finish.kept_tasks import add_tasks
from murmura.training.mix.recipe import DECIDED_OF_TASK, OF_VERSION, describe_dropped_keys, make_recipe
from murmura.training.mix.write import NOT_KEPT_OF_TASK
from murmura.training.recipe.idle.frozen_keys import describe_frozen_keys
from murmura.training.recipe.idle.keys import refuse_idle_keys
from murmura.training.recipe.job import Job
from murmura.training.recipe.keys.optimiser import Optimiser
from murmura.training.recipe.keys.reading import PAST
from murmura.training.recipe.keys.tasks import Task
from murmura.training.recipe.last_phase import with_self_training
from murmura.training.recipe.recipe import Budget, Hold, Recipe

TASK: Final = {"train": "x.csv"}
SET: Final[dict[str, Any]] = {
    "name": "other",
    "description": "Of a desk.",
    "encoder": "scratch",
    "pretrain": {"epochs": 1},
    "tasks": {"t": TASK, "u": TASK},
    "max_tokens": 64,
    "pooled": True,
    "seed": 5,
    "data_seed": 5,
    "batch_size": 8,
    "budget": {"epochs": 2},
    "optimiser": {"warmup": 0.2},
    "freeze": 1,
    "phases": [{"name": "all"}],
    "self_training": {"texts": "y.txt", "task": "u"},
    "tune": {"space": {"batch_size": [16, 32]}},
    "teachers": {"u": "models/u"},
    "smaller": {"teacher": "models/m", "layers": 1},
    "lora": True,
    "method": "ia3",
    "probe": False,
    "few_rows": 3,
    "hold": {"weight": 2},
    "dropout": 0.3,
    "label_smoothing": 0.1,
    "word_dropout": 0.1,
    "normalise": True,
    "weights": "dwa",
    "sampling": "equal",
    "precision": "fp32",
    "accumulate": 2,
    "trackers": [],
    "report": {"texts": False},
    "threads": 3,
    "save_minutes": 1,
    "allow_unknown": True,
    "attribution": "Ours.",
}
SECTIONS: Final[dict[str, tuple[type[BaseModel], dict[str, Any]]]] = {
    "budget": (Budget, {"epochs": 2, "steps": 9, "evaluations": 7, "patience": 2, "validation_rows": 50}),
    "optimiser": (
        Optimiser,
        {
            **{"method": "sgd", "encoder_lr": 0.5, "head_lr": 0.5, "layer_decay": 0.9, "weight_decay": 0.1},
            **{"warmup": 0.2, "clip": 2.0, "schedule": "constant"},
        },
    ),
    "hold": (Hold, {"weight": 2.0, "temperature": 3.0}),
}
KEPT_OF_TASK: Final = {
    "class_weights",
    "default_for",
    "focal",
    "head",
    "kind",
    "label_smoothing",
    "labels",
    "loss_weight",
    "open",
    "out_of_scope",
    "sampling_weight",
    *("acts", "context", "layers", "mask_names", "mask_values", "vocabulary"),
}
"""Carried on, or said of the version by its manifest."""
PLACES: Final = [
    *((key, value) for key, value in SET.items() if key not in SECTIONS),
    *((f"{name}.{key}", {name: {key: value}}) for name, (_, keys) in SECTIONS.items() for key, value in keys.items()),
]


def recipe_with(place: str, value: Any) -> Recipe:
    name, _, key = place.partition(".")
    keys = value if key else {name: value}
    if place == "optimiser.method":
        keys = {"optimiser": {**value["optimiser"], "encoder_lr": 1e-4}}
    return Recipe.model_validate({"tasks": {"t": TASK, "u": TASK}, **keys})


def value_at(document: Any, place: str) -> Any:
    for key in place.split("."):
        document = document.get(key) if isinstance(document, dict) else getattr(document, key)
    return document


@pytest.fixture(scope="module")
def manifest() -> ModelManifest:
    sizes = {"vocab_size": 9, "hidden_size": 8, "layers": 2, "heads": 2, "intermediate_size": 8, "max_positions": 8}
    return ModelManifest(
        name="desk",
        encoder=EncoderSpec(source="scratch", sha256="0" * 64, **sizes),
        tasks=[TaskSpec(name="t", kind="classification", labels=["a", "b"])],
        files=[FileEntry(path="model.ragged.onnx", role="graph:ragged", sha256="0" * 64, bytes=1)],
    )


@pytest.fixture(scope="module")
def job() -> Job:
    keys = {"model": {"folder": "m"}, "old": {"recipe": "r.yaml"}, "feedback": {"data": "set"}}
    return Job.model_validate(keys, context={"beside": Path()})


def test_every_key_of_a_recipe_is_tried_here() -> None:
    assert set(SET) == set(Recipe.model_fields), "give a new key of the recipe a value in SET"
    for name, (model, keys) in SECTIONS.items():
        assert set(keys) == set(model.model_fields), f"give a new key of {name} a value in SECTIONS"
    known = KEPT_OF_TASK | {*NOT_KEPT_OF_TASK, *DECIDED_OF_TASK}
    assert set(Task.model_fields) == known, "say whether a retraining uses a new key of a task"
    assert not KEPT_OF_TASK & {*NOT_KEPT_OF_TASK, *DECIDED_OF_TASK}


@pytest.mark.parametrize(("place", "value"), PLACES, ids=[place for place, _ in PLACES])
def test_a_retraining_uses_a_key_or_says_that_it_does_not(
    job: Job, manifest: ModelManifest, place: str, value: Any
) -> None:
    recipe = recipe_with(place, value)
    lines = describe_dropped_keys(job, manifest, recipe)
    if place in OF_VERSION:
        return
    document = make_recipe(job, manifest, recipe, {"t": TASK}, "")
    written = value_at(Recipe.model_validate({**document, "tasks": {"t": TASK}}), place)
    assert (written == value_at(recipe, place)) != any(f"`{place}`" in line for line in lines)
    assert all(line.count("\n") == 0 for line in lines)


@pytest.mark.parametrize("key", DECIDED_OF_TASK)
def test_a_retraining_says_which_keys_of_tasks_it_does_not_use(job: Job, manifest: ModelManifest, key: str) -> None:
    task = {"epochs": {"epochs": 3}, "objective": {"kind": "generation", "objective": {"steps": 5}}}[key]
    recipe = Recipe.model_validate({"tasks": {"t": {**TASK, **task}}})
    assert describe_dropped_keys(job, manifest, recipe) == [
        f"of the old recipe, `tasks.t.{key}` has no effect: the job decides"
    ]


def test_a_retraining_of_one_task_leaves_out_what_weighs_it_against_others_and_says_so(
    job: Job, manifest: ModelManifest
) -> None:
    task = {**TASK, "loss_weight": 2, "sampling_weight": 3}
    recipe = Recipe.model_validate({"tasks": {"t": task, "u": TASK}, "normalise": True, "sampling": "equal"})
    assert describe_dropped_keys(job, manifest, recipe) == [
        "of the old recipe, `normalise`, `sampling`, `tasks.t.loss_weight`, `tasks.t.sampling_weight` have no effect: the job decides"
    ]
    refuse_idle_keys(Recipe.model_validate(make_recipe(job, manifest, recipe, {"t": task}, "")))
    said = describe_dropped_keys(job, manifest, Recipe.model_validate({"tasks": {"t": TASK}, "weights": "dwa"}), ["t"])
    assert said == ["of the old recipe, `weights` has no effect: the job decides"], "also where no task has rows"
    both = Recipe.model_validate(make_recipe(job, manifest, recipe, {"t": task, "u": TASK}, ""))
    assert (both.normalise, both.sampling.method, both.tasks["t"].loss_weight) == (True, "equal", 2)


def test_a_seed_of_a_training_before_seeds_had_bounds_is_not_carried_on(job: Job, manifest: ModelManifest) -> None:
    recipe = Recipe.model_validate({"tasks": {"t": TASK}, "data_seed": -1}, context={PAST: True})
    assert "data_seed" not in make_recipe(job, manifest, recipe, {"t": TASK}, "")
    assert describe_dropped_keys(job, manifest, recipe) == [
        "of the old recipe, `data_seed` has no effect: the job decides"
    ]


def test_the_steps_of_a_retraining_keep_the_shares_of_its_passes(job: Job, manifest: ModelManifest) -> None:
    tasks, rows = {"t": TASK, "u": TASK}, {"t": 4000, "u": 100}
    recipe = Recipe.model_validate(make_recipe(job, manifest, None, tasks, "", steps=50))
    refuse_idle_keys(recipe)
    counts = count_run_rows(recipe, rows)
    assert len(counts) == 50
    assert sum(own for _, own in counts) == pytest.approx(50 * recipe.batch_size * 100 / 4100, abs=1)
    assert make_recipe(job, manifest, None, {"t": TASK}, "", steps=50)["budget"] == {"steps": 50, "evaluations": 3}


def test_a_retraining_says_nothing_of_values_that_are_those_of_its_job(job: Job, manifest: ModelManifest) -> None:
    same = {"weights": "static", "seed": 0, "optimiser": {"method": "adamw"}, "phases": [], "batch_size": 32}
    assert describe_dropped_keys(job, manifest, Recipe.model_validate({"tasks": {"t": TASK}, **same})) == []


@pytest.mark.parametrize(("place", "value"), PLACES, ids=[place for place, _ in PLACES])
def test_adding_tasks_uses_a_key_or_says_that_it_does_not(
    manifest: ModelManifest, tmp_path: Path, place: str, value: Any
) -> None:
    (tmp_path / "manifest.json").write_text(manifest.model_dump_json())
    recipe = recipe_with(place, value)
    lines = describe_frozen_keys(recipe, adds=True)
    added = add_tasks(recipe, tmp_path)
    assert list(added.tasks) == ["u"]
    inert = place in {"lora", "method", "optimiser.encoder_lr", "optimiser.layer_decay"}
    if place in {"encoder", "tasks"}:
        return
    if place == "self_training":
        with pytest.raises(SetupError, match="the encoder is frozen"):
            with_self_training(added)
        return
    used = value_at(added, place) == value_at(recipe, place) and not inert
    assert used != any(f"`{place}`" in line for line in lines)


def test_a_frozen_encoder_says_what_does_not_act_on_it() -> None:
    keys = {"lora": True, "optimiser": {"layer_decay": 0.9, "head_lr": 0.1}}
    document = yaml.safe_load(yaml.safe_dump({"tasks": {"t": TASK}, **keys, "freeze": "encoder"}))
    assert describe_frozen_keys(Recipe.model_validate(document)) == [
        "note: the encoder stays as it is: `lora`, `optimiser.layer_decay` have no effect"
    ]
    assert describe_frozen_keys(Recipe.model_validate({"tasks": {"t": TASK}, **keys})) == []
    rate = {"tasks": {"t": TASK}, "optimiser": {"encoder_lr": 0.1}}
    for freeze, phases, says in (
        (None, [{"name": "a", "freeze": "encoder"}, {"name": "b", "freeze": "encoder"}], True),
        ("encoder", [{"name": "a"}], True),
        ("encoder", [{"name": "a", "freeze": "embeddings"}, {"name": "b"}], False),
    ):
        recipe = Recipe.model_validate({**rate, "freeze": freeze, "phases": phases})
        assert bool(describe_frozen_keys(recipe)) is says, phases
