"""Parquet files and data sets as `pyarrow` and `datasets` write them, offline; labels that are numbers get their names."""

import builtins
import json
from pathlib import Path
from typing import Any

import pytest

from murmura.runtime.errors import SetupError
from murmura.training.data.example import Example, Span
from murmura.training.data.formats.class_names import name_numbers
from murmura.training.prepare.reading import read_part
from murmura.training.recipe.keys.tasks import Task
from murmura.training.recipe.recipe import Recipe
from murmura.training.run_folders.provenance import digest_data

arrow = pytest.importorskip("pyarrow", reason="needs the extra data")
datasets = pytest.importorskip("datasets", reason="needs the extra data")
parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra data")

TAGS = ["O", "B-place", "I-place"]
TOKENS = [["to", "New", "York"], ["Rome", "is", "old"]]
NUMBERS = [[0, 1, 2], [1, 0, 0]]
SPANS = [(Span(3, 11, "place"),), (Span(0, 4, "place"),)]
TEXTS, MOODS = ["i lost my card", "thank you", "again lost"], ["sad", "glad", "sad"]


@pytest.fixture(autouse=True)
def offline_with_an_own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def tagged(numbers: list[list[int]] = NUMBERS) -> Any:
    features = datasets.Features(
        {"tokens": datasets.List(datasets.Value("string")), "ner_tags": datasets.List(datasets.ClassLabel(names=TAGS))}
    )
    table = arrow.table({"tokens": TOKENS, "ner_tags": numbers}, schema=features.arrow_schema)
    return datasets.Dataset(table)


def moods(numbers: list[int] | None = None) -> Any:
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["glad", "sad"])}
    )
    given = [["glad", "sad"].index(mood) for mood in MOODS] if numbers is None else numbers
    return datasets.Dataset(arrow.table({"text": TEXTS, "label": given}, schema=features.arrow_schema))


def read(folder: Path, train: Any, **keys: Any) -> list[Example]:
    task = Task.model_validate({"train": train, **keys})
    return read_part(task.train, task, folder, seed=1)


def refusal(folder: Path, train: Any, **keys: Any) -> str:
    with pytest.raises(SetupError) as caught:
        read(folder, train, **keys)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(str(folder) + "/")


TAGGING: dict[str, Any] = {"kind": "tagging", "columns": {"tags": "ner_tags"}}


def test_a_plain_parquet_file_is_read_with_its_other_columns(tmp_path: Path) -> None:
    table = arrow.table({"text": TEXTS, "label": arrow.array(MOODS).dictionary_encode(), "fold": [1, 2, 3]})
    parquet.write_table(table, tmp_path / "x.parquet")
    found = read(tmp_path, "x.parquet", unless={"fold": [2]})
    assert [(e.text, e.labels, e.meta) for e in found] == [
        (TEXTS[0], ("sad",), {"fold": 1}),
        (TEXTS[2], ("sad",), {"fold": 3}),
    ]


def test_tag_numbers_of_a_parquet_file_get_the_names_that_it_carries(tmp_path: Path) -> None:
    tagged().to_parquet(tmp_path / "x.parquet")
    assert [example.spans for example in read(tmp_path, "x.parquet", **TAGGING)] == SPANS


def test_tag_numbers_without_names_are_refused(tmp_path: Path) -> None:
    parquet.write_table(arrow.table({"tokens": TOKENS, "ner_tags": NUMBERS}), tmp_path / "x.parquet")
    assert refusal(tmp_path, "x.parquet", **TAGGING).startswith("x.parquet: row 1: tag 0 is a number; expected a name")


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (3, ", column 'ner_tags': label 3 has no name; the data set names 0 to 2"),
        (-1, ": tag -1 is a number; expected a name: O, B-x or I-x"),
    ],
)
def test_a_tag_number_beyond_the_names_is_refused_with_its_row(tmp_path: Path, number: int, message: str) -> None:
    tagged([[0, 1, 2], [1, number, 0]]).to_parquet(tmp_path / "x.parquet")
    assert refusal(tmp_path, "x.parquet", **TAGGING) == f"x.parquet: row 2{message}"


@pytest.mark.parametrize("kind", ["classification", "multi_label"])
def test_a_label_that_is_not_known_is_refused_unless_the_recipe_leaves_such_rows_out(tmp_path: Path, kind: str) -> None:
    moods([0, -1, 1]).to_parquet(tmp_path / "x.parquet")
    assert refusal(tmp_path, "x.parquet", kind=kind) == (
        "x.parquet: row 2: 'label' is -1, which means that the label is not known; drop such rows with `unless`"
    )
    kept = read(tmp_path, "x.parquet", kind=kind, unless={"label": [-1]})
    assert [example.labels[0] for example in kept] == ["glad", "sad"]


