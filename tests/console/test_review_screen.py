"""The review queue in a browser without a script, and what a request may not do."""

import html
import re
from dataclasses import replace
from threading import get_ident

import pytest
from review_items import make_item, make_task
from starlette.testclient import TestClient

from murmura.console.review.desk import ReviewDesk, make_feedback
from murmura.console.review.item import Guess, canonical
from murmura.console.review.posted import Judgement
from murmura.console.review.queue import ReviewQueue
from murmura.console.review.screen import Facts, ReviewScreen, split_tokens
from murmura.console.review.tasks import reply_task
from murmura.console.web.application import make_application
from murmura.console.web.pages import Pages
from murmura.runtime.settings.console import ConsoleSettings
from murmura.schemas.feedback import Verdict
from murmura.schemas.result import ModelRef
from murmura.schemas.review import ReviewReason

HERE = {"sec-fetch-site": "same-origin"}
PART = HERE | {"hx-request": "true"}
LABELS = tuple(f"label_{number}" for number in range(77))


class Desk:
    """A queue with its screen, and browsers before it."""

    def __init__(self, *items, **settings) -> None:
        self.queue = ReviewQueue(0.0)
        for item in items:
            self.queue.add(item)
        console = ConsoleSettings(**settings)
        screens: list = []
        pages = Pages(screens, console.masked)
        screens.append(ReviewScreen(ReviewDesk(self.queue), pages, Facts, "Be kind.", clock=lambda: 1.0).screen())
        self._application = make_application(screens, pages, console)

    def browser(self) -> TestClient:
        return TestClient(
            self._application,
            base_url="http://127.0.0.1:9480",
            client=("127.0.0.1", 50_000),
            headers=HERE,
            follow_redirects=False,
        )

    @property
    def sent(self):
        return [(each.verdict, each.value, each.consent) for each in self.queue.unsent.values()]


def shown_item(page: str) -> str | None:
    found = re.search(r'id="review-item">.*?data-item="(\w+)"', page, re.DOTALL)
    return found and found[1]


