"""What the demo draws."""

import io

import pytest
from rich.console import Console

from murmura.runtime.testing.fakes import abstained, classified, tagged
from murmura.scenarios.stage.desk import Desk
from murmura.scenarios.stage.screen import Facts, Now, order_tasks, plain_line, screen
from murmura.schemas.manifest import TaskSpec

INTENT = TaskSpec(name="intent", kind="classification", labels=[f"label_{n}" for n in range(77)])
SENTIMENT = TaskSpec(name="sentiment", kind="classification", labels=["negative", "neutral", "positive"])
ENTITIES = TaskSpec(name="entities", kind="tagging", labels=["O", "B-amount", "I-amount"])
FACTS = Facts("desk version 3", "cpu", "http://127.0.0.1:9464", order_tasks([ENTITIES, SENTIMENT, INTENT]))
TEXT = "you took £20 twice"


def busy_desk() -> Desk:
    desk = Desk(frozenset({"a"}))
    desk.add_message((0, 0), TEXT, 0.0)
    outputs = {"intent": classified("fee", 0.93), "sentiment": classified("negative", 0.81)}
    desk.add_result((0, 0), "a", outputs | {"entities": tagged(TEXT, amount="£20")}, 0.012)
    desk.add_message((0, 1), "who won the match?", 0.0, typed=True)
    outputs = {"intent": abstained("fee", 0.4), "sentiment": abstained("other", 0.9, "out_of_scope")}
    desk.add_result((0, 1), "a", outputs | {"entities": tagged("x")}, 0.5)
    desk.add_message((0, 2), '{"text": \x1b[2J', 0.0)
    desk.add_dead_letter((0, 2), "not_json", 0.003)
    desk.add_message((0, 3), "nobody answered yet", 0.0)
    return desk


def drawn(width: int, height: int, desk: Desk | None = None, typed: str | None = "", talk=None) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=False)
    console.print(screen(FACTS, desk or busy_desk(), talk, Now(5.9, 1.6, typed), width, height))
    return console.file.getvalue().rstrip("\n").split("\n")


@pytest.mark.parametrize(("width", "height"), [(80, 24), (100, 30), (160, 45), (60, 12)])
def test_the_screen_fits_exactly_whatever_its_size(width, height):
    lines = drawn(width, height)
    assert len(lines) == height
    assert max(map(len, lines)) <= width


def test_columns_go_from_the_finest_labels_to_the_spans():
    assert [task.name for task in FACTS.tasks] == ["intent", "sentiment", "entities"]


def test_answers_abstentions_dead_letters_and_waiting_are_shown():
    text = "\n".join(drawn(140, 20))
    assert "0.93 fee" in text
    assert "0.81 negative" in text
    assert "£20 amount" in text
    assert "0.40 ? fee" in text
    assert "off topic" in text
    assert "not_json" in text
    assert "› who won the match?" in text
    assert "…" in text
    assert "\x1b" not in text


@pytest.mark.parametrize("task", ["intent", "sentiment"])
def test_an_answer_below_its_threshold_has_a_question_mark_in_every_column(task: str) -> None:
    desk = Desk(frozenset({"a"}))
    desk.add_message((0, 0), TEXT, 0.0)
    outputs = {"intent": classified("fee", 0.93), "sentiment": classified("negative", 0.81), "entities": tagged(TEXT)}
    desk.add_result((0, 0), "a", outputs | {task: abstained("label_7", 0.41)}, 0.012)
    assert "0.41 ? label_7" in "\n".join(drawn(140, 20, desk))
    assert f"{task} ? below_threshold 0.41" in plain_line(desk.messages[0], FACTS.tasks)


def test_the_footer_has_the_figures_and_the_addresses():
    text = "\n".join(drawn(120, 20))
    assert "5.9 messages/s   1.6 texts a batch" in text
    assert "2 answered   1 dead letter   1 open" in text
    assert "http://127.0.0.1:9464/metrics" in text
    assert "murmura serve --bootstrap" in text


def test_what_is_typed_is_echoed_by_its_end_when_it_is_long():
    assert drawn(80, 20, typed="hello")[-1] == "› hello█"
    assert drawn(80, 20, typed="x" * 200 + "end")[-1].endswith("end█")
    assert "Ctrl-C ends" in drawn(80, 20, typed=None)[-1]


def test_the_latest_messages_are_shown_when_there_is_no_room_for_all():
    desk = Desk(frozenset({"a"}))
    for number in range(100):
        desk.add_message((0, number), f"message {number}.", 0.0)
    text = "\n".join(drawn(100, 20, desk))
    assert "message 99." in text
    assert "message 10." not in text


def test_without_a_terminal_a_message_is_a_line():
    first, second, third, _ = busy_desk().messages
    assert (
        plain_line(first, FACTS.tasks)
        == f"{TEXT} | intent fee 0.93; sentiment negative 0.81; entities £20 (amount) | 12 ms"
    )
    assert "intent ? below_threshold 0.40" in plain_line(second, FACTS.tasks)
    assert plain_line(third, FACTS.tasks) == '{"text":  [2J | dead letter: not_json | 3 ms'