@pytest.mark.parametrize(
    "damage", [lambda b: b"", lambda b: b[:-40], lambda b: b"PAR1" + b"\0" * 60 + b[64:], lambda b: b[4:]]
)
def test_a_damaged_parquet_file_is_one_line(tmp_path: Path, damage: Any) -> None:
    moods().to_parquet(tmp_path / "x.parquet")
    file = tmp_path / "x.parquet"
    file.write_bytes(damage(file.read_bytes()))
    assert refusal(tmp_path, "x.parquet").startswith("x.parquet: not a readable Parquet file: ")


def test_rows_beyond_one_batch_keep_their_numbers(tmp_path: Path) -> None:
    texts = [f"text {n}" for n in range(2500)]
    parquet.write_table(arrow.table({"text": texts, "label": ["a"] * 2499 + [None]}), tmp_path / "x.parquet")
    assert refusal(tmp_path, "x.parquet") == "x.parquet: row 2500: column 'label' is missing: its value is null"


@pytest.fixture
def folder_of_splits(tmp_path: Path) -> Path:
    """A folder as data sets lie on the hub: a Parquet file for each split."""
    (tmp_path / "set" / "data").mkdir(parents=True)
    tagged().to_parquet(tmp_path / "set" / "data" / "train-00000-of-00001.parquet")
    tagged([[0, 0, 0], [0, 0, 1]]).to_parquet(tmp_path / "set" / "data" / "test-00000-of-00001.parquet")
    return tmp_path


def test_a_split_of_a_data_set_is_read_with_the_names_of_its_tags(folder_of_splits: Path) -> None:
    train = read(folder_of_splits, {"path": "set", "split": "train"}, **TAGGING)
    test = read(folder_of_splits, {"path": "set", "split": "test"}, **TAGGING)
    assert [example.spans for example in train] == SPANS
    assert [example.spans for example in test] == [(), (Span(8, 11, "place"),)]
    assert train[1].place.endswith("set (train): row 2")


def test_a_data_set_of_several_splits_asks_for_one(folder_of_splits: Path) -> None:
    assert refusal(folder_of_splits, "set", **TAGGING) == "set: has several splits; set `split` to one of train, test"
    unknown = refusal(folder_of_splits, {"path": "set", "split": "dev"}, **TAGGING)
    assert unknown.startswith("set: the data set cannot be loaded: ValueError: Unknown split")


def test_json_lines_in_a_folder_are_a_data_set_with_one_split(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    rows = [{"text": text, "label": mood} for text, mood in zip(TEXTS, MOODS, strict=True)]
    (tmp_path / "set" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [example.labels[0] for example in read(tmp_path, "set")] == MOODS


CSV = ["id,text,label", *(f"{n},text {n},{'ab'[n % 2]}" for n in range(8))]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({3: '2,"text 2,a', 4: '3,text 3",b'}, "row 3, column 'text': the quotation mark that opens here encloses 2"),
        ({3: '"2,text 2,a', 6: '5",text 5,b'}, "row 3, column 'id': the quotation mark that opens here encloses 4"),
        ({5: "id,text,label"}, "row 5: the header stands here again"),
    ],
)
def test_csv_in_the_folder_of_a_data_set_is_checked_as_a_file_is(
    tmp_path: Path, changes: dict[int, str], message: str
) -> None:
    (tmp_path / "set").mkdir()
    lines = [changes.get(at, line) for at, line in enumerate(CSV)]
    (tmp_path / "set" / "train.csv").write_text("\n".join(lines))
    assert refusal(tmp_path, "set").startswith(f"set (train): {message}")
    if '"' in "".join(lines):
        assert len(read(tmp_path, "set", quoting="none")) == 8


def test_delimiter_and_quoting_reach_the_csv_of_a_data_set_and_are_refused_for_others(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.csv").write_text('text;label\n"dear;\nall";a\nbye;b\n')
    assert refusal(tmp_path, "set", delimiter=";").startswith("set (train): row 1, column 'text': the quotation mark")
    found = read(tmp_path, "set", delimiter=";", quoting="minimal")
    assert [(e.text, *e.labels) for e in found] == [("dear;\nall", "a"), ("bye", "b")]
    (tmp_path / "other").mkdir()
    moods().to_parquet(tmp_path / "other" / "train.parquet")
    assert "`delimiter` and `quoting` are for data sets of CSV files" in refusal(tmp_path, "other", delimiter=";")


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ({"split": "test"}, "holds one split (of no name), not 'test'; leave `split` out"),
        ({"split": "train[:10]"}, "holds one split (of no name), not 'train[:10]'; leave `split` out"),
        ({"config": "en"}, "a data set that was saved to disk has no `config`; leave it out"),
        ({"revision": "main"}, "a data set that was saved to disk has no `revision`; leave it out"),
        ({"delimiter": ";"}, "a data set that was saved to disk has no `delimiter`; leave it out"),
    ],
)
def test_a_saved_data_set_refuses_a_part_that_it_does_not_have(
    tmp_path: Path, key: dict[str, str], message: str
) -> None:
    moods().save_to_disk(tmp_path / "one")
    assert refusal(tmp_path, {"path": "one", **key}) == f"one: {message}"


