"""Exports of doccano and spaCy in each of their forms; damaged ones are one line with the place."""

import json
from pathlib import Path
from typing import Any

import pytest
from written_data import read_all, refusal

from murmura.training.data.example import Span

TEXT = "I lost my card in Rome \U0001f62d and Paris"
FOUND = (Span(18, 22, "place"), Span(29, 34, "place"))


# doccano

DOCCANO: dict[str, Any] = {"format": "doccano", "name": "x.jsonl"}


def lines(*items: Any) -> str:
    return "".join(json.dumps(item) + "\n" for item in items)


def entity(start: Any, end: Any, label: Any) -> dict[str, Any]:
    return {"id": 9, "label": label, "start_offset": start, "end_offset": end}


@pytest.mark.parametrize(
    "annotated",
    [
        {"label": [[18, 22, "place"], [29, 34, "place"]], "Comments": []},
        {"labels": [[18, 22, "place"], [29, 34, "place"]]},
        {"entities": [entity(18, 22, "place"), entity(29, 34, "place")], "relations": [], "Comments": []},
        {"cats": ["lost"], "entities": [[18, 22, "place"], [29, 34, "place"]]},
    ],
)
def test_spans_of_doccano_are_triples_or_objects(tmp_path: Path, annotated: dict[str, Any]) -> None:
    content = lines({"id": 1, "text": TEXT, **annotated}, {"id": 2, "text": "none here", **{k: [] for k in annotated}})
    found, _ = read_all(tmp_path, content, kind="tagging", **DOCCANO)
    assert [example.spans for example in found] == [FOUND, ()]


