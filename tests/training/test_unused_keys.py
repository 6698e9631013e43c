"""A key that has no effect is refused in one line, and a name that names nothing is said."""

import json
from pathlib import Path
from typing import Any

import pytest

from murmura.runtime.errors import SetupError
from murmura.runtime.model.kinds.classification import Classification
from murmura.runtime.model.kinds.registry import KINDS
from murmura.training.data.rules import sources_of
from murmura.training.prepare.data_summary import summarise
from murmura.training.prepare.format_keys import describe_unused_keys
from murmura.training.prepare.tasks import read_task
from murmura.training.recipe.keys.tasks import Task
from murmura.training.recipe.keys.unused_keys import KEYS_OF_SOME_KINDS, find_unused_key
from murmura.training.recipe.recipe import Recipe, load_recipe

SET: dict[str, dict[str, Any]] = {
    "acts": {"acts": True},
    "class_weights": {"class_weights": "balanced"},
    "context": {"context": 2},
    "head.hidden": {"head": {"hidden": 8}},
    "head.layer_norm": {"head": {"hidden": 8, "layer_norm": True}},
    "head.layers": {"head": {"layers": "mix"}},
    "head.pooling": {"head": {"pooling": "mean_max"}},
    "focal": {"focal": 2.0},
    "layers": {"layers": 1},
    "mask_names": {"mask_names": True},
    "mask_values": {"mask_values": False},
    "objective": {"objective": {"steps": 5}},
    "verbaliser": {"verbaliser": {"template": "it is {mask} : {text}", "words": {"a": "good"}}},
    "vocabulary": {"vocabulary": 900},
    "label": {"train": {"path": "x.csv", "label": "a"}},
    "label_separator": {"label_separator": ";"},
    "one_of": {"one_of": ["a", "b"]},
    "typo_copies": {"train": {"path": "x.csv", "typo_copies": 1}},
    "thresholds.accept": {"thresholds": {"accept": 0.5}},
    "thresholds.data": {"thresholds": {"data": "y.csv"}},
    "thresholds.label": {"thresholds": {"label": 0.5}},
    "thresholds.max_flagged": {"thresholds": {"max_flagged": 0.1}},
    "thresholds.out_of_scope": {"thresholds": {"out_of_scope": 0.5}},
}


def recipe_with(tmp_path: Path, **task: Any) -> Path:
    path = tmp_path / "r.yaml"
    path.write_text(json.dumps({"tasks": {"t": {"train": "x.csv", **task}}}, indent=1))
    return path


@pytest.mark.parametrize("kind", ["classification", "multi_label", "tagging"])
@pytest.mark.parametrize("key", sorted(KEYS_OF_SOME_KINDS))
def test_a_key_that_a_kind_does_not_use_is_refused_by_name(tmp_path: Path, kind: str, key: str) -> None:
    found = KINDS.get(kind)
    scope = {"out_of_scope": "other"} if found.out_of_scope else {}
    recipe = recipe_with(tmp_path, kind=kind, **scope, **SET[key])
    if key in found.recipe_keys:
        load_recipe(recipe)
        return
    uses = ", ".join(sorted(found.recipe_keys)) or "none"
    with pytest.raises(SetupError) as caught:
        load_recipe(recipe)
    assert str(caught.value).endswith(
        f"tasks.t: a task of kind {kind} does not use `{key}`; of the keys that only some kinds use it has {uses}"
    )


@pytest.mark.parametrize("kind", ["classification", "multi_label"])
@pytest.mark.parametrize("part", ["validation", "test", "reports"])
def test_a_key_in_any_part_counts(tmp_path: Path, kind: str, part: str) -> None:
    source = {"path": "x.csv", "label": "a"}
    task = {part: {"own": source} if part == "reports" else source}
    load_recipe(recipe_with(tmp_path, kind=kind, **task))
    with pytest.raises(SetupError, match="a task of kind tagging does not use `label`"):
        load_recipe(recipe_with(tmp_path, kind="tagging", **task))


def test_a_kind_of_another_package_names_what_it_uses() -> None:
    class Grades(Classification):
        name = "grades"

        @property
        def recipe_keys(self) -> frozenset[str]:
            return frozenset({"thresholds.label"})

    given = Task.model_validate({"kind": "multi_label", "train": "x.csv", "thresholds": {"label": 0.5}})
    assert find_unused_key(given, Grades()) is None
    other = Task.model_validate({"train": {"path": "x.csv", "typo_copies": 1}})
    unused = find_unused_key(other, Grades())
    assert unused is not None
    assert unused.problem == (
        "a task of kind grades does not use `typo_copies`; of the keys that only some kinds use it has thresholds.label"
    )


