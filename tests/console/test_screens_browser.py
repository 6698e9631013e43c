"""Every screen in a real browser without a broker: accessible, narrow and wide, dark and light, by keyboard alone."""

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from browser import BrowserThread, browser_thread, find_violations, open_page
from screens_by_hand import ByHand, result

from murmura.runtime.observe.http_server import HttpServer

TEXTS = ["to Rome, please \u202eback <b>", "\u05e9\u05dc\u05d5\u05dd 😀 " + "long " * 300, "my money back"]
PATHS = [
    "/",
    "/live",
    "/live?label=none",
    "/live?hold=2",
    "/versions",
    "/versions/desk/rollback",
    "/versions/desk/stop",
    "/try",
    "/dead-letters/redrive?reason=agent_failed",
    "/dead-letters/redrive/progress",
    "/experiments",
    "/experiments/one?id=desk-3",
    "/experiments/shadow?model=desk&version=3",
    "/reviews",
]

REFUSED = {403: "/dead-letters/redrive", 404: "/nothing", 409: "/versions/other/rollback"}
"""Pages that say why there is no other, by their status: the first at a console that is only read."""


@pytest.fixture(scope="module")
def chromium() -> Iterator[BrowserThread]:
    with browser_thread() as browser:
        yield browser


@asynccontextmanager
async def serve(made: ByHand) -> AsyncIterator[str]:
    server = HttpServer(made.application, ("127.0.0.1", 0))
    await server.start()
    try:
        yield server.url
    finally:
        await server.stop()


STATUS = "x-status"


def accept_status(route: Any) -> None:
    """Hand over an answer as 200, since the browser's console reports others, which fails the test; its status is a header."""
    answer = route.fetch()
    route.fulfill(response=answer, status=200, headers={**answer.headers, STATUS: str(answer.status)})


def filled() -> ByHand:
    return ByHand(TEXTS).fill(int(time.time() * 1000))


async def test_every_screen_is_accessible_and_fits(chromium: BrowserThread) -> None:
    problems: list[tuple[str, list[str]]] = []
    statuses: list[str] = []

    def look(browser: Any) -> None:
        narrow = {"viewport": {"width": 320, "height": 700}, "color_scheme": "dark"}
        wide = {"viewport": {"width": 1280, "height": 900}, "color_scheme": "light", "reduced_motion": "reduce"}
        # The structure is the same in both; colours and places are not.
        for options, rules in ((narrow, ()), (wide, ("color-contrast", "target-size"))):
            with open_page(browser, url, **options) as page:
                for path in PATHS:
                    page.goto(url + path)
                    note(path, page, rules)
                page.route("**/*", accept_status)
                for status, path in REFUSED.items():
                    statuses.append(page.goto((read_only if status == 403 else url) + path).headers[STATUS])
                    note(f"{status} {path}", page, rules)

    def note(path: str, page: Any, rules: tuple[str, ...]) -> None:
        found = find_violations(page, rules)
        if page.evaluate("document.documentElement.scrollWidth > window.innerWidth"):
            found.append("wider than the window")
        if found:
            problems.append((path, found))

    async with serve(filled()) as url, serve(ByHand(console={"read_only": True})) as read_only:
        await chromium.run(look)
    assert problems == []
    assert statuses == [str(status) for status in REFUSED] * 2


async def test_a_refresh_keeps_the_focus_and_an_answer_is_corrected_by_keys(chromium: BrowserThread) -> None:
    made = filled()

    def act(page: Any) -> None:
        link = page.locator("#figures a").first
        link.focus()
        with page.expect_response(lambda answer: answer.request.headers.get("hx-request") == "true"):
            pass
        page.wait_for_timeout(200)
        assert page.evaluate("document.activeElement.closest('#figures') !== null")
        for key in ("g", "l"):
            page.keyboard.press(key)
        page.locator("mark", has_text="Rome").wait_for()
        page.keyboard.press("f")
        page.keyboard.press("Escape")  # leaves the field
        page.keyboard.press("p")
        page.get_by_text("Stopped by you").wait_for()
        for key in ("c", "3"):
            page.keyboard.press(key)
        page.locator("#review-item .plain", has_text="to Rome").wait_for()
        page.wait_for_load_state()  # before that no key is heard
        page.keyboard.press("2")
        page.keyboard.press("Enter")
        page.locator("#review-counts", has_text="1 by you").wait_for()

    async with serve(made) as url:
        await chromium.use(url, act)
    assert [each.value for each in made.queue.unsent.values()] == ["loan"]


async def test_new_answers_come_by_themselves_and_stay_when_something_else_is_answered(chromium: BrowserThread) -> None:
    made = filled()

    def act(page: Any) -> None:
        page.locator("tbody tr").nth(3).wait_for()
        made.take(result(9, int(time.time() * 1000)))
        page.locator("tbody tr").nth(4).wait_for()
        page.route("**/live*", lambda route: route.fulfill(body="<p>Log in</p>", content_type="text/html"))
        page.locator("#away").wait_for()
        assert page.locator("tbody tr").count() == 5
        page.unroute("**/live*")
        page.locator("#away").wait_for(state="hidden")
        assert page.locator("tbody tr").count() == 5
        page.locator("tbody tr button").last.focus()
        made.take(*(result(20 + number, int(time.time() * 1000)) for number in range(25)))
        page.locator("#flow:focus").wait_for()

    async with serve(made) as url:
        await chromium.use(f"{url}/live", act)
