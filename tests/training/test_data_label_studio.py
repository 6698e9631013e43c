"""Exports of Label Studio as it writes them; what cannot be meant is one line with the task."""

import json
from pathlib import Path
from typing import Any

import pytest
from written_data import read_all, refusal

from murmura.training.data.counts import RowLeftOut
from murmura.training.data.example import Span

TEXT = "I lost my card in Rome \U0001f62d and Paris"
"""The emoji is one code point and two UTF-16 units."""


def result(kind: str, name: str, **value: Any) -> dict[str, Any]:
    return {"id": "Dx1", "from_name": name, "to_name": "text", "type": kind, "origin": "manual", "value": value}


def place(start: int, end: int, text: str | None, label: Any = "place") -> dict[str, Any]:
    carried = {} if text is None else {"text": text}
    return result(
        "labels", "label", start=start, end=end, labels=[label] if isinstance(label, str) else label, **carried
    )


def task(*annotations: dict[str, Any], number: int = 1, text: str = TEXT) -> dict[str, Any]:
    return {
        "id": number,
        "annotations": list(annotations),
        "drafts": [],
        "predictions": [{"result": [place(0, 1, "I", "guess")]}],
        "data": {"text": text, "channel": "app"},
        "meta": {},
        "created_at": "2024-03-05T10:00:00.000000Z",
        "inner_id": 1,
        "total_annotations": len(annotations),
        "cancelled_annotations": 0,
        "project": 3,
    }


def annotation(*results: dict[str, Any], **keys: Any) -> dict[str, Any]:
    return {
        "id": 7,
        "completed_by": 1,
        "result": list(results),
        "was_cancelled": False,
        "ground_truth": False,
        "lead_time": 8.4,
        **keys,
    }


def studio(*tasks: dict[str, Any]) -> str:
    return json.dumps(list(tasks), ensure_ascii=False)


ROME, PARIS = place(18, 22, "Rome"), place(30, 35, "Paris")
"""As a browser counts: `Paris` stands behind the emoji, so at 29 in code points."""
FOUND = (Span(18, 22, "place"), Span(29, 34, "place"))
STUDIO = {"format": "label_studio"}


def test_spans_of_label_studio_are_read_in_code_points(tmp_path: Path) -> None:
    assert TEXT[29:34] == "Paris"
    (found,), _ = read_all(tmp_path, studio(task(annotation(PARIS, ROME))), kind="tagging", **STUDIO)
    assert (found.text, found.spans, found.meta["channel"]) == (TEXT, FOUND, "app")


def test_spans_that_a_program_wrote_in_code_points_are_read_too(tmp_path: Path) -> None:
    found, _ = read_all(tmp_path, studio(task(annotation(ROME, place(29, 34, "Paris")))), kind="tagging", **STUDIO)
    assert found[0].spans == FOUND


@pytest.mark.parametrize(
    ("span", "message"),
    [
        (place(18, 22, "Roma"), "span 18..22 is 'Rome' in the text, the export says 'Roma'"),
        (place(30, 35, None), "span 30..35 is at or behind a character of two UTF-16 units and carries no text"),
        (place(18, 22, "Rome", []), "expected one label for a span, found '[]'"),
        (place(18, 22, "Rome", ["a", "b"]), "expected one label for a span, found \"['a', 'b']\""),
        (place(18, 22, "Rome", [None]), "expected one label for a span, found 'None'"),
        (result("labels", "label", start="18", end=22, labels=["p"]), "expected a whole number from 0 on"),
        (result("labels", "label", end=22, labels=["p"]), "expected a whole number from 0 on"),
        (result("labels", "label", start=-3, end=22, labels=["p"]), "expected a whole number from 0 on"),
        (result("labels", "label", start=0, end=900, labels=["p"]), "span 0..900"),
        (
            result("hypertextlabels", "label", start="/p[1]", hypertextlabels=["p"]),
            "'label' is of type 'hypertextlabels'",
        ),
        (result("choices", "mood", start=0, end=3, choices=["p"]), "the choices of 'mood' belong to spans"),
        ({**ROME, "value": None}, "value should be an object, found NoneType"),
        (["labels"], "an item of result should be an object, found list"),
    ],
)
def test_a_span_that_cannot_be_meant_is_refused_with_its_task(tmp_path: Path, span: Any, message: str) -> None:
    content = "[\n" + json.dumps(task(annotation(ROME))) + ",\n" + json.dumps(task(annotation(span), number=2)) + "\n]"
    found = refusal(tmp_path, content, kind="tagging", **STUDIO)
    assert found.startswith(f"x.json:3 (item 2): {message}")


def choice(*labels: str, name: str = "mood") -> dict[str, Any]:
    return result("choices", name, choices=list(labels))


def test_choices_of_the_only_control_are_the_labels(tmp_path: Path) -> None:
    content = studio(task(annotation(choice("sad"))), task(annotation(choice("glad")), number=2))
    found, _ = read_all(tmp_path, content, **STUDIO)
    assert [example.labels for example in found] == [("sad",), ("glad",)]


