import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from murmura.runtime.errors import SetupError
from murmura.training.data.counts import RowLeftOut, SpanLeftOut
from murmura.training.data.example import Example, Span
from murmura.training.prepare.reading import read_counted, read_part
from murmura.training.recipe.keys.tasks import Task


def read(folder: Path, content: str | bytes, name: str = "x.jsonl", **keys: Any) -> list[Example]:
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    task = Task.model_validate({"train": name, **keys})
    return read_part(task.train, task, folder, seed=1, training=True)


def lines(*items: dict[str, Any]) -> str:
    return "".join(json.dumps(item) + "\n" for item in items)


def refusal(folder: Path, content: str | bytes, name: str = "x.jsonl", **keys: Any) -> str:
    with pytest.raises(SetupError) as caught:
        read(folder, content, name, **keys)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(str(folder) + "/")


AB = lines({"text": "one", "label": "a"}, {"text": "two", "label": "b"})
PAIR = [Example("one", ("a",)), Example("two", ("b",))]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.jsonl", AB),
        ("x.jsonl.gz", gzip.compress(AB.encode(), mtime=0)),  # the bytes name the test, so they must not change
        ("x.csv", "text,label\none,a\ntwo,b\n"),
        ("x.csv", "\ufefftext,label\r\none,a\r\ntwo,b\r\n"),
        ("x.tsv", "label\ttext\na\tone\nb\ttwo\n"),
        ("x.csv.gz", gzip.compress(b"text,label\none,a\ntwo,b\n", mtime=0)),
    ],
)
def test_json_lines_and_csv_are_read_plain_and_zipped(tmp_path: Path, name: str, content: str | bytes) -> None:
    assert read(tmp_path, content, name) == PAIR


def test_a_file_is_found_with_gz_behind_its_name(tmp_path: Path) -> None:
    (tmp_path / "y.jsonl.gz").write_bytes(gzip.compress(AB.encode()))
    task = Task.model_validate({"train": "y.jsonl"})
    assert read_part(task.train, task, tmp_path, seed=1) == PAIR


def test_a_quoted_csv_text_may_have_commas_and_line_ends(tmp_path: Path) -> None:
    assert read(tmp_path, 'text,label\n"one, two",a\n', "x.csv") == [Example("one, two", ("a",))]
    assert read(tmp_path, 'text,label\n"one\ntwo",a\n', "x.csv") == [Example("one\ntwo", ("a",))]


def test_merge_makes_one_label_of_many_and_rest_decides_about_others(tmp_path: Path) -> None:
    content = lines(*({"text": t, "label": t} for t in "abc"))
    merge = {"ab": ["a", "b"]}
    assert [e.labels for e in read(tmp_path, content, merge=merge, rest="drop")] == [("ab",), ("ab",)]
    assert [e.labels for e in read(tmp_path, content, merge=merge, rest="keep")] == [("ab",), ("ab",), ("c",)]
    assert refusal(tmp_path, content, merge=merge).startswith("x.jsonl:3: label 'c' is not in merge")


def test_a_source_may_do_without_the_merge_of_its_task(tmp_path: Path) -> None:
    found = read(tmp_path, AB, train={"path": "x.jsonl", "merge": {}}, merge={"other": ["z"]})
    assert [e.labels for e in found] == [("a",), ("b",)]


def test_one_of_keeps_rows_with_exactly_one_label_of_the_list(tmp_path: Path) -> None:
    content = lines(
        {"text": "1", "label": ["a"]}, {"text": "2", "label": ["a", "b"]}, {"text": "3", "label": ["b", "c"]}
    )
    assert [e.text for e in read(tmp_path, content, one_of=[])] == ["1"]
    assert [(e.text, e.labels) for e in read(tmp_path, content, one_of=["a", "c"])] == [
        ("1", ("a",)),
        ("2", ("a",)),
        ("3", ("c",)),
    ]


def test_rows_are_selected_by_a_fields_value(tmp_path: Path) -> None:
    content = lines(*({"text": str(n), "label": "a", "fold": n % 3} for n in range(1, 7)))
    assert [e.text for e in read(tmp_path, content, where={"fold": [0, 2]})] == ["2", "3", "5", "6"]
    assert [e.text for e in read(tmp_path, content, unless={"fold": [0, 2]})] == ["1", "4"]