@pytest.mark.parametrize(
    ("task", "key"),
    [
        ({"columns": {"text": "message"}}, "columns"),
        ({"test": {"path": "y.jsonl", "columns": {"label": "b"}}}, "columns"),
        ({"merge": {"a": ["b"]}, "rest": "keep"}, "merge"),
        ({"train": {"path": "x.jsonl", "merge": {"a": "b"}}}, "merge"),
        ({"reports": {"own": {"path": "y.jsonl", "rest": "drop"}}}, "rest"),
        ({"calibration": "y.jsonl"}, "calibration"),
    ],
)
def test_keys_without_effect_for_replies_are_refused_and_left_out_of_a_finished_trainings_recipe(
    tmp_path: Path, task: dict[str, Any], key: str
) -> None:
    path = recipe_with(tmp_path, **{"kind": "generation", **task})
    with pytest.raises(SetupError, match=f"tasks.t: `{key}` has no effect in a task that generates replies"):
        load_recipe(path)
    kept = load_recipe(path, past=True).tasks["t"]
    assert key in kept.unused[0]
    assert kept.calibration is None
    assert all(each.columns is each.merge is each.rest is None for each in [kept, *sources_of(kept)])


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (
            {"thresholds": {"max_flagged": 0.1}},
            "`thresholds.max_flagged` has no effect without an `out_of_scope` label",
        ),
        ({"thresholds": {"out_of_scope": 0.3}}, "`thresholds.out_of_scope` has no effect without an `out_of_scope`"),
        ({"thresholds": {"data": "y.csv"}}, "`thresholds.data` has no effect without an `out_of_scope` label"),
        (
            {"out_of_scope": {"label": "x", "learn": False}, "thresholds": {"out_of_scope": 0.3}},
            "`thresholds.out_of_scope` is that of a class, and `learn: false` makes none; set `thresholds.accept`",
        ),
        (
            {"out_of_scope": "x", "thresholds": {"out_of_scope": 0.3, "max_flagged": 0.1}},
            "`thresholds.max_flagged` chooses `thresholds.out_of_scope`, which is given",
        ),
        (
            {"kind": "multi_label", "thresholds": {"label": 0.3, "max_flagged": 0.1}},
            "`thresholds.max_flagged` chooses `thresholds.label`, which is given",
        ),
        (
            {"kind": "generation", "thresholds": {"accept": 0.3, "max_flagged": 0.1}},
            "`thresholds.max_flagged` chooses `thresholds.accept`, which is given",
        ),
        ({"validation": "y.csv", "validation_share": 0.2}, "`validation_share` has no effect beside `validation`"),
        ({"test": {"path": "y.csv", "repeat": 2}}, "`repeat` changes training rows only; leave it out of 'test'"),
        (
            {"reports": {"own": {"path": "y.csv", "soft": "all"}}},
            "`soft` changes training rows only; leave it out of 'own'",
        ),
    ],
)
def test_a_key_without_effect_beside_others_is_refused(tmp_path: Path, task: dict[str, Any], message: str) -> None:
    with pytest.raises(SetupError) as caught:
        load_recipe(recipe_with(tmp_path, **task))
    assert f"tasks.t: {message}" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("task", "kept"),
    [
        (
            {
                "kind": "tagging",
                "label_separator": ";",
                "train": {"path": "x.csv", "label": "a", "typo_copies": 1},
                "thresholds": {"accept": 0.5},
            },
            {"kind": "tagging", "train": "x.csv"},
        ),
        (
            {
                "train": {"path": "x.csv", "repeat": 2},
                "validation": {"path": "y.csv", "repeat": 2},
                "reports": {"own": {"path": "y.csv", "soft": "all"}},
                "validation_share": 0.2,
                "thresholds": {"out_of_scope": 0.3, "max_flagged": 0.2},
            },
            {"train": {"path": "x.csv", "repeat": 2}, "validation": "y.csv", "reports": {"own": "y.csv"}},
        ),
        (
            {"out_of_scope": "x", "thresholds": {"out_of_scope": 0.3, "max_flagged": 0.1}},
            {"out_of_scope": "x", "thresholds": {"out_of_scope": 0.3}},
        ),
        (
            {"kind": "tagging", "thresholds": {"data": {"path": "y.csv", "label": "a"}}},
            {"kind": "tagging"},
        ),
    ],
)
def test_of_a_finished_trainings_recipe_keys_without_effect_are_left_out_and_named(
    tmp_path: Path, task: dict[str, Any], kept: dict[str, Any]
) -> None:
    recipe = load_recipe(recipe_with(tmp_path, **task), past=True)
    lines = describe_unused_keys(recipe, tmp_path)
    assert recipe.tasks["t"].model_dump() == load_recipe(recipe_with(tmp_path, **kept)).tasks["t"].model_dump()
    assert lines
    assert all(line.startswith(f"{tmp_path}/r.yaml:") for line in lines)