def test_several_choices_are_several_labels_and_none_are_none(tmp_path: Path) -> None:
    content = studio(task(annotation(choice("b", "a"))), task(annotation(), number=2))
    found, _ = read_all(tmp_path, content, kind="multi_label", **STUDIO)
    assert [example.labels for example in found] == [("a", "b"), ()]


def test_of_several_controls_the_recipe_names_one(tmp_path: Path) -> None:
    content = studio(
        task(annotation(choice("sad"), choice("cards", name="topic"), ROME)),
        task(annotation(choice("travel", name="topic")), number=2),
    )
    found, _ = read_all(tmp_path, content, columns={"label": "topic"}, **STUDIO)
    assert [example.labels for example in found] == [("cards",), ("travel",)]
    assert "column 'label' is missing; found text, channel, mood, topic" in refusal(
        tmp_path, content.replace('"from_name": "label"', '"from_name": "places"'), **STUDIO
    )
    # The second task has no mood: it is not given the answer of another control instead.
    assert "expected one label, found 0" in refusal(tmp_path, content, columns={"label": "mood"}, **STUDIO)
    spans, _ = read_all(tmp_path, content, kind="tagging", **STUDIO)
    assert [example.spans for example in spans] == [FOUND[:1], ()]


def test_tasks_that_nobody_annotated_are_left_out_and_counted(tmp_path: Path) -> None:
    content = studio(task(annotation(ROME)), task(number=2), task(annotation(PARIS, was_cancelled=True), number=3))
    found, counts = read_all(tmp_path, content, kind="tagging", **STUDIO)
    assert len(found) == 1
    assert counts.rows_left_out == {RowLeftOut.NOT_ANNOTATED: 2}
    assert refusal(tmp_path, studio(task()), kind="tagging", **STUDIO) == (
        "x.json: no rows: 1 row left out that nobody annotated"
    )


def test_annotators_that_agree_are_one_and_that_disagree_are_refused_without_a_ground_truth(tmp_path: Path) -> None:
    agree = annotation(PARIS, ROME), annotation(ROME, PARIS)
    assert read_all(tmp_path, studio(task(*agree)), kind="tagging", **STUDIO)[0][0].spans == FOUND
    disagree = annotation(PARIS, ROME), annotation(ROME)
    assert "annotators disagree about this task" in refusal(tmp_path, studio(task(*disagree)), kind="tagging", **STUDIO)
    true = annotation(PARIS, ROME, ground_truth=True), annotation(ROME)
    assert read_all(tmp_path, studio(task(*true)), kind="tagging", **STUDIO)[0][0].spans == FOUND


def test_an_old_export_calls_annotations_completions(tmp_path: Path) -> None:
    old = task(annotation(ROME))
    old["completions"] = old.pop("annotations")
    assert read_all(tmp_path, studio(old), kind="tagging", **STUDIO)[0][0].spans == FOUND[:1]


def minimal(number: int, annotator: int = 1, **answers: Any) -> dict[str, Any]:
    about = {"annotator": annotator, "annotation_id": number, "created_at": "2024-03-05T10:00:00Z", "lead_time": 3.1}
    return {"text": TEXT, "id": number, **answers, **about}


def test_the_short_export_has_one_row_for_each_annotation(tmp_path: Path) -> None:
    spans = [{"start": 30, "end": 35, "text": "Paris", "labels": ["place"]}]
    content = studio(minimal(1, label=spans), minimal(2))
    found, _ = read_all(tmp_path, content, kind="tagging", **STUDIO)
    assert [example.spans for example in found] == [FOUND[1:], ()]
    content = studio(minimal(1, mood="sad"), minimal(2, mood="glad"))
    found, _ = read_all(tmp_path, content, columns={"label": "mood"}, **STUDIO)
    assert [example.labels for example in found] == [("sad",), ("glad",)]
    content = studio(minimal(1, topics="cards"), minimal(2, topics={"choices": ["travel", "cards"]}), minimal(3))
    found, _ = read_all(tmp_path, content, kind="multi_label", columns={"label": "topics"}, **STUDIO)
    assert [example.labels for example in found] == [("cards",), ("cards", "travel"), ()]


def test_repetitions_in_the_short_export_are_left_out_and_contradictions_refused(tmp_path: Path) -> None:
    content = studio(minimal(1, mood="sad"), minimal(1, 2, mood="sad"))
    found, counts = read_all(tmp_path, content, columns={"label": "mood"}, **STUDIO)
    assert len(found) == 1
    assert counts.rows_left_out == {RowLeftOut.REPEATED: 1}
    content = studio(minimal(1, mood="sad"), minimal(1, 2, mood="glad"))
    assert "annotators disagree" in refusal(tmp_path, content, columns={"label": "mood"}, **STUDIO)