def test_a_saved_split_is_read_under_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    moods().to_parquet(tmp_path / "set" / "test.parquet")
    datasets.load_dataset(str(tmp_path / "set"), split="test").save_to_disk(tmp_path / "one")
    assert len(read(tmp_path, {"path": "one", "split": "test"})) == 3
    assert "holds one split (test), not 'train'" in refusal(tmp_path, {"path": "one", "split": "train"})


def test_a_data_set_saved_to_disk_is_read(tmp_path: Path) -> None:
    moods().save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": moods(), "test": moods()}).save_to_disk(tmp_path / "two")
    assert [example.labels[0] for example in read(tmp_path, "one")] == MOODS
    assert [example.labels[0] for example in read(tmp_path, {"path": "two", "split": "test"})] == MOODS
    assert "has no split 'dev'; set `split` to one of train, test" in refusal(tmp_path, {"path": "two", "split": "dev"})


def test_a_data_set_that_cannot_be_had_is_one_line(tmp_path: Path) -> None:
    assert refusal(tmp_path, "hub:nobody/nothing-of-the-kind").startswith(
        "hub:nobody/nothing-of-the-kind: the data set cannot be loaded: "
    )
    (tmp_path / "empty").mkdir()
    assert refusal(tmp_path, "empty").startswith("empty: the data set cannot be loaded: ")


def test_a_data_set_of_the_hub_is_loaded_by_name_configuration_and_revision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def load_dataset(name: str, config: str | None, **keys: Any) -> Any:
        asked.append((name, config, keys))
        return moods()

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    source = {"path": "hub:owner/name", "config": "en", "split": "train", "revision": "v2"}
    assert [example.labels[0] for example in read(tmp_path, source)] == MOODS
    assert asked == [("owner/name", "en", {"split": "train", "revision": "v2"})]


def test_a_format_beside_a_data_set_is_refused(folder_of_splits: Path) -> None:
    assert refusal(folder_of_splits, "set", format="csv") == "set: a data set has no format 'csv'; leave `format` out"


def test_a_run_records_the_digest_of_each_split(folder_of_splits: Path) -> None:
    task = {**TAGGING, "train": {"path": "set", "split": "train"}, "test": {"path": "set", "split": "test"}}
    recipe = Recipe.model_validate({"tasks": {"places": task}})
    before = digest_data(recipe, folder_of_splits)
    assert list(before) == ["set test", "set train"]
    assert len(set(before.values())) == 2
    tagged([[0, 0, 0], [0, 0, 0]]).to_parquet(folder_of_splits / "set" / "data" / "test-00000-of-00001.parquet")
    after = digest_data(recipe, folder_of_splits)
    assert after["set train"] == before["set train"]
    assert after["set test"] != before["set test"]


@pytest.mark.parametrize(("path", "module"), [("x.parquet", "pyarrow"), ("hub:owner/name", "datasets")])
def test_what_is_not_installed_is_named_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, module: str
) -> None:
    moods().to_parquet(tmp_path / "x.parquet")
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.split(".", maxsplit=1)[0] == module:
            raise ModuleNotFoundError(f"No module named {module!r}", name=module)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    assert refusal(tmp_path, path).endswith(f"needs {module}: pip install 'murmura[data]'")


def test_numbers_are_named_at_any_depth() -> None:
    names = {"names": ["a", "b"], "_type": "ClassLabel"}
    spans = {"feature": {"start": {"dtype": "int32", "_type": "Value"}, "label": names}, "_type": "List"}
    assert name_numbers("x", [{"start": 1, "label": 1}], spans) == [{"start": 1, "label": "b"}]
    older = {**spans, "_type": "Sequence"}
    assert name_numbers("x", {"start": [1, 2], "label": [1, 0]}, older) == {"start": [1, 2], "label": ["b", "a"]}
    assert name_numbers("x", [0, None, 1], [names]) == ["a", None, "b"]
    assert name_numbers("x", {"feature": 1}, {"feature": names}) == {"feature": "b"}
    assert name_numbers("x", 5, {"dtype": "int32", "_type": "Value"}) == 5