def test_of_a_finished_trainings_recipe_keys_of_another_format_are_left_out_and_named(tmp_path: Path) -> None:
    put(tmp_path, "x.jsonl", ROWS)
    path = recipe_with(tmp_path, train={"path": "x.jsonl", "delimiter": ","}, quoting="none")
    recipe = load_recipe(path, past=True)
    assert len(read_task("t", recipe, tmp_path).train) == 18
    source, task = describe_unused_keys(recipe, tmp_path)
    assert source == f"{tmp_path}/x.jsonl: the format jsonl has no `delimiter`"
    assert "tasks.t.quoting: no source of this task has a format that uses it; found jsonl" in task


ROWS = [{"text": f"text {n}", "label": "ab"[n % 2], "talk": n // 2} for n in range(20)]


def put(folder: Path, name: str, rows: list[dict[str, Any]]) -> None:
    if name.endswith(".csv"):
        content = "text,label,talk\n" + "".join(f"{r['text']},{r['label']},{r['talk']}\n" for r in rows)
    else:
        content = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / name).write_text(content)


def notes(folder: Path, **task: Any) -> list[str]:
    recipe = Recipe.model_validate({"tasks": {"t": {"train": "x.jsonl", **task}}})
    return summarise(read_task("t", recipe, folder), {}).notes


def refusal(folder: Path, **task: Any) -> str:
    with pytest.raises(SetupError) as caught:
        notes(folder, **task)
    return str(caught.value).replace(f"{folder}/", "")


@pytest.mark.parametrize("key", ["split", "config", "revision", "delimiter", "quoting"])
def test_a_key_of_another_format_is_refused(tmp_path: Path, key: str) -> None:
    put(tmp_path, "x.jsonl", ROWS)
    put(tmp_path, "x.csv", ROWS)
    value = {"delimiter": ",", "quoting": "none"}.get(key, "train")
    source = refusal(tmp_path, train=["x.csv", {"path": "x.jsonl", key: value}])
    assert source == f"x.jsonl: the format jsonl has no `{key}`; leave it out"
    assert refusal(tmp_path, **{key: value}).startswith(
        f"tasks.t.{key}: no source of this task has a format that uses it; found jsonl"
    )
    if key in {"delimiter", "quoting"}:
        notes(tmp_path, train=["x.jsonl", "x.csv"], **{key: value})


def test_names_of_merge_and_one_of_that_no_row_has_are_said(tmp_path: Path) -> None:
    put(tmp_path, "x.jsonl", ROWS)
    assert notes(tmp_path, merge={"c": ["a", "aa"]}, rest="keep") == [
        "no row has the label 'aa' of `merge` or `one_of`"
    ]
    assert notes(tmp_path, one_of=["a", "b", "y", "z"]) == ["no row has the labels 'y', 'z' of `merge` or `one_of`"]
    assert notes(tmp_path, merge={"c": ["a"]}, rest="keep", one_of=["a", "b"]) == []


def test_values_of_where_and_unless_that_no_row_has_are_said(tmp_path: Path) -> None:
    put(tmp_path, "x.jsonl", ROWS)
    assert notes(tmp_path, unless={"talk": [3, 99]}) == ["no row has '99' in 'talk', which `unless` names"]
    own: dict[str, Any] = {"path": "x.jsonl", "where": {"talk": [0, 1, "O1"], "label": ["a", "b", "c"]}}
    assert notes(tmp_path, test=own, unless={"talk": [5, "five"]}, train="x.jsonl") == [
        "no row has 'five' in 'talk', which `unless` names",
        "x.jsonl: no row has 'O1' in 'talk', which `where` names",
        "x.jsonl: no row has 'c' in 'label', which `where` names",
    ]
    put(tmp_path, "y.jsonl", [{**row, "text": f"y {n}", "talk": 77 + n % 2} for n, row in enumerate(ROWS)])
    assert notes(tmp_path, train=["x.jsonl", "y.jsonl"], unless={"talk": [77, 1]}) == []
    assert notes(tmp_path, where={"talk": [0, 1, 2, 3]}, unless={"talk": " 3 "}) == []


def test_agents_that_are_not_installed_are_said(tmp_path: Path) -> None:
    put(tmp_path, "x.jsonl", ROWS)
    assert notes(tmp_path, default_for=["classification"]) == []
    (note,) = notes(tmp_path, default_for=["nobody"])
    assert note.startswith("`default_for` names 'nobody'; installed agents are 'analysis', 'classification'")


def test_a_group_is_checked_and_compared_where_a_validation_part_is_named(tmp_path: Path) -> None:
    put(tmp_path, "x.jsonl", ROWS)
    put(tmp_path, "y.jsonl", [{**row, "text": f"other {n}", "talk": n + 8} for n, row in enumerate(ROWS[:6])])
    put(tmp_path, "z.jsonl", [{"text": f"third {n}", "label": "ab"[n % 2]} for n in range(4)])
    named = {"validation": "y.jsonl", "test": "z.jsonl"}
    assert notes(tmp_path, **named, group="talk") == [
        "2 of 6 rows of validation have the same 'talk' as training rows",
        "4 of 4 rows of test have no 'talk': each counts as a group of its own",
    ]
    put(tmp_path, "plain.jsonl", [{**row, "talk": None} for row in ROWS])
    assert notes(tmp_path, train="plain.jsonl", validation="z.jsonl", test="y.jsonl", group="talk") == [
        f"{len(ROWS)} of {len(ROWS)} rows of train have no 'talk': each counts as a group of its own",
        "4 of 4 rows of validation have no 'talk': each counts as a group of its own",
    ]
    assert (
        refusal(tmp_path, **named, group="tlak") == "x.jsonl:1: column 'tlak', the group of a row, is missing or empty"
    )


@pytest.mark.parametrize("spelling", ["OOS", "out of scope", "out-of-scope", "out_of_scop", "out_of\u200b_scope"])
def test_another_spelling_of_the_out_of_scope_label_is_refused_among_the_rows_for_thresholds(
    tmp_path: Path, spelling: str
) -> None:
    scope = "oos" if spelling == "OOS" else "out_of_scope"
    put(tmp_path, "x.jsonl", [*ROWS, *({"text": f"off {n}", "label": scope} for n in range(4))])
    choosing = [{"text": "k", "label": "a"}, {"text": "l", "label": scope}, {"text": "m", "label": spelling}]
    put(tmp_path, "c.jsonl", choosing)
    found = refusal(tmp_path, out_of_scope=scope, thresholds={"data": "c.jsonl"})
    assert found.startswith(f"tasks.t.thresholds.data: c.jsonl:3 has the label {spelling!r}")
    put(tmp_path, "c.jsonl", [*choosing[:2], {"text": "m", "label": "of no such task"}])
    assert notes(tmp_path, out_of_scope=scope, thresholds={"data": "c.jsonl"}) == []


def test_a_training_label_that_labels_does_not_name_is_said_as_such(tmp_path: Path) -> None:
    put(tmp_path, "x.jsonl", ROWS)
    assert refusal(tmp_path, labels=["a", "c"]) == (
        "x.jsonl:2: label 'b' of task t is not among its `labels`; name it in `labels`, `merge` or `unless`"
    )


def test_a_share_of_nothing_cannot_be_held_back(tmp_path: Path) -> None:
    path = recipe_with(tmp_path, validation_share=0)
    with pytest.raises(SetupError, match=r"tasks\.t\.validation_share: expected a share above 0, or `validation`"):
        load_recipe(path)
    assert load_recipe(path, past=True).tasks["t"].validation_share == 0, "that of a finished training is readable"
    with pytest.raises(SetupError, match="every task has `skip: true`"):
        load_recipe(recipe_with(tmp_path, validation_share=0, skip=True))
    with pytest.raises(SetupError, match="`validation_share` has no effect beside `validation`"):
        load_recipe(recipe_with(tmp_path, validation_share=0, validation="y.csv"))