def test_a_csv_field_is_selected_by_its_text(tmp_path: Path) -> None:
    content = "text,label,fold\none,a,0\ntwo,a,1\n"
    assert [e.text for e in read(tmp_path, content, "x.csv", where={"fold": [1]})] == ["two"]


def test_a_cap_draws_the_same_rows_each_time(tmp_path: Path) -> None:
    content = lines(*({"text": str(n), "label": "a"} for n in range(100)))
    once = read(tmp_path, content, train={"path": "x.jsonl", "rows": 10})
    assert len(once) == 10
    assert once == read(tmp_path, content, train={"path": "x.jsonl", "rows": 10})
    assert [e.text for e in once] != [str(n) for n in range(10)]


def test_sources_are_mixed_each_with_its_own_reading(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text("message\nhi\nho\n")
    sources = [
        {"path": "x.jsonl", "repeat": 2},
        {"path": "own.csv", "label": "none", "columns": {"text": "message"}},
    ]
    found = read(tmp_path, AB, train=sources)
    assert [(e.text, e.labels[0]) for e in found] == [*[("one", "a"), ("two", "b")] * 2, ("hi", "none"), ("ho", "none")]


def test_typo_copies_keep_the_label_and_change_some_letters(tmp_path: Path) -> None:
    content = lines({"text": "where is my missing payment today please", "label": "a"})
    found = read(tmp_path, content, train={"path": "x.jsonl", "typo_copies": 8})
    assert len(found) == 9
    assert {e.labels for e in found} == {("a",)}
    assert len({e.text for e in found}) > 3


def test_tokens_with_tags_become_text_with_spans(tmp_path: Path) -> None:
    content = lines({"tokens": ["to", "New", "York", "Rome"], "tags": ["O", "B-p", "I-p", "B-p"]})
    (found,) = read(tmp_path, content, kind="tagging")
    assert found == Example("to New York Rome", spans=(Span(3, 11, "p"), Span(12, 16, "p")), words=found.words)
    assert found.words == ((0, 2), (3, 6), (7, 11), (12, 16))


def test_a_stray_inside_tag_opens_a_span(tmp_path: Path) -> None:
    (found,) = read(tmp_path, lines({"tokens": ["a", "b"], "tags": ["I-x", "I-y"]}), kind="tagging")
    assert found.spans == (Span(0, 1, "x"), Span(2, 3, "y"))


def test_spans_may_have_other_keys(tmp_path: Path) -> None:
    content = lines({"text": "to Rome", "slots": [{"slot": "to", "from": 3, "until": 7}]})
    columns = {"spans": "slots", "span_label": "slot", "start": "from", "end": "until"}
    (found,) = read(tmp_path, content, kind="tagging", columns=columns, merge={"place": ["to"]})
    assert found.spans == (Span(3, 7, "place"),)


def test_of_overlapping_spans_the_longest_stays(tmp_path: Path) -> None:
    spans = [{"start": 0, "end": 3, "label": "a"}, {"start": 0, "end": 8, "label": "b"}]
    (found,) = read(tmp_path, lines({"text": "New York", "spans": spans}), kind="tagging")
    assert found.spans == (Span(0, 8, "b"),)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "x.jsonl: no rows"),
        ("\n\n", "x.jsonl: no rows"),
        (lines({"text": "a"}), "x.jsonl:1: column 'label' is missing; found text"),
        ('{"text": "a", "label": "b"}\n{\n', "x.jsonl:2: not JSON"),
        ("[1]\n", "x.jsonl:1: expected an object, found list"),
        (lines({"text": " ", "label": "a"}), "x.jsonl:1: the text is empty"),
        (lines({"text": 3, "label": "a"}), "x.jsonl:1: the text is int"),
        ('{"text": "\\ud800", "label": "b"}\n', "x.jsonl:1: the text has a lone surrogate"),
        (lines({"text": "a", "label": ["b", "c"]}), "x.jsonl:1: expected one label, found 2"),
        (lines({"text": "a", "label": {}}), "x.jsonl:1: 'label' should be a label or a list"),
        (b'{"text": "\xff"}\n', "x.jsonl:1: not UTF-8"),
    ],
)
def test_a_bad_file_is_named_with_its_line(tmp_path: Path, content: str | bytes, said: str) -> None:
    assert refusal(tmp_path, content).startswith(said)


