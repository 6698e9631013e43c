"""A real browser for tests: the system's Chromium, driven from a thread."""

import asyncio
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, TypeVar

import pytest

T = TypeVar("T")
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def find_chromium() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser")


def require_browser() -> None:
    """Skip with one line where there is no browser; on a build server that is a failure."""
    missing = "playwright" if find_spec("playwright") is None else None if find_chromium() else "chromium"
    if missing and os.environ.get("CI"):
        pytest.fail(f"{missing} is not installed: a build server tests the console in a browser", pytrace=False)
    if missing:
        pytest.skip(f"{missing} is not installed: the console is not tested in a browser")


class BrowserThread:
    """One browser for many tests, in a thread of its own: Playwright's objects belong to the thread that made them."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="browser")
        self._thread.submit(self._start).result(timeout=60)

    def _start(self) -> None:
        from playwright.sync_api import sync_playwright

        self._playwright = sync_playwright().start()
        self._browser = self._playwright.chromium.launch(executable_path=find_chromium(), args=[*ARGUMENTS])

    async def run(self, act: Callable[[Any], T]) -> T:
        """Call `act` with the browser, in its thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, act, self._browser)

    async def use(self, url: str, act: Callable[[Any], T], **options: Any) -> T:
        """Call `act` with a page in a context of its own, which `options` are for."""

        def browse(browser: Any) -> T:
            with open_page(browser, url, **options) as page:
                return act(page)

        return await self.run(browse)

    def close(self) -> None:
        self._thread.submit(self._stop).result(timeout=60)
        self._thread.shutdown()

    def _stop(self) -> None:
        self._browser.close()
        self._playwright.stop()


@contextmanager
def browser_thread() -> Iterator[BrowserThread]:
    """Yield a browser, or skip."""
    require_browser()
    browser = BrowserThread()
    try:
        yield browser
    finally:
        browser.close()


@contextmanager
def open_page(browser: Any, url: str, **options: Any) -> Iterator[Any]:
    """Yield a page in a context of its own; an error in it or on its console fails the test."""
    context = browser.new_context(**options)
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
    try:
        page.goto(url)
        yield page
        assert errors == []
    finally:
        context.close()


def find_violations(page: Any, rules: Sequence[str] = ()) -> list[str]:
    """Return what axe finds against WCAG 2.2 AA, or against some rules of it."""
    from axe_playwright_python.sync_playwright import Axe

    tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
    wanted = {"type": "rule", "values": [*rules]} if rules else {"type": "tag", "values": tags}
    found = Axe().run(page, options={"runOnly": wanted, "resultTypes": ["violations"]})
    return [f"{each['id']}: {node['html']}" for each in found.response["violations"] for node in each["nodes"]]
