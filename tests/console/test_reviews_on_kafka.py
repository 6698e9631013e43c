"""The review queue on a real Kafka: from served requests to training rows, by people in browsers."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from browser import BrowserThread, browser_thread, open_page
from review_pages import TEXTS, answer_requests, make_desk, wait_for_item
from serving import Desk

from murmura.console.assembly import assemble
from murmura.console.server import serve
from murmura.schemas.feedback import Feedback, Verdict
from murmura.training.ingest import make as stages
from murmura.training.ingest.manifest import Options

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def chromium() -> Iterator[BrowserThread]:
    with browser_thread() as browser:
        yield browser


@asynccontextmanager
async def console_of(desk: Desk, **settings: Any) -> AsyncIterator[str]:
    chosen = desk.settings(
        agents={"classification": {"output": desk.classified}, "analysis": {"output": desk.analysed}},
        console={"overlap": 0.0, **settings},
    )
    stop, ready = asyncio.Event(), asyncio.get_running_loop().create_future()
    task = asyncio.create_task(serve(assemble(chosen), ("127.0.0.1", 0), stop=stop, ready=ready.set_result))
    await asyncio.wait([task, ready], return_when=asyncio.FIRST_COMPLETED)
    try:
        yield f"{ready.result()}/reviews"
    finally:
        stop.set()
        await task


async def test_a_correction_typed_in_the_browser_becomes_a_training_row(
    kafka: str, make_topics: Any, unique: Any, tiny_model: Any, tmp_path: Any, chromium: BrowserThread
) -> None:
    desk = await make_desk(kafka, make_topics, unique("reviews"), tiny_model)
    await answer_requests(desk, len(TEXTS))
    corrected: list[tuple[str, str]] = []

    def judge(browser: Any) -> None:
        with open_page(browser, url) as page:
            wait_for_item(page)
            for number in range(3):
                form = page.locator("#review-item form.review")
                other = form.locator("input[name=label]:not(:checked)[data-key]").first
                corrected.append((form.locator(".plain").inner_text(), str(other.get_attribute("value"))))
                if number == 0:
                    page.keyboard.press("c")
                page.keyboard.press(str(other.get_attribute("data-key")))
                page.keyboard.press("Enter")
                page.locator("#review-counts", has_text=f"{number + 1} by you").wait_for()
            page.wait_for_timeout(1000)
            page.reload()
            page.locator("#review-unsent", has_text="0 unsent").wait_for()

    async with console_of(desk) as url:
        await chromium.run(judge)
    sent = [Feedback.model_validate_json(each.value) for each in await desk.read(f"{desk.prefix}.feedback", 3)]
    assert {(each.verdict, each.value) for each in sent} == {(Verdict.CORRECTION, label) for _, label in corrected}
    settings = desk.settings().kafka
    topics = {"feedback": "feedback", "results": "classified", "requests": "requests", "reviews": "reviews"}
    plan = await stages.make_plan(
        settings, **{role: [f"{desk.prefix}.{name}"] for role, name in topics.items()}, options=Options(heldout=0.0)
    )
    made = await stages.ingest(settings, plan, tmp_path / "set")
    assert made.counts["used"] == 3
    files = (tmp_path / "set").glob("*.train.jsonl")  # the task of the first review is whichever was the most doubtful
    rows = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    assert sorted((row["text"], row["label"]) for row in rows) == sorted(corrected)


async def test_two_browsers_never_hold_one_text_and_what_is_open_comes_again_after_a_restart(
    kafka: str, make_topics: Any, unique: Any, tiny_model: Any, chromium: BrowserThread
) -> None:
    desk = await make_desk(kafka, make_topics, unique("reviews"), tiny_model)
    await answer_requests(desk, len(TEXTS))

    def judge_all(browser: Any) -> list[list[str]]:
        seen: list[list[str]] = [[], []]
        with open_page(browser, url) as first, open_page(browser, url) as second:
            wait_for_item(first)
            for page in (first, second):
                page.reload()
            for _ in range(2):
                for page, keys in zip((first, second), seen, strict=True):
                    keys.append(wait_for_item(page))
                    page.keyboard.press("Enter")
                    page.locator("#review-counts", has_text=f"{sum(map(len, seen))} by you").wait_for()
        return seen

    def look(browser: Any) -> list[str]:
        keys = []
        with open_page(browser, url) as page:
            for _ in range(2):
                keys.append(wait_for_item(page))
                page.keyboard.press("Enter")
                page.wait_for_timeout(300)
            page.locator("#review-empty").wait_for()
        return keys

    async with console_of(desk) as url:
        first, second = await chromium.run(judge_all)
    assert len({*first, *second}) == 4
    async with console_of(desk) as url:
        again = await chromium.run(look)
    assert len({*first, *second, *again}) == len(TEXTS)
    assert len(await desk.read(f"{desk.prefix}.feedback", len(TEXTS))) == len(TEXTS)
