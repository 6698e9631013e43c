"""The live flow: which answers are shown, how texts are marked, when it stands still, and correcting an answer."""

import asyncio
import json
import time
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from screens_by_hand import ByHand, reply, result
from starlette.testclient import TestClient

from murmura.console.live import screen as live_screen
from murmura.console.live.answers import Answer, Marked, Scored, mark_spans, read_answers
from murmura.console.live.drawn import DrawnAnswers
from murmura.console.live.index import LiveFilters, LiveIndex
from murmura.console.review.item import item_key

NOW = 1_700_000_000


def browse(made: ByHand) -> TestClient:
    return TestClient(
        made.application,
        base_url="http://127.0.0.1:9480",
        client=("127.0.0.1", 50_000),
        headers={"sec-fetch-site": "same-origin"},
        follow_redirects=False,
    )


def review_drawn_of(number: int) -> SimpleNamespace:
    """A record that asks about an answer that was drawn at random."""
    review = {
        "prediction_id": f"{number:032x}",
        "agent": "desk",
        "task": "intent",
        "why": "random",
        "model": {"name": "desk", "version": 2},
        "source": {"topic": "in", "partition": 0, "offset": 0, "timestamp": 1},
        "sampling_rate": 0.1,
        "at": "2026-01-02T00:00:00Z",
    }
    return SimpleNamespace(value=json.dumps(review).encode())


def test_answers_of_every_form_are_read_and_those_of_strangers_have_no_labels():
    outputs = {
        "a": {"label": "x", "score": 0.5},
        "b": {
            "label": None,
            "abstained": True,
            "reason": "out_of_scope",
            "alternatives": [{"label": "y", "score": 0.2}],
        },
        "c": {"labels": [{"label": "p", "score": 0.9}, {"label": 3}]},
        "d": {"spans": [{"label": "city", "start": 3, "end": 7, "score": 1}, {"label": "z", "start": 5, "end": 9}]},
        "e": {"text": "hi", "score": 0.7},
        "f": {"label": ["?"], "score": "high"},
        "g": 3,
    }
    assert read_answers(outputs) == [
        Answer("a", (Scored("x", 0.5),)),
        Answer("b", (Scored("y", 0.2),), withheld="out of scope"),
        Answer("c", (Scored("p", 0.9),)),
        Answer("d", (Scored("city", 1.0), Scored("z")), spans=((3, 7, "city"),)),
        Answer("e", (Scored("", 0.7),), text="hi"),
        Answer("f", ()),
    ]


def test_spans_are_marked_in_code_points_and_one_behind_the_shown_text_is_not():
    answer = Answer("d", (), spans=((2, 6, "city"), (90, 95, "day")))
    assert mark_spans("😀 Rome!", [answer], 100) == [Marked("😀 "), Marked("Rome", "city"), Marked("!")]
    assert mark_spans("😀 Ro… (4 more characters)", [answer], 4) == [Marked("😀 Ro… (4 more characters)")]


def test_a_filter_is_about_one_answer_and_the_newest_come_first():
    index = LiveIndex()
    labelled = {"intent": {"label": "loan", "score": 0.4}, "mood": {"label": "good", "score": 0.9}}
    index.take([result(0, NOW * 1000), result(1, NOW * 1000, labelled), result(2, NOW * 1000, agent="other")])

    def find(**filters) -> list[int]:
        return [each.source.offset for each in index.find(LiveFilters(**filters), 10)]

    assert find() == [2, 1, 0]
    assert find(agent="desk") == [1, 0]
    assert (find(label="loan"), find(label="loan", least=0.5), find(most=0.5)) == ([1], [], [1])
    assert (find(version="desk 2"), find(version="desk 3")) == ([2, 1, 0], [])
    assert [each.source.offset for each in index.find(LiveFilters(), 10, until=2)] == [1, 0]
    index.take([result(0, NOW * 1000)])  # delivered again
    assert find() == [0, 2, 1]


