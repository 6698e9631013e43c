"""Fields of rows: values of a wrong type, and labels as programs and spreadsheets write them."""

import json
from pathlib import Path
from typing import Any

import pytest

from murmura.runtime.errors import SetupError
from murmura.training.data.counts import SpanLeftOut
from murmura.training.data.example import Example, Span
from murmura.training.data.fields import MISSING as NO_LABELS
from murmura.training.prepare.reading import read_counted, read_part
from murmura.training.recipe.keys.tasks import Task

GOOD = {"text": "pay Ann", "label": "a", "tokens": ["pay", "Ann"], "tags": ["O", "B-x"]}


def read(folder: Path, content: str | list[Any], name: str = "x.jsonl", **keys: Any) -> list[Example]:
    text = content if isinstance(content, str) else "".join(json.dumps(row) + "\n" for row in content)
    (folder / name).write_text(text)
    task = Task.model_validate({"train": name, **keys})
    return read_part(task.train, task, folder, seed=1)


def refusal(folder: Path, content: str | list[Any], name: str = "x.jsonl", **keys: Any) -> str:
    with pytest.raises(SetupError) as caught:
        read(folder, content, name, **keys)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(str(folder) + "/")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"tokens": ["pay", 5], "tags": ["O", "O"]}, "a token should be a text"),
        ({"tokens": ["pay", None], "tags": ["O", "O"]}, "a token should be a text"),
        ({"tokens": ["pay", ""], "tags": ["O", "O"]}, "a token should be a text"),
        ({"tokens": 5, "tags": ["O"]}, "'tokens' should be a list"),
        ({"tokens": {"a": 1}, "tags": ["O"]}, "'tokens' should be a list"),
        ({"tokens": [], "tags": []}, "'tokens' should be a list"),
        ({"tokens": ["pay"], "tags": [None]}, "tag None is not BIO"),
        ({"tokens": ["pay"], "tags": [1]}, "tag 1 is a number"),
        ({"tokens": ["pay"], "tags": [True]}, "tag True is not BIO"),
        ({"tokens": ["pay"], "tags": [["O"]]}, "tag ['O'] is not BIO"),
        ({"tokens": ["pay"], "tags": 5}, "'tags' should be a list"),
        ({"tokens": ["pay"], "tags": ["I-"]}, "tag 'I-' is not BIO"),
        ({"tokens": ["pay"], "tags": ["B- "]}, "tag 'B- ' is not BIO"),
        ({"tokens": ["pay"], "tags": [""]}, "tag '' is not BIO"),
        ({"tokens": ["pay"], "tags": ["B-nan"]}, "the label of tag 'B-nan' is 'nan'"),
        ({"tokens": ["pay"]}, "column 'tags' is missing"),
        ({"text": "pay", "spans": 5}, "'spans' should be a list"),
        ({"text": "pay", "spans": "0"}, "'spans' should be a list"),
        ({"text": "pay", "spans": None}, "column 'spans' is missing: its value is null"),
        ({"text": "pay", "spans": [5]}, "a span needs start, end, label"),
        ({"text": "pay", "spans": [None]}, "a span needs start, end, label"),
        *(
            ({"text": "pay me", "spans": [{"start": 0, "end": 3, "label": "x", **change}]}, message)
            for change, message in [
                ({"end": float("inf")}, "'end' of a span should be a whole number, found inf"),
                ({"end": float("nan")}, "'end' of a span should be a whole number, found nan"),
                ({"start": 0.9}, "'start' of a span should be a whole number, found 0.9"),
                ({"start": "0"}, "'start' of a span should be a whole number"),
                ({"start": True}, "'start' of a span should be a whole number"),
                ({"start": -1}, "span -1..3 does not lie"),
                ({"end": 99}, "span 0..99 does not lie"),
                ({"end": 0}, "span 0..0 does not lie"),
                ({"label": None}, "a span needs start, end, label"),
                ({"label": ["x", "y"]}, "'label' of a span should be a label"),
                ({"label": []}, "'label' of a span should be a label"),
                ({"label": 1.5}, "'label' of a span should be a label"),
                ({"label": " "}, "'label' of a span is empty"),
                ({"label": "None"}, "'label' of a span is 'None'"),
                ({"label": "\ud800"}, "'label' of a span has a lone surrogate"),
            ]
        ),
    ],
)
def test_a_value_of_a_wrong_type_in_a_tagging_row_is_named(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    found = refusal(tmp_path, [GOOD, row], kind="tagging")
    assert found.startswith(f"x.jsonl:2: {message}")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": True}, "'label' should be a label"),
        ({"label": 1.0}, "'label' should be a label"),
        ({"label": float("nan")}, "'label' should be a label"),
        ({"label": [["a"]]}, "a label of 'label' should be a label"),
        ({"label": ["a", None]}, "a label of 'label' should be a label"),
        ({"label": ""}, "'label' is empty"),
        ({"label": "\u00a0 "}, "'label' is empty"),
        ({"label": [" "]}, "a label of 'label' is empty"),
        ({"label": "['a']"}, "'label' is \"['a']\", a list that was written as a text"),
        ({"label": "[a, b]"}, "'label' is '[a, b]', a list that was written as a text"),
        ({"label": '{"a"}'}, "'label' is '{\"a\"}', a list that was written as a text"),
        ({"label": "\ud800"}, "'label' has a lone surrogate"),
        ({"text": None}, "column 'tags' is missing"),
    ],
)
def test_a_value_of_a_wrong_type_in_a_labelled_row_is_named(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    kind = "tagging" if "text" in change else "multi_label"
    row = {"tokens": ["a"]} if "text" in change else {"text": "a", "label": "a", **change}
    assert refusal(tmp_path, [GOOD, row], kind=kind).startswith(f"x.jsonl:2: {message}")


@pytest.mark.parametrize("label", ["[oos]", "a, b", "(other)", "C#", "1"])
def test_a_label_may_have_brackets_and_commas(tmp_path: Path, label: str) -> None:
    assert read(tmp_path, [{"text": "a", "label": label}])[0].labels == (label,)


def test_a_label_of_a_span_may_be_a_list_of_one(tmp_path: Path) -> None:
    row = {"text": "pay", "spans": [{"start": 0, "end": 3, "label": ["x"]}]}
    assert read(tmp_path, [row], kind="tagging")[0].spans == (Span(0, 3, "x"),)


def test_white_space_around_labels_is_no_part_of_them(tmp_path: Path) -> None:
    assert [e.labels for e in read(tmp_path, "text,label\na,x \nb,x\u00a0\nc,\tx\n", "x.csv")] == [("x",)] * 3
    assert read(tmp_path, [{"text": "a", "label": ["x ", " y"]}], kind="multi_label")[0].labels == ("x", "y")
    spans = [{"start": 0, "end": 3, "label": "x "}]
    assert read(tmp_path, [{"text": "pay", "spans": spans}], kind="tagging")[0].spans == (Span(0, 3, "x"),)
    assert read(tmp_path, [{"tokens": ["a"], "tags": ["B-x "]}], kind="tagging")[0].spans == (Span(0, 1, "x"),)


@pytest.mark.parametrize("label", ["\ufeffx", "x\u200b", "\u2060 x\u200d", "x\u00ad"])
def test_invisible_characters_around_labels_are_no_part_of_them(tmp_path: Path, label: str) -> None:
    assert read(tmp_path, f"text,label\na,{label}\n", "x.csv")[0].labels == ("x",)
    assert read(tmp_path, [{"text": "a", "label": [label]}], kind="multi_label")[0].labels == ("x",)
    assert read(tmp_path, [{"tokens": ["a"], "tags": [f"B-{label}"]}], kind="tagging")[0].spans == (Span(0, 1, "x"),)
    spans = [{"start": 0, "end": 3, "label": label}]
    assert read(tmp_path, [{"text": "pay", "spans": spans}], kind="tagging")[0].spans == (Span(0, 3, "x"),)
    rows = [{"text": "a", "label": label}, {"text": "b", "label": "y"}]
    assert [e.labels for e in read(tmp_path, rows, merge={"z": ["x"]}, rest="keep")] == [("z",), ("y",)]
    assert [e.text for e in read(tmp_path, rows, where={"label": ["x"]})] == ["a"]
    task = Task.model_validate({"train": "x", "labels": [label, "y"], "out_of_scope": label, "one_of": [label]})
    assert (task.labels, task.out_of_scope and task.out_of_scope.label, task.one_of) == (["x", "y"], "x", ["x"])


def test_flags_that_invisible_tags_tell_apart_stay_different_labels(tmp_path: Path) -> None:
    england, scotland = (
        "\U0001f3f4" + "".join(chr(0xE0000 + ord(c)) for c in f"gb{c}") + "\U000e007f" for c in ("eng", "sct")
    )
    rows = [{"text": "a", "label": england}, {"text": "b", "label": scotland}]
    assert [e.labels for e in read(tmp_path, rows)] == [(england,), (scotland,)]


MISSING = [
    "nan",
    "NaN",
    "NULL",
    "None",
    "none",
    "<NA>",
    "NA",
    "n/a",
    "#N/A",
    "\\N",
    "NaT",
    "nil",
    "<nil>",
    "undefined",
    "#NA",
]


@pytest.mark.parametrize("label", MISSING)
def test_a_missing_value_is_no_label_unless_the_recipe_names_it(tmp_path: Path, label: str) -> None:
    rows = [{"text": "a", "label": label}]
    assert f"'label' is {label!r}, which programs write where a value is missing" in refusal(tmp_path, rows)
    for keys in [
        {"labels": [label, "b"]},
        {"out_of_scope": label},
        {"merge": {"b": [label]}},
        {"one_of": [label]},
        {"where": {"label": [label]}},
        {"validation": {"path": "y.csv", "label": label}},
        {"test": {"path": "y.csv", "merge": {label: ["c"]}}},
    ]:
        assert len(read(tmp_path, rows, **keys)) == 1
    with pytest.raises(SetupError, match="no rows left after where/unless"):
        read(tmp_path, rows, unless={"label": [label]})


def test_whatever_pandas_reads_as_missing_is_no_label() -> None:
    parsers = pytest.importorskip("pandas._libs.parsers")
    assert {value.lower() for value in parsers.STR_NA_VALUES} - {""} <= NO_LABELS
    assert not {"unknown", "missing", "-", "other", "no", "0"} & NO_LABELS


@pytest.mark.parametrize(
    "cell", ["cards,travel", "cards#travel", "cards;travel", "cards travel", "cards|travel", "['cards', 'travel']", ""]
)
def test_a_cell_with_several_labels_needs_a_separator(tmp_path: Path, cell: str) -> None:
    content = f'text,label\none,cards\ntwo,"{cell}"\n'
    assert refusal(tmp_path, content, "x.csv", kind="multi_label").startswith("x.csv:3: ")
    if cell.startswith("["):
        assert "a list" in refusal(tmp_path, content, "x.csv", kind="multi_label", label_separator=",")


@pytest.mark.parametrize("separator", [",", "#", "; ", " "])
def test_a_separator_divides_the_labels_of_a_cell(tmp_path: Path, separator: str) -> None:
    content = f'text,label\none,"cards{separator}travel"\ntwo,cards\nthree,""\n'
    found = read(tmp_path, content, "x.csv", kind="multi_label", label_separator=separator)
    assert [e.labels for e in found] == [("cards", "travel"), ("cards",), ()]


def test_several_labels_of_a_classification_are_refused(tmp_path: Path) -> None:
    message = refusal(tmp_path, "text,label\none,a|b\n", "x.csv", label_separator="|")
    assert message.startswith("x.csv:2: expected one label, found 2")


def test_tokens_are_the_text_of_a_row_that_has_none(tmp_path: Path) -> None:
    rows = [{"tokens": ["pay", "Ann"], "label": "a"}, {"text": None, "tokens": "pay Bob", "label": "a"}]
    assert [e.text for e in read(tmp_path, rows)] == ["pay Ann", "pay Bob"]


BILOU = [{"tokens": ["to", "New", "York"], "tags": ["O", "B-x", "L-x"]}, {"tokens": ["Rome"], "tags": ["U-x"]}]


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("tags", ["B-x I-x O", "O B-x O", "O O I-x"])
def test_a_span_without_its_end_is_refused_where_other_rows_mark_ends(tmp_path: Path, before: bool, tags: str) -> None:
    row = {"tokens": "a b c", "tags": tags}
    rows = [row, *BILOU] if before else [*BILOU, row]
    found = refusal(tmp_path, rows, kind="tagging")
    assert found.startswith(f"x.jsonl:{1 if before else 3}: ")
    assert found.endswith("; other rows of this source mark the ends of spans")
    assert len(read(tmp_path, [row, {"tokens": "a b", "tags": "O B-x"}], kind="tagging")) == 2
    assert len(read(tmp_path, [{"tokens": "a b", "tags": "O O"}, *BILOU], kind="tagging")) == 3


def test_blanks_at_the_ends_of_a_span_are_cut_off_and_counted(tmp_path: Path) -> None:
    spans = [
        {"start": 2, "end": 12, "label": "x"},
        {"start": 0, "end": 2, "label": "y"},
        {"start": 2, "end": 3, "label": "z"},
    ]
    (tmp_path / "x.jsonl").write_text(json.dumps({"text": "to\u200b New York ", "spans": spans}))
    task = Task.model_validate({"kind": "tagging", "train": "x.jsonl"})
    (found,), counts = read_counted(task.train, task, tmp_path, seed=1)
    assert found.spans == (Span(0, 2, "y"), Span(4, 12, "x"))
    assert (counts.spans, counts.trimmed, counts.spans_left_out) == (3, 1, {SpanLeftOut.BLANK: 1})


@pytest.mark.parametrize(("value", "wanted", "kept"), [(True, True, 1), (True, 1, 0), ("true", True, 1), (" 1", 1, 1)])
def test_rows_are_selected_by_value_or_by_text(tmp_path: Path, value: Any, wanted: Any, kept: int) -> None:
    rows = [{"text": "a", "label": "b", "flag": value}, {"text": "z", "label": "b", "flag": "keep"}]
    found = read(tmp_path, rows, where={"flag": [wanted, "keep"]})
    assert [e.text for e in found] == ["a", "z"][1 - kept :]
