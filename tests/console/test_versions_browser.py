"""Versions, live flow and trying a text in a real browser, on a real Kafka, by keyboard, beside a process that serves."""

import asyncio
import json
from datetime import UTC, datetime

import pytest
from pages_in_browser import open_browser, open_page, violations
from playwright.async_api import expect
from serving import Desk
from test_console_browser import opened
from tiny_model import TASKS, write_tiny_model

from murmura.runtime.release.changes import make_release, publish_next
from murmura.runtime.release.store import ModelStore

pytestmark = pytest.mark.slow
expect.set_options(timeout=20_000)


async def answered_by(desk: Desk, number: int) -> int:
    """Send one request more, and return the version that answered it."""
    await desk.send({"text": "where is my card?", "id": f"q-{number}"})
    records = await desk.read(desk.classified, number)
    return json.loads(records[-1].value)["model"]["version"]


async def test_a_version_is_released_and_taken_back_with_the_keyboard_alone_and_the_process_follows(
    kafka, unique, make_topics, tiny_model, tmp_path, monkeypatch
):
    monkeypatch.setenv("MURMURA_CACHE", str(tmp_path / "cache"))
    desk = Desk(kafka, unique("versions"), tiny_model)
    await make_topics("requests", "classified", "deadletters", prefix=desk.prefix, partitions=1)
    await make_topics("models", prefix=desk.prefix, partitions=1, config={"cleanup.policy": "compact"})
    await make_topics("events", prefix=desk.prefix, partitions=1)
    store = ModelStore(str(tmp_path / "store"))
    for seed in (1, 2):
        write_tiny_model(tmp_path / f"made{seed}", TASKS, seed=seed)
        store.push(tmp_path / f"made{seed}")
    model = {"cores": 1, "token_budget": 256, "store": str(tmp_path / "store"), "name": "tiny"}
    settings = desk.settings(model=model)
    first = await asyncio.to_thread(make_release, store, "tiny", 1, by="test", why="the first", at=datetime.now(UTC))
    await publish_next(settings, "tiny", first)
    async with desk.serving(desk.agents[:1], model=model) as serving:
        sections = {
            "model": model,
            "agents": {"classification": {"topics": [desk.requests], "output": desk.classified}},
        }
        metrics = [f"{serving.url}/metrics"]
        async with opened(desk, sections=sections, metrics=metrics) as url, open_browser() as browser:
            page, errors = await open_page(browser, color_scheme="dark", viewport={"width": 320, "height": 700})
            await page.goto(url)
            for key in ("g", "v"):
                await page.keyboard.press(key)
            await expect(page.locator("#versions-now dl")).to_contain_text("1, generation 1")
            assert await violations(page) == []
            await page.keyboard.press("r")
            await expect(page.get_by_role("heading", name="Release tiny 2?")).to_be_visible()
            assert await violations(page) == []
            await page.keyboard.type("it has seen <b>the new product</b>")
            await page.keyboard.press("Enter")
            await expect(page.locator("#versions-now dl")).to_contain_text("2, generation 2")
            await expect(page.get_by_text("model swapped to 2 from 1")).to_be_visible(timeout=90_000)
            assert await answered_by(desk, 1) == 2
            await page.set_viewport_size({"width": 1280, "height": 900})
            await expect(page.get_by_role("table", name="Who answers with what")).to_contain_text("2current1")
            assert await violations(page) == []
            await page.keyboard.press("b")
            await expect(page.get_by_role("heading", name="Go back to tiny 1?")).to_be_visible()
            await page.keyboard.type("too many refunds")
            await page.keyboard.press("Enter")
            await expect(page.get_by_text("model swapped to 1 from 2")).to_be_visible(timeout=90_000)
            assert await answered_by(desk, 2) == 1
            await expect(page.locator("#versions-now")).to_contain_text("1, back to generation 1")
            for key in ("g", "l"):
                await page.keyboard.press(key)
            await expect(page.get_by_role("row").nth(2)).to_contain_text("where is my card?")
            for key in ("g", "t"):
                await page.keyboard.press(key)
            await expect(page.get_by_role("heading", name="Try it")).to_be_visible()
            for key in ("f", "c", "Escape", "e"):  # the agent that begins with c
                await page.keyboard.press(key)
            await page.keyboard.type("help me")
            await expect(page.get_by_role("textbox")).to_have_value("help me")
            for key in ("Escape", "s"):
                await page.keyboard.press(key)
            await expect(page.locator("section")).to_contain_text("tiny 1")
            assert await violations(page) == []
            assert errors == []
