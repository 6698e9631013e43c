"""The system's Chromium, driven by Playwright: pages of the console as people see and use them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from axe_playwright_python.async_playwright import Axe
from browser import ARGUMENTS, find_chromium, require_browser
from playwright.async_api import Browser, Page, async_playwright

RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}


@asynccontextmanager
async def open_browser() -> AsyncIterator[Browser]:
    require_browser()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=find_chromium(), args=[*ARGUMENTS])
        try:
            yield browser
        finally:
            await browser.close()


async def open_page(browser: Browser, **options: Any) -> tuple[Page, list[str]]:
    """Return a page, and the list in which its errors are collected."""
    page = await browser.new_page(**options)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
    return page, errors


async def violations(page: Page) -> list[str]:
    """What axe finds against WCAG 2.2 AA on the page, and whether it is wider than the window."""
    found = await Axe().run(page, options=RULES)
    problems = [f"{each['id']}: {each['nodes'][0]['html']}" for each in found.response["violations"]]
    width, window = await page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    return problems + ([f"{width} px wide in a window of {window} px"] if width > window else [])
