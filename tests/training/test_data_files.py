"""Files that say something else than they seem to: read as they stand, or refused with the line."""

import gzip
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from murmura.runtime.errors import SetupError
from murmura.training.data.example import Example
from murmura.training.prepare.reading import read_part
from murmura.training.recipe.keys.tasks import Task


def read(folder: Path, content: str | bytes, name: str = "x.csv", **keys: Any) -> list[Example]:
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    task = Task.model_validate({"train": name, **keys})
    return read_part(task.train, task, folder, seed=1)


def refusal(folder: Path, content: str | bytes, name: str = "x.csv", **keys: Any) -> str:
    with pytest.raises(SetupError) as caught:
        read(folder, content, name, **keys)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(str(folder) + "/")


LONG = settings(max_examples=60, deadline=None)
TAB = "\t"
ROWS = [f"text {n},{'ab'[n % 2]}" for n in range(20)]


@pytest.mark.parametrize("opens", [0, 3, 19])
def test_a_mark_that_is_never_closed_is_named_with_its_line(tmp_path: Path, opens: int) -> None:
    lines = [*ROWS]
    lines[opens] = '"' + lines[opens]
    assert refusal(tmp_path, "\n".join(["text,label", *lines])).startswith(f"x.csv:{opens + 2}: a quotation mark opens")


def test_two_stray_marks_that_swallow_rows_are_named_where_the_first_opens(tmp_path: Path) -> None:
    lines = [*ROWS]
    lines[4], lines[9] = '"' + lines[4], '"' + lines[9]
    assert refusal(tmp_path, "\n".join(["text,label", *lines])).startswith("x.csv:6: the quotation mark that opens")


@pytest.mark.parametrize("closes", [5, 9])
def test_a_mark_that_encloses_a_whole_row_is_refused_unless_quoting_is_set(tmp_path: Path, closes: int) -> None:
    lines = [f"{'ab'[n % 2]}\ttext {n}" for n in range(20)]
    lines[4], lines[closes] = lines[4].replace("\t", '\t"'), lines[closes] + '"'
    content = "\n".join(["label\ttext", *lines])
    assert refusal(tmp_path, content, "x.tsv").startswith("x.tsv:6: the quotation mark that opens here encloses")
    assert len(read(tmp_path, content, "x.tsv", quoting="minimal")) == 20 - (closes - 4)
    marked = read(tmp_path, content, "x.tsv", quoting="none")
    assert [len(marked), marked[4].text] == [20, '"text 4']


PLAIN_CELLS = st.text("abz京 #;'", min_size=1, max_size=8).filter(str.strip)


@LONG
@given(st.data(), st.sampled_from([",", "\t"]))
def test_two_stray_marks_in_cells_of_different_rows_never_merge_rows_in_silence(
    data: st.DataObject, delimiter: str
) -> None:
    names = ["text", "label", *data.draw(st.sampled_from([[], ["id"], ["id", "note"]]))]
    header = data.draw(st.permutations(names))
    rows = [[data.draw(PLAIN_CELLS) for _ in names] for _ in range(data.draw(st.integers(2, 6)))]
    opens, closes = sorted(data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=2, max_size=2, unique=True)))
    first, last = data.draw(st.integers(0, len(names) - 1)), data.draw(st.integers(0, len(names) - 1))
    rows[opens][first] = '"' + rows[opens][first]
    rows[closes][last] += '"'
    with tempfile.TemporaryDirectory() as folder:
        content = "".join(delimiter.join(cells) + "\n" for cells in [header, *rows])
        line = refusal(Path(folder), content, f"x.{'tsv' if delimiter == TAB else 'csv'}")
    assert line.split(":")[1] == str(opens + 2)


def test_a_text_of_several_lines_is_read_and_where_its_lines_look_like_rows_with_quoting(tmp_path: Path) -> None:
    letter = 'id,text,label\n1,"Dear all\nmy card, it is gone",a\n2,"lost\nagain",b\n'
    assert [e.labels for e in read(tmp_path, letter)] == [("a",), ("b",)]
    like_rows = letter.replace("Dear all", "Dear all,")
    assert refusal(tmp_path, like_rows).startswith("x.csv:2: the quotation mark that opens here encloses 2 lines")
    assert "`quoting: minimal` where they enclose texts of several lines" in refusal(tmp_path, like_rows)
    assert len(read(tmp_path, like_rows, quoting="minimal")) == 2