def test_the_index_is_bounded_and_leaves_out_what_is_no_result():
    index = LiveIndex(most=3)
    broken = result(9, NOW * 1000, source={"topic": 1})
    index.take([*(result(number, NOW * 1000) for number in range(5)), broken])
    assert [each.source.offset for each in index.find(LiveFilters(), 10)] == [4, 3, 2]
    assert (index.rate(NOW + 1), index.rate(NOW + 60)) == (0.5, 0)


def test_times_and_names_that_no_program_of_ours_writes_do_not_break_the_page():
    made, now = ByHand(["text"] * 50), int(time.time() * 1000)
    made.take(
        *(result(number, (now + 3_600_000 + 1000 * number) * 1_000_000) for number in range(45))
    )  # in nanoseconds
    made.take(result(45, now, {"t" * 900: {"label": "l" * 90_000}}, status="s" * 9000), result(46, now - 86_400_000))
    page = browse(made).get("/live")
    assert page.status_code == 200
    assert "no possible time" in page.text
    assert f"{datetime.fromtimestamp(now / 1000 - 86_400, UTC):%Y-%m-%d}" in page.text
    assert "Paused" not in page.text
    assert len(page.text) < 60_000
    assert made.live.rate(now / 1000) == 0.1


async def test_the_answers_to_one_request_are_waited_for():
    index = LiveIndex()
    found = index.expect("r-1")
    index.take([result(0, NOW * 1000), result(1, NOW * 1000)])
    await index.wait_for("r-1", ["desk"])
    assert [each.request_id for each in found] == ["r-1"]
    index.forget("r-1")


def test_texts_are_shown_as_text_with_their_spans_and_read_once():
    made = ByHand(["to Rome <b>now</b>", "mail a@b.example", "third"], console={"masked": ["email"]})
    browser = browse(made.fill(int(time.time() * 1000)))
    page = browser.get("/live").text
    assert "<mark>Rome" in page
    assert "&lt;b&gt;now" in page
    assert "a@b.example" not in page
    assert "withheld, below threshold" in page
    assert "desk 3" in page
    browser.get("/live?label=refund")
    assert made.requests.reads == 1
    assert "<mark>" not in browser.get("/live?version=desk+3&least=0.5").text
    assert browser.get("/live?least=7").status_code == 400


def test_a_page_does_not_wait_for_texts_that_are_read_slowly(monkeypatch):
    made = ByHand(["text"])
    made.take(result(0, int(time.time() * 1000)))
    monkeypatch.setattr(live_screen, "PATIENCE_S", 0.0)
    find = made.requests.find_requests

    async def find_slowly(sources):
        await asyncio.sleep(0.1)
        return await find(sources)

    monkeypatch.setattr(made.requests, "find_requests", find_slowly)
    assert "not read yet" in browse(made).get("/live").text


def test_above_a_rate_the_page_says_so_and_stands_still():
    made, now = ByHand(["text"] * 900), int(time.time() * 1000)
    made.take(*(result(number, now - 1000) for number in range(400)))
    browser = browse(made)
    page = browser.get("/live").text
    assert "Paused: 40 answers a second" in page
    assert 'hx-get="/live?until=400"' in page
    made.take(*(result(number, now - 1000) for number in range(400, 500)))
    assert f"answer-{399:032x}" in browser.get("/live?until=400").text
    made.take(result(500, now - 1000, agent="rare"))
    assert "Paused" not in browser.get("/live?agent=rare").text
    assert f"answer-{499:032x}" in browser.get("/live").text


@pytest.mark.parametrize("others", [0, 2])
def test_an_answer_that_somebody_corrects_is_the_first_on_that_persons_screen(others):
    made = ByHand(["my money back"])
    made.take(result(0, int(time.time() * 1000)))
    from review_items import make_item

    for number in range(others):
        made.queue.add(make_item(number + 5))
    browser = browse(made)
    browser.get("/reviews", headers={"accept": "text/html"})
    form = {"prediction_id": f"{0:032x}", "task": "intent"}
    assert browser.post("/live/correct", data=form).headers["location"] == "/reviews"
    key = item_key(form["prediction_id"], "intent")
    page = browser.get("/reviews", headers={"accept": "text/html"}).text
    assert page.index(f'data-item="{key}"') == page.index("data-item=")
    browser.post(f"/reviews/{key}", data={"label": "loan", "do": "confirm"})
    (feedback,) = made.queue.unsent.values()
    assert (feedback.prediction_id, feedback.value, feedback.source.offset) == (form["prediction_id"], "loan", 0)
    assert browser.post("/live/correct", data=form).status_code == 409
    assert browser.post("/live/correct", data=form | {"prediction_id": "x"}).status_code == 404
    made.take(result(1, int(time.time() * 1000), prediction_id="of another"))
    made.requests.texts.append("text")
    assert browser.post("/live/correct", data=form | {"prediction_id": "of another"}).status_code == 409