def test_a_verdict_is_taken_and_the_next_text_is_shown() -> None:
    items = [make_item(number, text=f"text {number}") for number in range(3)]
    desk = Desk(*items)
    browser = desk.browser()
    page = browser.get("/reviews").text
    assert shown_item(page) == items[0].key
    assert "text 1" in page.partition("<template")[2]
    assert re.search(r'value="refund"[^>]* checked', page)
    answer = browser.post(f"/reviews/{items[0].key}", data={"label": "loan", "consent": "1", "do": "confirm"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/reviews")
    part = browser.post(f"/reviews/{items[1].key}", data={"label": "refund"}, headers=PART).text
    assert shown_item(part) == items[2].key
    assert "<html" not in part
    assert desk.sent == [(Verdict.CORRECTION, "loan", True), (Verdict.CONFIRMED, None, False)]


def test_two_browsers_hold_different_items_and_a_reload_keeps_them() -> None:
    desk = Desk(*[make_item(number) for number in range(4)])
    first, second = desk.browser(), desk.browser()
    ours = {shown_item(first.get("/reviews").text) for _ in range(3)}
    assert len(ours) == 1
    assert shown_item(second.get("/reviews").text) not in ours


@pytest.mark.parametrize(
    "headers", [{"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}, {"accept": "*/*"}]
)
def test_who_only_looks_whether_it_is_there_holds_nothing(headers) -> None:
    desk = Desk(make_item())
    probe = desk.browser()
    del probe.headers["sec-fetch-site"]
    answer = probe.get("/reviews", headers=headers)
    assert "opened from elsewhere" in answer.text
    assert (answer.cookies.get("murmura_seat"), desk.queue.counts(1.0).leased) == (None, 0)
    assert shown_item(probe.get("/reviews", headers={"accept": "text/html"}).text)


def test_a_masked_reply_is_not_in_the_page_and_is_confirmed_as_it_is() -> None:
    reply = "Write to ann@example.org."
    item = make_item(task=reply_task("reply"), guess=Guess(reply, 0.5, canonical(reply)))
    desk = Desk(item, masked=("email",))
    browser = desk.browser()
    page = browser.get("/reviews").text
    assert "ann@" not in page
    assert "Write to •••@•••••••.•••." in page
    browser.post(f"/reviews/{item.key}", data={"reply": "", "unchanged": "1", "do": "confirm"})
    assert desk.sent == [(Verdict.CONFIRMED, None, False)]
    assert f">{reply}</textarea>" in Desk(item).browser().get("/reviews").text


def test_a_skip_and_an_undo_work_by_forms_alone() -> None:
    items = [make_item(number) for number in range(3)]
    desk = Desk(*items)
    browser = desk.browser()
    browser.get("/reviews")
    browser.post(f"/reviews/{items[0].key}", data={"do": "skip"})
    assert shown_item(browser.get("/reviews").text) == items[1].key
    browser.post(f"/reviews/{items[1].key}", data={"label": "loan", "do": "confirm"})
    assert "is withdrawn" in browser.post("/reviews/undo").text
    assert shown_item(browser.get("/reviews").text) == items[1].key
    assert [verdict for verdict, *_ in desk.sent] == [Verdict.CORRECTION, Verdict.WITHDRAWN]


def test_what_is_asked_again_after_a_lost_answer_is_done_once() -> None:
    items = [make_item(number) for number in range(4)]
    desk = Desk(*items)
    browser = desk.browser()
    browser.get("/reviews")
    for item in items[:2]:
        browser.post(f"/reviews/{item.key}", data={"label": "loan"}, headers=PART)
    pages = [browser.post("/reviews/undo", headers=PART | {"idempotency-key": "a" * 32}).text for _ in range(2)]
    assert ["is withdrawn" in page and shown_item(page) == items[1].key for page in pages] == [True, True]
    skip = {"do": "skip"}
    for _ in range(3):
        browser.post(f"/reviews/{items[1].key}", data=skip, headers=PART | {"idempotency-key": "b" * 32})
    assert [verdict for verdict, *_ in desk.sent] == [Verdict.CORRECTION] * 2 + [Verdict.WITHDRAWN]
    assert "set aside" not in browser.get("/reviews").text
    assert browser.post("/reviews/undo", headers={"idempotency-key": "x"}).status_code == 400


@pytest.mark.parametrize(
    ("task", "entered", "shown"),
    [
        (make_task(open=True), {"new_label": "a" * 201}, f'value="{"a" * 201}"'),
        (make_task("multi_label"), {"label": ["loan", "none"]}, 'value="loan" data-key="2" checked'),
        (make_task("tagging", ("O", "B-city", "I-city")), {"spans": "1 2 none"}, ">1 2 none</textarea>"),
        (reply_task("reply"), {"reply": "a<b" * 1000}, ">" + "a&lt;b" * 1000 + "</textarea>"),
    ],
)
def test_what_was_entered_and_not_taken_is_shown_again_without_a_script(task, entered, shown) -> None:
    item = make_item(task=task, guess=Guess())
    browser = Desk(item).browser()
    browser.get("/reviews")
    page = browser.post(f"/reviews/{item.key}", data=entered).text
    assert "Not taken" in page
    assert shown in page
    assert shown not in browser.get("/reviews").text


def test_nothing_of_the_guess_is_shown_for_a_random_item() -> None:
    page = Desk(make_item(why=ReviewReason.RANDOM)).browser().get("/reviews").text
    assert "checked" not in page.partition('id="review-item"')[2].partition("consent")[0]
    assert "Score of the model" not in page


def test_a_verdict_says_whether_the_guess_was_hidden() -> None:
    items = [make_item(why=ReviewReason.RANDOM), make_item()]
    items.append(replace(items[0], was_seen=True))
    judgement = Judgement(Verdict.CONFIRMED, None, "")
    assert [make_feedback(item, judgement, "ann", consent=False).blind for item in items] == [True, False, False]


def test_the_page_of_a_random_item_is_the_same_whatever_answered_it() -> None:
    def page_of(version: int, variant: str, guess: Guess) -> str:
        model = ModelRef.model_validate({"name": "desk", "version": version, "variant": variant})
        item = replace(make_item(why=ReviewReason.RANDOM), model=model, guess=guess)
        return Desk(item).browser().get("/reviews", headers=PART).text

    pages = {
        page_of(3, "current", Guess("refund", 0.9, canonical("refund"))),
        page_of(4, "candidate", Guess("loan", 0.2)),
    }
    assert len(pages) == 1


def test_a_disagreement_is_judged_like_others() -> None:
    page = Desk(make_item(why=ReviewReason.DISAGREEMENT)).browser().get("/reviews").text
    assert "disagreement" in page
    assert re.search(r'value="refund"[^>]* checked', page)


def test_what_is_no_answer_is_said_and_the_item_stays() -> None:
    item = make_item()
    desk = Desk(item)
    answer = desk.browser().post(f"/reviews/{item.key}", data={"label": "lon"})
    assert (answer.status_code, shown_item(answer.text), desk.sent) == (200, item.key, [])
    assert "did you mean loan" in answer.text
    gone = desk.browser().post("/reviews/0123456789abcdef", data={"label": "loan"})
    assert "nothing was sent" in gone.text


def test_hostile_texts_are_shown_as_text_and_cut() -> None:
    hostile = '<script>alert(1)</script> \u202eabc\u202c 😀 "&' + "x" * 1000
    page = Desk(make_item(text=hostile, characters=1_000_000, task=make_task("tagging", ("O", "B-city", "I-city"))))
    shown = page.browser().get("/reviews").text
    assert "<script>alert" not in shown
    assert html.escape(hostile, quote=False)[:40] in shown.replace("&#34;", '"')
    assert "of 1,000,000 characters" in shown


def test_the_first_nine_of_77_labels_have_digits_and_no_label_another_key() -> None:
    page = Desk(make_item(task=make_task(labels=LABELS), guess=None)).browser().get("/reviews").text
    keys = re.findall(r'value="label_\d+" data-key="(.)"', page)
    assert keys == list("123456789")
    assert page.count('type="radio"') == 77


def test_spans_point_at_code_points_and_a_masked_text_keeps_its_length() -> None:
    assert split_tokens("😀 to Paris!")[1:] == [(" ", "to", 2, 4), (" ", "Paris", 5, 10), ("", "!", 10, 11)]
    item = make_item(text="mail ann@example.org now", task=make_task("tagging", ("O", "B-city", "I-city")))
    page = Desk(item, masked=("email",)).browser().get("/reviews").text
    assert "ann@" not in page
    assert 'data-start="21" data-end="24">now' in page


def test_a_text_is_masked_once_and_not_by_the_thread_that_answers(monkeypatch) -> None:
    by: dict[str, list[int]] = {}
    monkeypatch.setattr(
        "murmura.console.web.pages.mask", lambda text, kinds: by.setdefault(text, []).append(get_ident()) or text
    )
    items = [make_item(n, text=f"text {n}", task=make_task("tagging", ("O", "B-city", "I-city"))) for n in range(2)]
    desk = Desk(*items, masked=("email",))
    answering: list[int] = []
    show = desk.queue.hold
    monkeypatch.setattr(desk.queue, "hold", lambda *given: answering.append(get_ident()) or show(*given))
    browser = desk.browser()
    browser.get("/reviews")
    assert answering[0] not in {thread for item in items for thread in by[item.text]}
    assert "text 0" in browser.get("/reviews").text
    assert [len(by[item.text]) for item in items] == [1, 1]


@pytest.mark.parametrize(
    ("headers", "status"), [({"sec-fetch-site": "cross-site"}, 403), ({"host": "evil.example"}, 400)]
)
def test_a_foreign_page_cannot_judge(headers, status) -> None:
    item = make_item()
    desk = Desk(item)
    assert desk.browser().post(f"/reviews/{item.key}", data={"label": "loan"}, headers=headers).status_code == status
    assert desk.sent == []


def test_a_reader_sees_how_far_it_is_and_holds_nothing() -> None:
    item = make_item()
    desk = Desk(item, read_only=True)
    page = desk.browser().get("/reviews").text
    assert "1 open, 0 with people" in page
    assert item.text not in page
    assert desk.browser().post(f"/reviews/{item.key}", data={"label": "loan"}).status_code == 403
