"""The learning demo's exams: what counts as right, and what lies in the files."""

from collections import Counter
from pathlib import Path

import pytest

from murmura.runtime.errors import SetupError
from murmura.runtime.testing.fakes import abstained, classified, tagged
from murmura.scenarios.stage.desk import Message
from murmura.scenarios.stage.exam import Paper, read_papers, read_rows
from murmura.scenarios.support.place import LEARN, MODEL
from murmura.scenarios.support.questions import SOURCES

CORRECTIONS = LEARN / "product-corrections.jsonl"


def answered(**outputs) -> Message:
    return Message("text", False, 0.0, outputs=outputs)


def test_a_label_is_right_when_it_was_given_not_when_it_was_withheld():
    paper = Paper("intent", "x", {"a": "loan", "b": "loan", "c": "loan"})
    messages = {
        "a": answered(intent=classified("loan", 0.9)),
        "b": answered(intent=abstained("loan", 0.2)),
        "c": answered(intent=classified("fee", 0.9)),
    }
    assert paper.score(messages) == 1 / 3


def test_out_of_scope_is_an_answer():
    paper = Paper("queue", "x", {"a": "out_of_scope"})
    assert paper.score({"a": answered(queue=abstained("cards", 0.9, "out_of_scope"))}) == 1


def test_spans_are_scored_by_f1():
    text = "£20 to Ann"
    right = frozenset({(0, 3, "amount"), (7, 10, "person")})
    paper = Paper("entities", "x", {text: right})
    assert paper.score({text: answered(entities=tagged(text, amount="£20"))}) == pytest.approx(2 / 3)


def test_a_message_without_an_answer_is_wrong():
    assert Paper("intent", "x", {"a": "loan"}).score({"a": answered()}) == 0


def test_a_part_of_a_paper_has_one_of_so_many_of_its_questions():
    part = Paper("intent", "x", dict.fromkeys("abcde", "loan")).take_part(2)
    assert (part.task, part.name, part.answers) == ("intent", "x", dict.fromkeys("ace", "loan"))


def test_no_message_that_is_asked_is_one_that_is_learned_from():
    learned = {plain(row["text"]) for row in read_rows(CORRECTIONS)}
    for paper in read_papers(SOURCES):
        assert not learned & {plain(text) for text in paper.answers}, paper


def test_the_new_product_has_as_many_messages_of_each_intent():
    given = Counter(row["intent"] for row in read_rows(CORRECTIONS))
    asked = Counter(read_papers(SOURCES)[0].answers.values())
    assert given.keys() == asked.keys()
    assert set(given.values()) == {60}
    assert set(asked.values()) == {18}


def test_spans_lie_in_their_texts_and_start_and_end_at_words():
    for row in read_rows(LEARN / "desk-entities.jsonl"):
        for slot in row["slots"]:
            text = row["text"][slot["start"] : slot["end"]]
            assert text.strip() == text
            assert text


def test_every_answer_is_one_that_the_models_to_come_can_give():
    from murmura.runtime.model.folders.folder import read_manifest

    tasks = {task.name: set(task.labels) for task in read_manifest(MODEL).tasks}
    new = set(read_papers(SOURCES)[0].answers.values()) | {"loans", "out_of_scope"}
    for paper in read_papers(SOURCES):
        for right in paper.answers.values():
            named = {right} if isinstance(right, str) else {f"B-{label}" for _, _, label in right}
            assert named <= tasks[paper.task] | new, (paper.task, named)


def test_a_set_is_named_for_the_gate_as_it_is_read_here():
    by_field, by_label = SOURCES[0].as_report(), SOURCES[1].as_report()
    assert by_field["columns"] == {"label": "intent"}
    assert by_label == {"rows": [{"path": str(SOURCES[1].file), "label": "loans"}]}


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path):
    with pytest.raises(SetupError, match=r"none\.jsonl: cannot read the demo's messages"):
        read_rows(tmp_path / "none.jsonl")


def plain(text: str) -> str:
    return "".join(c for c in text.lower() if c.isalnum())
