"""The console in a real browser, on a real Kafka, beside a process that serves."""

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from pages_in_browser import open_browser, open_page, violations
from playwright.async_api import expect
from serving import Desk

from murmura.agents.classification import agent as classification
from murmura.console.assembly import assemble
from murmura.console.server import serve

expect.set_options(timeout=20_000)


@pytest.fixture
async def desk(kafka, unique, make_topics, tiny_model) -> Desk:
    desk = Desk(kafka, unique("desk"), tiny_model)
    await make_topics(
        "requests", "classified", "analysed", "deadletters", "retries", "feedback", "reviews", prefix=desk.prefix
    )
    asks = replace(classification, topics=(desk.requests,), output=desk.classified)
    return Desk(kafka, desk.prefix, tiny_model, [asks])


@asynccontextmanager
async def opened(desk: Desk, *, sections: dict | None = None, **settings):
    """The console's URL, once it has read what was there. `sections`: of the settings beside `console`."""
    stop, url = asyncio.Event(), asyncio.get_running_loop().create_future()
    console = assemble(desk.settings(console={"http": "127.0.0.1:0", **settings}, **(sections or {})))
    task = asyncio.create_task(serve(console, ("127.0.0.1", 0), stop=stop, ready=url.set_result))
    try:
        async with asyncio.timeout(30):
            await console.follower.caught_up.wait()
        yield await url
    finally:
        stop.set()
        await task


async def fail_on(desk: Desk, *requests: dict) -> None:
    """Let requests become dead letters of an agent that fails, the first one the oldest."""

    def fail(request, prediction):
        raise ValueError

    async with desk.serving([replace(desk.agents[0], decide=fail)]):
        for number, request in enumerate(requests, start=1):
            await desk.send(request)
            await desk.read(desk.dead_letters, number)


async def test_dead_letters_are_sent_again_with_the_keyboard_alone_and_answered(desk):
    await fail_on(desk, {"text": "where is my card?", "id": "q-1"}, {"text": "<script>alert(1)</script>", "id": "q-2"})
    async with opened(desk) as url, open_browser() as browser:
        page, errors = await open_page(browser, color_scheme="dark")
        await page.goto(url + "/dead-letters")
        await expect(page.get_by_role("row")).to_have_count(1 + 1 + 1 + 2)
        assert await violations(page) == []
        await page.keyboard.press("?")
        await expect(page.get_by_role("dialog")).to_contain_text("again")
        assert await violations(page) == []
        await page.keyboard.press("s")  # keys do nothing behind the dialog
        await page.keyboard.press("Escape")
        await page.keyboard.press("s")
        await expect(page.locator("main dl")).to_contain_text("Would be sent2")
        assert await violations(page) == []
        await page.keyboard.press("s")
        await expect(page.locator("#progress [role=status]")).to_have_text("done")
        assert await violations(page) == []
        assert errors == []
        async with desk.serving():
            answered = await desk.read(desk.classified, 2)
        assert {json.loads(record.value)["request_id"] for record in answered} == {"q-1", "q-2"}
        await page.goto(url + "/dead-letters?waiting=1")
        await expect(page.get_by_role("row")).to_have_count(1 + 1)
        await page.keyboard.press("s")
        await expect(page.locator("main dl")).to_contain_text("Would be sent0")


async def test_one_dead_letter_is_shown_and_sent_again_without_javascript_on_a_narrow_screen(desk):
    await fail_on(desk, {"text": "a@b.example \u202ebackwards <b>", "id": "q-1"}, {"text": "second", "id": "q-2"})
    async with opened(desk, masked=["email"]) as url, open_browser() as browser:
        page, errors = await open_page(browser, java_script_enabled=False, viewport={"width": 320, "height": 640})
        await page.goto(url + "/dead-letters")
        await page.get_by_role("table").last.get_by_role("link").last.click()
        await expect(page.locator("pre")).to_contain_text("•@•.•••••••")
        await expect(page.locator("pre")).to_contain_text("<b>")
        await page.get_by_role("button", name="Send this one again").click()
        await expect(page.locator("main dl")).to_contain_text("Would be sent1")
        await page.get_by_role("button", name="Send 1 again").click()
        await expect(page.locator("main dl")).to_contain_text("done")
        assert errors == []
        async with desk.serving():
            (answer,) = await desk.read(desk.classified, 1)
        assert json.loads(answer.value)["request_id"] == "q-1"


async def test_every_page_is_accessible_and_fits_a_narrow_screen(desk):
    await fail_on(desk, {"text": "long " * 500, "id": "x" * 100})
    async with opened(desk) as url, open_browser() as browser:
        page, errors = await open_page(browser, viewport={"width": 320, "height": 640}, reduced_motion="reduce")
        await page.goto(url + "/dead-letters")
        assert await violations(page) == []
        await page.get_by_role("table").last.get_by_role("link").last.click()
        await expect(page.locator("pre")).to_be_visible()
        assert await violations(page) == []
        await page.get_by_role("button", name="Send this one again").click()
        await expect(page.locator("main dl")).to_contain_text("Would be sent1")
        assert await violations(page) == []
        assert errors == []