@pytest.mark.parametrize("again", ["text,label", "\ufefftext,label", "text , label", '"text","label"'])
def test_files_that_were_joined_with_their_headers_are_refused(tmp_path: Path, again: str) -> None:
    content = "\n".join(["text,label", *ROWS, again, *ROWS])
    assert (
        refusal(tmp_path, content)
        == "x.csv:22: the header stands here again, as where files were joined; remove this row"
    )


def test_the_delimiter_can_be_set(tmp_path: Path) -> None:
    assert read(tmp_path, "text;label\na, b;c\n", delimiter=";") == [Example("a, b", ("c",))]


def test_a_long_cell_is_read(tmp_path: Path) -> None:
    (found,) = read(tmp_path, f"text,label\n{'x' * 200_000},a\n")
    assert len(found.text) == 200_000


@pytest.mark.parametrize("header", ["text,label,label", "text,label, text", "text,label,x,x"])
def test_a_column_that_stands_twice_is_refused(tmp_path: Path, header: str) -> None:
    row = ",".join("abcd"[: header.count(",") + 1])
    assert "stands twice in the header" in refusal(tmp_path, f"{header}\n{row}\n")


def test_columns_without_a_name_are_left_out_and_names_are_stripped(tmp_path: Path) -> None:
    (found,) = read(tmp_path, "text, label ,,\none, a ,,\n")
    assert (found.labels, dict(found.meta)) == (("a",), {})


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("name", ["x.csv", "x.csv.gz"])
def test_a_byte_that_is_not_utf8_is_named_with_its_line(tmp_path: Path, end: str, name: str) -> None:
    lines = ["text,label", *(f"text {n},a" for n in range(5000))]
    content = end.join(lines).encode().replace(b"text 4321,", b"text \xe9,")
    content = gzip.compress(content) if name.endswith(".gz") else content
    assert refusal(tmp_path, content, name) == f"{name}:4323: not UTF-8: byte 0xe9; save the file as UTF-8"


def test_a_damaged_gzip_file_is_one_line(tmp_path: Path) -> None:
    whole = gzip.compress("\n".join(["text,label", *ROWS]).encode())
    for at in range(10, len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= 0xFF
        assert refusal(tmp_path, bytes(damaged), "x.csv.gz").startswith("x.csv.gz")
    assert "damaged gzip" in refusal(tmp_path, whole[:-9], "x.csv.gz")


@pytest.mark.parametrize("indent", [None, 2])
def test_a_json_array_is_read(tmp_path: Path, indent: int | None) -> None:
    rows = [{"text": str(n), "label": "a"} for n in range(3)]
    found = read(tmp_path, json.dumps(rows, indent=indent), "x.json")
    assert [e.text for e in found] == ["0", "1", "2"]
    assert len({e.place for e in found}) == 3


def test_a_json_file_of_lines_is_read_as_such(tmp_path: Path) -> None:
    assert len(read(tmp_path, '{"text": "a", "label": "b"}\n' * 3, "x.json")) == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "x.json:1: not JSON"),
        ('[\n{"text": "a", "label": "b"},\n]', "x.json:3: not JSON"),
        ('[\n{"text": "a", "label": "b"}\n{}]', "x.json:3: not JSON: unexpected '{}]'"),
        ('[\n{"text": "a", "label": "b"}\n]\nx', "x.json:4: not JSON: unexpected 'x'"),
        ('[{"text": "a", "label": "b"},\n\n7]', "x.json:3 (item 2): expected an object, found int"),
        ('[{"text": "a", "label": "b"},\n{"text": ]', "x.json:2: not JSON"),
        ("[" * 200_000, "x.json:1: not readable: nested too deeply"),
        ("[]", "x.json: no rows"),
    ],
)
def test_a_broken_array_is_named_with_its_line(tmp_path: Path, content: str, message: str) -> None:
    assert refusal(tmp_path, content, "x.json").startswith(message)


def test_a_deeply_nested_line_and_a_doubled_key_are_named(tmp_path: Path) -> None:
    good = '{"text": "a", "label": "b"}\n'
    deep = '{"text": ' + "[" * 200_000
    assert refusal(tmp_path, good + deep, "x.jsonl") == "x.jsonl:2: not readable: nested too deeply"
    assert "x.jsonl:2: not readable: key 'text' stands twice" in refusal(
        tmp_path, good + '{"text": "a", "text": "b", "label": "c"}', "x.jsonl"
    )


def test_an_unknown_format_is_named(tmp_path: Path) -> None:
    assert "unknown format 'xls'; expected one of conll, csv" in refusal(tmp_path, "text,label\na,b\n", format="xls")
