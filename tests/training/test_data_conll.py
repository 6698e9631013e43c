"""CoNLL files in each scheme of tags: the same spans, or one line that names the line of the token."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from murmura.runtime.errors import SetupError
from murmura.training.data.example import Example, Span
from murmura.training.data.tag_schemes import Scheme, TagError, find_scheme, to_iob2
from murmura.training.prepare.reading import read_part
from murmura.training.recipe.keys.tasks import Task

SENTENCES = [
    [("EU", "B-ORG"), ("rejects", "O"), ("German", "B-MISC"), ("call", "O"), (".", "O")],
    [("Peter", "B-PER"), ("Blackburn", "I-PER"), ("met", "O"), ("New", "B-LOC"), ("York", "I-LOC"), ("City", "I-LOC")],
    [("Ann", "B-PER"), ("Bob", "B-PER"), ("Lee", "I-PER"), ("left", "O")],
]
TEXTS = [" ".join(token for token, _ in sentence) for sentence in SENTENCES]
SPANS = [
    (Span(0, 2, "ORG"), Span(11, 17, "MISC")),
    (Span(0, 15, "PER"), Span(20, 33, "LOC")),
    (Span(0, 3, "PER"), Span(4, 11, "PER")),
]


def in_scheme(tags: list[str], scheme: str) -> list[str]:
    """Rewrite IOB2 tags, by the definitions and not by the code that is tested."""
    made = []
    for at, tag in enumerate(tags):
        label = tag[2:]
        opens, follows = tag[:1] == "B", at + 1 < len(tags) and tags[at + 1] == f"I-{label}"
        if tag == "O" or scheme == "iob2":
            made.append(tag)
        elif scheme == "iob1":
            touches = at > 0 and tags[at - 1][2:] == label
            made.append(f"B-{label}" if opens and touches else f"I-{label}")
        else:
            last, single = ("L", "U") if scheme == "bilou" else ("E", "S")
            kind = ("B" if follows else single) if opens else ("I" if follows else last)
            made.append(f"{kind}-{label}")
    return made


def write(sentences: list[list[tuple[str, str]]], scheme: str, columns: str = "{token} {tag}") -> str:
    parts = []
    for sentence in sentences:
        tags = in_scheme([tag for _, tag in sentence], scheme)
        rows = (columns.format(token=token, tag=tag) for (token, _), tag in zip(sentence, tags, strict=True))
        parts.append("".join(f"{row}\n" for row in rows))
    return "\n".join(parts)


def read(folder: Path, content: str, **keys: Any) -> list[Example]:
    (folder / "x.conll").write_text(content, encoding="utf-8", newline="")
    task = Task.model_validate({"kind": "tagging", "train": "x.conll", **keys})
    return read_part(task.train, task, folder, seed=1)


def refusal(folder: Path, content: str, **keys: Any) -> str:
    with pytest.raises(SetupError) as caught:
        read(folder, content, **keys)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(str(folder) + "/")


@pytest.mark.parametrize(
    "columns", ["{token} {tag}", "{token}\t{tag}", "{token} NNP B-NP {tag}", "{token} -X- _ {tag}"]
)
@pytest.mark.parametrize("scheme", ["iob1", "iob2", "bilou", "bioes"])
def test_every_scheme_gives_the_same_spans(tmp_path: Path, scheme: str, columns: str) -> None:
    found = read(tmp_path, write(SENTENCES, scheme, columns))
    assert [(example.text, example.spans) for example in found] == list(zip(TEXTS, SPANS, strict=True))


@st.composite
def iob2(draw: st.DrawFn) -> list[str]:
    tags = []
    for label, length in draw(st.lists(st.tuples(st.sampled_from(["O", "PER", "LOC"]), st.integers(1, 4)), max_size=8)):
        tags += ["O"] * length if label == "O" else [f"B-{label}", *[f"I-{label}"] * (length - 1)]
    return tags


@given(iob2(), st.sampled_from(["iob1", "iob2", "bilou", "bioes"]))
def test_tags_of_every_scheme_come_back(tags: list[str], scheme: str) -> None:
    written = in_scheme(tags, scheme)
    assert to_iob2(written, find_scheme(written)) == tags


@given(st.lists(st.sampled_from(["O", "B-x", "I-x", "L-x", "U-x", "B-y", "I-y", "L-y", "U-y"]), min_size=1, max_size=6))
def test_bilou_tags_are_read_only_where_they_are_whole(tags: list[str]) -> None:
    """What is accepted, written again in BILOU, is what was read."""
    try:
        found = to_iob2(tags, Scheme.BILOU)
    except TagError as error:
        position, found = error.position, []
    else:
        position, found = 0, in_scheme(found, "bilou")
    assert found in ([], tags)
    assert 0 <= position < len(tags)


def test_columns_are_chosen_by_number(tmp_path: Path) -> None:
    content = write(SENTENCES, "iob2", "7 {token} {tag} NNP")
    assert [e.spans for e in read(tmp_path, content, columns={"tokens": 2, "tags": 3})] == SPANS


def test_documents_are_numbered_and_their_boundaries_are_no_rows(tmp_path: Path) -> None:
    boundary = "-DOCSTART- O\n\n"
    content = boundary + write(SENTENCES[:2], "iob2") + "\n" + boundary + write(SENTENCES[2:], "iob2")
    found = read(tmp_path, content)
    assert [example.spans for example in found] == SPANS
    assert [example.meta["document"] for example in found] == [1, 1, 2]
    assert len(read(tmp_path, content, unless={"document": [1]})) == 1


def test_comments_in_front_of_a_sentence_are_skipped_and_a_token_of_that_form_is_kept(tmp_path: Path) -> None:
    content = "# id 12 domain=en\nEU _ _ B-ORG\n# _ _ O\n\n# id 13 domain=en\n# _ _ O\n1 _ _ O\n"
    assert [example.text for example in read(tmp_path, content)] == ["EU #", "# 1"]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_white_space_that_belongs_to_a_token_stays_in_it(tmp_path: Path, end: str) -> None:
    content = f"10\u00a0000 B-SUM{end}EUR I-SUM{end}{end}{end}a\u2028b O"
    found = read(tmp_path, content)
    assert [(example.text, example.spans) for example in found] == [
        ("10\u00a0000 EUR", (Span(0, 10, "SUM"),)),
        ("a\u2028b", ()),
    ]


IOB = write(SENTENCES, "iob2")
BILOU = write(SENTENCES, "bilou")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "x.conll: no rows"),
        ("-DOCSTART- O\n\n", "x.conll: no rows"),
        ("EU\n", "x.conll:1: expected a token and its tag, found 'EU' alone"),
        (IOB.replace("met O", "met"), "x.conll:9: expected 2 columns as in the first row, found 1"),
        (IOB.replace("met O", "met VB O"), "x.conll:9: expected 2 columns as in the first row, found 3"),
        (IOB.replace("met O", "met 0"), "x.conll:9: tag '0' is not BIO (O, B-x or I-x)"),
        (IOB.replace("met O", "met B-"), "x.conll:9: tag 'B-' is not BIO"),
        (IOB.replace("met O", "met PER"), "x.conll:9: tag 'PER' is not BIO"),
        (BILOU.replace("met O", "met X-a"), "x.conll:9: tag 'X-a' is not BILOU (O, B-x, I-x, L-x or U-x)"),
        (
            BILOU.replace("Blackburn L-PER", "Blackburn O"),
            "x.conll:8: expected I-PER or L-PER behind 'B-PER', found 'O'",
        ),
        (BILOU.replace("Peter B-PER", "Peter O"), "x.conll:8: tag 'L-PER' continues a span that no B-PER opens"),
        (
            BILOU.replace("City L-LOC", "City I-LOC"),
            "x.conll:12: expected I-LOC or L-LOC behind 'I-LOC', found the end",
        ),
        ("EU\tX\tO\n\tX\tO\n", "x.conll:2: the token is empty (column 1)"),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, content: str, message: str) -> None:
    assert refusal(tmp_path, content).startswith(message)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"tags": 3}, "columns.tags is 3; expected a number from 1 to 2"),
        ({"tokens": 0}, "columns.tokens is 0; expected a number from 1 to 2"),
        ({"tags": "ner"}, "columns.tags is 'ner'; expected a number from 1 on"),
        ({"tags": 1}, "expected a column of tokens and one of tags, found column 1 for both"),
    ],
)
def test_a_column_that_is_not_there_is_named(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    assert refusal(tmp_path, IOB, columns=columns).startswith(f"x.conll:1: {message}")


def test_tags_of_json_lines_may_be_bilou_too(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"tokens": ["New", "York", "Rome"], "tags": ["B-p", "L-p", "U-p"]}\n')
    task = Task.model_validate({"kind": "tagging", "train": "x.jsonl"})
    (found,) = read_part(task.train, task, tmp_path, seed=1)
    assert found.spans == (Span(0, 8, "p"), Span(9, 13, "p"))
