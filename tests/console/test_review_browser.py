"""The review queue by keyboard and mouse in a real browser, on a console without a broker."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from browser import BrowserThread, browser_thread, find_violations
from review_items import make_item, make_task

from murmura.console.review.desk import ReviewDesk
from murmura.console.review.item import Guess
from murmura.console.review.queue import ReviewQueue
from murmura.console.review.screen import Facts, ReviewScreen
from murmura.console.review.tasks import reply_task
from murmura.console.web.application import make_application
from murmura.console.web.pages import Pages
from murmura.runtime.observe.http_server import HttpServer
from murmura.runtime.settings.console import ConsoleSettings
from murmura.schemas.feedback import FeedbackSpan, Verdict
from murmura.schemas.review import ReviewReason

MANY = tuple(
    f"{word} {number}" for number in range(11) for word in ("card", "loan", "rate", "cash", "fee", "pin", "iban")
)
TAGS = ("O", "B-city", "I-city", "B-day", "I-day")


@asynccontextmanager
async def serve_queue(*items: Any) -> AsyncIterator[tuple[ReviewQueue, str]]:
    queue = ReviewQueue(0.0)
    for item in items:
        queue.add(item)
    screens: list = []
    pages = Pages(screens)
    screens.append(ReviewScreen(ReviewDesk(queue), pages, Facts, "Be kind.").screen())
    server = HttpServer(make_application(screens, pages, ConsoleSettings()), ("127.0.0.1", 0))
    await server.start()
    try:
        yield queue, f"{server.url}/reviews"
    finally:
        await server.stop()


@pytest.fixture(scope="module")
def chromium() -> Iterator[BrowserThread]:
    with browser_thread() as browser:
        yield browser


def values(queue: ReviewQueue) -> list[tuple[Verdict, Any]]:
    return [(each.verdict, each.value) for each in queue.unsent.values()]


async def test_labels_are_given_by_keys_alone_and_an_undo_brings_the_text_back(chromium: BrowserThread) -> None:
    from playwright.sync_api import expect

    items = [make_item(n, text=f"text {n}", task=make_task(open=True)) for n in range(4)]

    def act(page: Any) -> None:
        text = page.locator("#review-item .plain")
        expect(text).to_have_text("text 0")
        page.keyboard.press("c")
        page.keyboard.press("2")
        page.keyboard.press("Enter")
        assert text.text_content() == "text 1"  # it was there before the answer came
        page.keyboard.press("Enter")
        expect(text).to_have_text("text 2")
        page.keyboard.press("n")
        page.keyboard.type("u2s?")
        page.keyboard.press("Escape")
        page.keyboard.press("Enter")
        expect(text).to_have_text("text 3")
        expect(page.locator("#review-counts")).to_contain_text("3 by you")
        page.keyboard.press("u")
        expect(text).to_have_text("text 2")
        page.keyboard.press("s")
        expect(text).to_have_text("text 3")
        page.keyboard.press("?")
        expect(page.locator("#keys")).to_contain_text("Undo your last verdict")
        page.keyboard.press("Escape")
        page.keyboard.press("i")
        expect(page.get_by_text("Be kind.")).to_be_visible()

    async with serve_queue(*items) as (queue, url):
        await chromium.use(url, act)
        name = list(queue.unsent)[2]
        assert values(queue) == [
            (Verdict.CORRECTION, "loan"),
            (Verdict.CONFIRMED, None),
            (Verdict.CORRECTION, "u2s?"),
            (Verdict.WITHDRAWN, name),
        ]
        assert [each.consent for each in queue.unsent.values()] == [True, True, True, False]


async def test_one_of_77_labels_is_found_by_typing(chromium: BrowserThread) -> None:
    items = [make_item(n, task=make_task(labels=MANY), guess=Guess()) for n in range(2)]

    def act(page: Any) -> None:
        page.keyboard.press("/")
        page.keyboard.type("iban 1")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        assert page.locator(".choice:visible").count() == 77
        page.keyboard.press("Enter")
        page.keyboard.press("Enter")  # the second has no label yet
        page.locator("#review-told").get_by_text("No label is chosen").wait_for()

    async with serve_queue(*items) as (queue, url):
        await chromium.use(url, act)
        assert values(queue) == [(Verdict.CORRECTION, "iban 10")]


async def test_spans_are_tagged_by_keys_and_by_mouse(chromium: BrowserThread) -> None:
    task = make_task("tagging", TAGS)
    items = [make_item(n, text="😀 from New York to Paris", task=task, guess=Guess([])) for n in range(2)]

    def act(page: Any) -> None:
        for _ in range(3):
            page.keyboard.press("ArrowRight")
        page.keyboard.press("Shift+ArrowRight")
        page.keyboard.press("1")
        page.keyboard.press("Enter")
        page.locator("#review-item .token", has_text="Paris").click()
        page.locator("#review-item button.choice", has_text="day").click()
        page.keyboard.press("Enter")
        page.locator("#review-empty").wait_for()

    async with serve_queue(*items) as (queue, url):
        await chromium.use(url, act)
        assert values(queue) == [
            (Verdict.CORRECTION, [FeedbackSpan(label="city", start=7, end=15)]),
            (Verdict.CORRECTION, [FeedbackSpan(label="day", start=19, end=24)]),
        ]


async def test_every_form_is_accessible_and_works_without_a_script(chromium: BrowserThread) -> None:
    items = [
        make_item(0, task=make_task(labels=MANY), guess=Guess("card 0", 0.4, '"card 0"'), text="a<b>" * 300),
        make_item(
            1, task=make_task("tagging", TAGS), guess=Guess([{"start": 0, "end": 2, "label": "city"}]), text="to Rome"
        ),
        make_item(2, task=make_task("multi_label", open=True), guess=Guess(["loan"])),
        make_item(3, task=reply_task("reply"), guess=Guess("How much?", 0.3)),
        make_item(4, why=ReviewReason.RANDOM, text="\u05e9\u05dc\u05d5\u05dd 😀"),
    ]
    violations: list[str] = []

    def look(page: Any) -> None:
        for _ in items:
            violations.extend(find_violations(page))
            page.keyboard.press("s")
            page.wait_for_load_state("networkidle")

    def fill(page: Any) -> None:
        assert page.locator("h2", has_text="intent").count()
        for _ in items:
            if not page.locator("[name=label]:checked, textarea").count():
                page.locator("[name=label]").first.check()
            with page.expect_navigation():
                page.get_by_role("button", name="Confirm").click()
        assert page.get_by_text("Nothing is left").count()

    async with serve_queue(*items) as (queue, url):
        await chromium.use(url, look, viewport={"width": 320, "height": 700}, color_scheme="dark")
        assert violations == []
        for entry in queue._entries.values():
            entry.leases.clear()
        await chromium.use(url, fill, java_script_enabled=False)
        assert len(values(queue)) == 5


async def test_a_verdict_whose_answer_is_lost_is_sent_again_and_counted_once(chromium: BrowserThread) -> None:
    items = [make_item(n) for n in range(3)]
    left = [1]

    def answer(route: Any) -> None:
        left[0] -= 1
        if left[0] >= 0:
            route.fetch()
            route.abort()
        else:
            route.continue_()

    def act(browser: Any) -> None:
        page = browser.new_page()
        page.goto(url)
        page.route("**/reviews/*", answer)
        page.keyboard.press("Enter")
        page.keyboard.press("Enter")
        page.locator("#review-counts", has_text="2 by you").wait_for(timeout=20_000)
        left[0] = 1
        page.keyboard.press("u")
        page.locator("#review-counts", has_text="1 by you").wait_for(timeout=20_000)
        page.close()

    async with serve_queue(*items) as (queue, url):
        await chromium.run(act)
        verdicts = [verdict for verdict, _ in values(queue)]
        assert verdicts == [Verdict.CONFIRMED, Verdict.CONFIRMED, Verdict.WITHDRAWN]


async def test_what_is_not_taken_is_told_and_no_text_is_swapped_under_the_hand(chromium: BrowserThread) -> None:
    from playwright.sync_api import expect

    items = [make_item(n, text=f"text {n}") for n in range(4)]
    held: list[Any] = []
    doing = ["fail"]

    def answer(route: Any) -> None:
        if doing[0] == "fail":
            route.fulfill(status=500)
        elif doing[0] == "hold":
            held.append(route)
        else:
            route.continue_()

    def act(browser: Any) -> None:
        page = browser.new_page()
        page.goto(url)
        page.route("**/reviews/*", answer)
        text, refusal = page.locator("#review-item .plain"), page.locator("#review-notes .failed")

        def send_refused() -> None:
            page.evaluate("document.querySelector('#review-item [name=label]:checked').value = 'none'")
            doing[0] = "hold"
            page.keyboard.press("Enter")

        def let_go() -> None:
            doing[0] = "pass"
            while not held:
                page.wait_for_timeout(10)
            held.pop().continue_()

        page.keyboard.press("Enter")
        expect(page.locator("#review-lost")).to_contain_text("did not take 1 of your answers (500)")
        doing[0] = "pass"
        page.keyboard.press("Enter")  # on text 1
        expect(text).to_have_text("text 0")
        send_refused()
        expect(text).to_have_text("text 2")
        page.keyboard.press("2")
        let_go()
        expect(refusal).to_contain_text("has no label")
        expect(text).to_have_text("text 2")  # it is being answered
        page.keyboard.press("Enter")
        expect(page.locator("#review-counts")).to_contain_text("2 by you")
        expect(text).to_have_text("text 0")
        page.keyboard.press("1")
        send_refused()
        expect(text).to_have_text("text 3")
        page.evaluate("window.performance.now = () => 1000")
        let_go()
        expect(text).to_have_text("text 0")
        page.keyboard.press("1")
        page.keyboard.press("Enter")
        page.locator("#review-item [name=label]").first.click()  # all were meant for text 3
        assert page.locator("#review-item :checked").count() == 0
        page.evaluate("window.performance.now = () => 2000")
        page.keyboard.press("1")
        send_refused()
        page.keyboard.press("Enter")  # on text 3, behind the refused one
        let_go()
        expect(page.locator("#review-counts")).to_contain_text("3 by you")
        expect(refusal).to_contain_text("has no label")
        expect(text).to_have_text("text 0")
        page.close()

    async with serve_queue(*items) as (queue, url):
        await chromium.run(act)
        assert values(queue) == [(Verdict.CONFIRMED, None), (Verdict.CORRECTION, "loan"), (Verdict.CONFIRMED, None)]