def test_labels_of_doccano_are_a_list(tmp_path: Path) -> None:
    content = lines({"id": 1, "text": "one", "label": ["b", "a"]}, {"id": 2, "text": "two", "label": []})
    found, _ = read_all(tmp_path, content, kind="multi_label", **DOCCANO)
    assert [example.labels for example in found] == [("a", "b"), ()]
    array = json.dumps([{"id": 1, "text": "one", "label": ["a"]}])
    assert read_all(tmp_path, array, format="doccano")[0][0].labels == ("a",)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"text": "abc", "annotations": [{"label": 3, "start_offset": 0, "end_offset": 1}]},
            "'annotations' names labels by",
        ),
        ({"text": "abc"}, "expected 'label' or 'entities', as doccano writes them; found text"),
        ({"text": "abc", "label": [[0, 2]]}, "expected a span as [start, end, label], found '[0, 2]'"),
        ({"text": "abc", "label": [[0, 2, 7]]}, "expected one label for a span, found '7'"),
        (
            {"text": "abc", "label": [["0", 2, "x"]]},
            "expected a whole number from 0 on as the offset of a span, found '0'",
        ),
        ({"text": "abc", "label": [[0, 9, "x"]]}, "span 0..9 does not lie in a text of 3 characters"),
        ({"text": "abc", "label": [[0, 1, "x"], "y"]}, "expected a span as [start, end, label], found 'y'"),
        ({"text": "abc", "entities": [{"label": "x"}]}, "an entity needs start_offset, end_offset, label; found label"),
        ({"text": "abc", "entities": {}}, "entities should be a list, found dict"),
        ({"text": "abc", "label": 3}, "label should be a list, found int"),
        ({"text": "abc", "label": [3]}, "label should be a list of labels or of [start, end, label], found '3'"),
        ({"text": "abc", "label": ["x"]}, "column 'spans' is missing; found text, label"),
    ],
)
def test_a_mistake_in_doccanos_lines_is_named(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    content = lines({"text": "ok", "label": [[0, 1, "x"]]}, row)
    assert refusal(tmp_path, content, kind="tagging", **DOCCANO).startswith(f"x.jsonl:2: {message}")


# spaCy

WORDS = ["I", "lost", "my", "card", "in", "New", "York", "."]
ENTITIES = [[18, 26, "place"]]
RAW = "I lost my card in New York."
SPACY: dict[str, Any] = {"format": "spacy"}


def tokens(tags: list[str | None]) -> list[dict[str, Any]]:
    made = [
        {"id": number, "orth": word, "space": "" if number > 5 else " ", "dep": "", "head": 0, "tag": "-"}
        for number, word in enumerate(WORDS)
    ]
    return [token | ({} if tag is None else {"ner": tag}) for token, tag in zip(made, tags, strict=True)]


BILUO: list[str | None] = ["O", "O", "O", "O", "O", "B-place", "L-place", "O"]


def paragraph(tags: list[str | None] = BILUO, **keys: Any) -> dict[str, Any]:
    return {"raw": RAW, "sentences": [{"tokens": tokens(tags), "brackets": []}], "cats": [], **keys}


def training(*paragraphs: dict[str, Any]) -> str:
    return json.dumps([{"id": 0, "paragraphs": list(paragraphs)}])


@pytest.mark.parametrize(
    "content",
    [
        training(paragraph()),
        training(paragraph(entities=ENTITIES, links=[])),
        training(paragraph([None] * 8, entities=ENTITIES)),
        training(paragraph(entities=[])),
        json.dumps([[RAW, {"entities": ENTITIES}]]),
        lines([RAW, {"entities": ENTITIES}]),
        lines({"text": RAW, "ents": [{"start": 18, "end": 26, "label": "place"}], "cats": {}, "tokens": []}),
    ],
)
def test_entities_of_spacy_are_read_in_each_of_its_forms(tmp_path: Path, content: str) -> None:
    (found,), _ = read_all(tmp_path, content, kind="tagging", **SPACY)
    assert (found.text, found.spans) == (RAW, (Span(18, 26, "place"),))


def test_tokens_without_a_text_are_joined_by_blanks(tmp_path: Path) -> None:
    (found,), _ = read_all(tmp_path, training(paragraph(raw=None)), kind="tagging", **SPACY)
    assert (found.text, found.spans) == (" ".join(WORDS), (Span(18, 26, "place"),))


@pytest.mark.parametrize(
    "content",
    [
        training(paragraph([None] * 8, cats=[{"label": "lost", "value": 1.0}, {"label": "joke", "value": 0.0}])),
        json.dumps([[RAW, {"cats": {"lost": 1, "joke": 0}}]]),
        lines({"text": RAW, "ents": [], "cats": {"lost": True, "joke": False}}),
    ],
)
def test_categories_of_spacy_are_labels(tmp_path: Path, content: str) -> None:
    assert read_all(tmp_path, content, **SPACY)[0][0].labels == ("lost",)


def with_tag(position: int, tag: str | None) -> list[str | None]:
    return [*BILUO[:position], tag, *BILUO[position + 1 :]]


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (
            {"paragraphs": [paragraph(), paragraph(with_tag(6, "O"))]},
            "paragraph 2: token 7: expected I-place or L-place",
        ),
        ({"paragraphs": [paragraph(with_tag(1, "-"))]}, "paragraph 1: token 2 has no tag (ner: '-'), but others have"),
        (
            {"paragraphs": [paragraph(raw="I lost it")]},
            "paragraph 1: token 'my' does not follow at character 6 of the text",
        ),
        ({"paragraphs": [paragraph(raw=7)]}, "paragraph 1: expected a text in 'raw' or tokens"),
        ({"paragraphs": [{"raw": None, "sentences": []}]}, "paragraph 1: expected a text in 'raw' or tokens"),
        ({"paragraphs": {}}, "paragraphs should be a list, found dict"),
        ({"paragraphs": [{"raw": RAW, "sentences": [{}]}]}, "paragraph 1: tokens should be a list, found NoneType"),
        ([RAW], "expected [text, annotations], found a list of 1"),
        ([RAW, {"entities": [[0, 5]]}], "expected a span as [start, end, label]"),
        ([RAW, {"entities": [[0, 500, "x"]]}], "span 0..500 does not lie in a text of 27 characters"),
        ([RAW, {"cats": {"x": 0.4}}], "expected 1 or 0 for each label of cats, found '0.4' for 'x'"),
        ([RAW, {"cats": {"x": [1]}}], "expected 1 or 0 for each label of cats, found '[1]' for 'x'"),
        ({"text": RAW, "ents": [{"start": 0}]}, "an item of ents needs start, end, label; found start"),
        ({"data": 1}, "expected an object with 'paragraphs' (spaCy's training format) or 'text'"),
        (7, "expected an object with 'paragraphs' (spaCy's training format) or 'text'"),
    ],
)
def test_a_mistake_in_spacys_data_is_named(tmp_path: Path, item: Any, message: str) -> None:
    found = refusal(tmp_path, json.dumps([[RAW, {"entities": ENTITIES}], item]), kind="tagging", **SPACY)
    assert (
        found.replace(" (item 2), paragraph", ": paragraph").replace(" (item 2)", "").startswith(f"x.json:1: {message}")
    )


@pytest.mark.parametrize(
    "content",
    [
        lines({"text": "lost", "cats": {"a": 1}, "talk": 7, "meta": {"by": "x"}, "tokens": [], "sents": []}),
        lines(["lost", {"cats": {"a": 1}, "talk": 7, "meta": {"by": "x"}, "words": ["lost"], "heads": [0]}]),
        json.dumps([{"id": 0, "talk": 7, "paragraphs": [{"raw": "lost", "cats": {"a": 1}, "meta": {"by": "x"}}]}]),
    ],
)
def test_other_columns_of_spacys_data_are_kept_to_select_and_group_rows_by(tmp_path: Path, content: str) -> None:
    (found,), _ = read_all(tmp_path, content, where={"talk": [7]}, **SPACY)
    assert {"talk": 7, "meta": {"by": "x"}}.items() <= {**found.meta}.items()
    assert not {"text", "raw", "cats", "words", "heads", "tokens", "sents", "paragraphs"} & {*found.meta}
