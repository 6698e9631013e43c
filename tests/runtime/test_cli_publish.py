"""What `murmura publish` makes of a file: JSON lines, text lines, and what people's programs put around them."""

import io
import json
from codecs import BOM_UTF8

import pytest
from hypothesis import given
from hypothesis import strategies as st

from murmura.runtime.cli.records.publish import read_records
from murmura.runtime.errors import SetupError


def values(data, *, text=False):
    return [json.loads(value) for value, _ in read_records(io.BytesIO(data), "f", None, text)]


requests = st.lists(
    st.fixed_dictionaries(
        {"text": st.text(st.characters(exclude_categories=["Cs"]), min_size=1), "id": st.text("abc")}
    ),
    min_size=1,
    max_size=5,
)


@given(requests, st.booleans(), st.sampled_from(["\n", "\r\n"]), st.integers(0, 2))
def test_json_lines_are_sent_as_they_are(rows, mark, end, blank):
    lines = end * blank + end.join(json.dumps(row) for row in rows) + end
    assert values((BOM_UTF8 if mark else b"") + lines.encode()) == rows


@given(st.lists(st.text(st.characters(categories=["L", "N"]), min_size=1), min_size=1, max_size=5), st.booleans())
def test_text_lines_become_requests(texts, mark):
    data = (BOM_UTF8 if mark else b"") + "\n".join(texts).encode()
    assert values(data) == [{"text": text} for text in texts]


@pytest.mark.parametrize(
    ("data", "advice"),
    [
        (b'[{"text": "a"}, {"text": "b"}]', r"f, line 1: begins with \[, a JSON array.*jq -c '\.\[\]' f"),
        (BOM_UTF8 + b'\n\n[\n {"text": "a"}\n]', r"f, line 3: begins with \[, a JSON array"),
        (b'{\n  "text": "a"\n}', r"f, line 1: a JSON object over several lines.*jq -c \. f"),
        ('{"text": "a"}'.encode("utf-16"), "f: UTF-16"),
        ('{"text": "a"}'.encode("utf-16-be").join([b"\xfe\xff", b""]), "f: UTF-16"),
        ('{"text": "a"}'.encode("utf-16-le"), "f: UTF-16"),
        ("a text".encode("utf-16-be"), "f: UTF-16"),
        (b'{"text": "a"}\nplain', "f, line 2: not JSON"),
        (b"caf\xe9", "f, line 1: expected UTF-8"),
    ],
)
def test_other_forms_are_refused_with_what_to_do(data, advice):
    with pytest.raises(SetupError, match=advice):
        values(data)


@pytest.mark.parametrize("line", [b'[{"text": "a"}]', b"{", b'{"text": "a"}'])
def test_with_text_every_line_is_a_text(line):
    assert values(line, text=True) == [{"text": line.decode()}]