def test_an_answer_that_was_drawn_at_random_is_neither_shown_nor_found_nor_corrected():
    made = ByHand(["to Rome"])
    spans = {"slots": {"kind": "tagging", "spans": [{"label": "city", "start": 3, "end": 7}]}}
    made.take(result(0, int(time.time() * 1000), {"intent": {"label": "refund", "score": 0.9}} | spans))
    browser = browse(made)
    assert "<mark>Rome" in browser.get("/live?label=refund").text
    made.drawn.take([review_drawn_of(0), SimpleNamespace(value=b"{")])
    page = browser.get("/live?agent=desk").text
    rows = page[page.index("<tbody>") : page.index("</tbody>")]
    assert "to Rome" in rows
    for hidden in ("refund", "0.90", "<mark>", "desk 2", "/live/correct"):
        assert hidden not in rows
    for field in ("label=refund", "version=desk+2", "least=0.5", "most=1"):
        assert "<tbody>" not in browser.get(f"/live?{field}").text
    form = {"prediction_id": f"{0:032x}", "task": "intent"}
    assert browser.post("/live/correct", data=form).status_code == 409
    assert made.queue.counts(0.0).open == 0


def test_the_drawn_answers_that_are_remembered_are_bounded():
    drawn = DrawnAnswers(most=2)
    drawn.take([review_drawn_of(number) for number in range(3)])
    assert [f"{number:032x}" in drawn for number in range(3)] == [False, True, True]


def test_replies_of_conversations_are_shown_with_what_they_say_and_corrected_as_edits():
    made, now = ByHand(["my card is lost"]), int(time.time() * 1000)
    made.live.take_replies(
        [reply(0, now), reply(1, now, "Hello <b>", model=None), SimpleNamespace(timestamp=now, value=b"{}")]
    )
    made.take(result(2, now))
    browser = browse(made)
    page = browser.get("/live?agent=dialogue").text
    rows = page[page.index("<tbody>") : page.index("</tbody>")]
    for shown in (
        "my card is lost",
        "Which card is it?",
        "asked, template",
        "request card",
        "Hello &lt;b&gt;",
        "no model",
    ):
        assert shown in rows
    assert rows.count("/live/correct") == 2
    assert "refund" not in rows
    assert "Which card" in browser.get("/live?label=request+card&version=desk+2").text
    assert "Which card" not in browser.get("/live?least=0.1").text
    form = {"prediction_id": f"{0:032x}", "task": "reply"}
    assert browser.post("/live/correct", data=form).headers["location"] == "/reviews"
    key = item_key(form["prediction_id"], "reply")
    assert "Which card is it?</textarea>" in browser.get("/reviews", headers={"accept": "text/html"}).text
    browser.post(f"/reviews/{key}", data={"reply": "Which of your cards?", "do": "confirm"})
    (feedback,) = made.queue.unsent.values()
    assert (feedback.agent, feedback.task, feedback.value) == ("dialogue", "reply", "Which of your cards?")
    assert feedback.source.topic == "turns"
    assert browser.post("/live/correct", data=form | {"task": "intent"}).status_code == 409


def test_a_reply_that_was_drawn_at_random_hides_its_words():
    made = ByHand(["text"])
    made.live.take_replies([reply(0, int(time.time() * 1000))])
    made.drawn.take([review_drawn_of(0)])
    page = browse(made).get("/live").text
    assert "Drawn at random" in page
    assert "Which card" not in page