def test_a_csv_row_that_is_too_long_or_too_short_is_named(tmp_path: Path) -> None:
    assert refusal(tmp_path, "text,label\none,a,3\n", "x.csv").startswith("x.csv:2: expected 2 columns")
    assert refusal(tmp_path, "text,label\none,a\ntwo\n", "x.csv").startswith("x.csv:3: expected 2 columns")


def test_a_csv_with_a_header_only_is_empty(tmp_path: Path) -> None:
    assert refusal(tmp_path, "text,label\n", "x.csv") == "x.csv: no rows"


def test_a_missing_column_of_a_csv_is_named(tmp_path: Path) -> None:
    assert refusal(tmp_path, "message,label\none,a\n", "x.csv") == (
        "x.csv:2: column 'text' is missing; found message, label"
    )


def test_a_missing_file_says_where_paths_start(tmp_path: Path) -> None:
    assert refusal(tmp_path, AB, train="none.csv").endswith("paths in a recipe are relative to --data")


def test_a_selection_that_leaves_nothing_is_said(tmp_path: Path) -> None:
    assert refusal(tmp_path, AB, where={"label": ["z"]}) == (
        "x.jsonl: no rows left after where/unless; no row has 'z' in 'label'"
    )


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"tokens": ["a"], "tags": ["O", "O"]}, "1 tokens and 2 tags"),
        ({"tokens": ["a"], "tags": ["X"]}, "tag 'X' is not BIO"),
        ({"text": "ab", "spans": [{"start": 0, "end": 3, "label": "x"}]}, "span 0..3 does not lie in a text of 2"),
        ({"text": "ab", "spans": [{"start": 0, "label": "x"}]}, "a span needs start, end, label"),
    ],
)
def test_bad_spans_and_tags_are_named(tmp_path: Path, row: dict[str, Any], said: str) -> None:
    assert refusal(tmp_path, lines(row), kind="tagging").startswith(f"x.jsonl:1: {said}")


def test_what_is_left_out_is_counted_with_its_reason(tmp_path: Path) -> None:
    rows = [{"text": str(n), "label": "abc"[n % 3], "fold": n} for n in range(12)]
    (tmp_path / "x.jsonl").write_text(lines(*rows))
    keys = {"unless": {"fold": [0]}, "merge": {"z": ["a", "b"]}, "rest": "drop"}
    task = Task.model_validate({"train": {"path": "x.jsonl", "repeat": 3, "rows": 5}, **keys})
    examples, counts = read_counted(task.train, task, tmp_path, seed=1, training=True)
    assert (counts.rows, counts.kept, len(examples)) == (12, 5, 15)
    assert counts.rows_left_out == {RowLeftOut.NOT_SELECTED: 1, RowLeftOut.REST: 4, RowLeftOut.CAP: 2}


def test_overlapping_spans_are_counted(tmp_path: Path) -> None:
    spans = [{"start": 0, "end": 3, "label": "a"}, {"start": 0, "end": 8, "label": "b"}]
    (tmp_path / "x.jsonl").write_text(lines({"text": "New York", "spans": spans}, {"text": "Rome", "spans": []}))
    task = Task.model_validate({"kind": "tagging", "train": "x.jsonl"})
    counts = read_counted(task.train, task, tmp_path, seed=1)[1]
    assert (counts.spans, counts.spans_left_out[SpanLeftOut.OVERLAPPING]) == (2, 1)
    assert counts.describe_left_out() == "1 span left out overlapping a longer one"


@pytest.mark.parametrize("kind", ["classification", "tagging"])
def test_other_columns_are_kept(tmp_path: Path, kind: str) -> None:
    row = {"text": "a", "label": "b", "spans": [], "conversation": 7}
    (found,) = read(tmp_path, lines(row), kind=kind)
    assert found.meta["conversation"] == 7
    assert not {"text", {"tagging": "spans"}.get(kind, "label")} & set(found.meta)
