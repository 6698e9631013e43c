"""Two `murmura console` on a real Kafka: what two people are to judge goes to a second one at the other console."""

import asyncio
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from browser import BrowserThread, browser_thread, open_page
from review_pages import answer_requests, make_desk
from serving import Desk

from murmura.schemas.feedback import Feedback, Verdict

pytestmark = pytest.mark.slow
TESTS = Path(__file__).resolve().parents[1]
TEXTS = ["my card was lost", "i want a new card please", "transfer money", "help me"]
TEN_MINUTES_S = 3.0
"""What stands for the ten minutes in which a verdict can be undone, and the second person is looked for at the same console."""


@pytest.fixture(scope="module")
def chromium() -> Iterator[BrowserThread]:
    with browser_thread() as browser:
        yield browser


@asynccontextmanager
async def console_process(desk: Desk, folder: Path, name: str) -> AsyncIterator[str]:
    """Run a console whose people are named by a proxy; yield the address of its reviews."""
    config, log = folder / f"{name}.yaml", folder / f"{name}.log"
    settings = {
        "app": desk.prefix,
        "prefix": desk.prefix,
        "kafka": {"bootstrap_servers": desk.bootstrap},
        "model": {"folder": str(desk.model)},
        "agents": {"classification": {"output": desk.classified}, "analysis": {"output": desk.analysed}},
        "console": {"overlap": 1.0, "trusted_proxies": ["127.0.0.1"], "http": "127.0.0.1:0"},
    }
    config.write_text(yaml.safe_dump(settings))
    command = [sys.executable, TESTS / "console_process.py", str(TEN_MINUTES_S), "--config", config]
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file)
    try:
        async with asyncio.timeout(60):
            while not (found := re.search(r"http://127\.0\.0\.1:\d+", log.read_text())):
                assert process.poll() is None, log.read_text()
                await asyncio.sleep(0.1)
        yield f"{found[0]}/reviews"
    finally:
        process.terminate()
        assert await asyncio.to_thread(process.wait, 30) == 0, log.read_text()


def wait_for_agreement(page: Any) -> None:
    """Load the page until it says that all reviews were judged twice, and alike."""
    for _ in range(60):
        if f"100 % of {len(TEXTS)} judged twice" in page.locator("#review-state").inner_text():
            return
        page.wait_for_timeout(500)
        page.reload()
    raise AssertionError(page.locator("#review-state").inner_text())


async def test_each_review_is_judged_by_two_people_who_work_at_two_consoles(
    kafka: str, make_topics: Any, unique: Any, tiny_model: Any, tmp_path: Path, chromium: BrowserThread
) -> None:
    desk = await make_desk(kafka, make_topics, unique("reviews"), tiny_model)

    def judge_all(browser: Any) -> None:
        people = [(url, {"X-Forwarded-User": name, "X-Forwarded-Groups": "annotator"}) for url, name in at.items()]
        with (
            open_page(browser, people[0][0], extra_http_headers=people[0][1]) as ann,
            open_page(browser, people[1][0], extra_http_headers=people[1][1]) as bob,
        ):
            pages, done = (ann, bob), [0, 0]
            for _ in range(120):
                for number, page in enumerate(pages):
                    if done[number] < len(TEXTS) and page.locator("#review-item form.review").count():
                        page.keyboard.press("Enter")
                        done[number] += 1
                        page.locator("#review-counts", has_text=f"{done[number]} by you").wait_for()
                if min(done) == len(TEXTS):
                    break
                ann.wait_for_timeout(500)
                for page in pages:
                    page.reload()
            assert done == [len(TEXTS)] * 2
            for page in pages:
                wait_for_agreement(page)

    async with console_process(desk, tmp_path, "one") as one, console_process(desk, tmp_path, "other") as other:
        at = {one: "ann", other: "bob"}
        await answer_requests(desk, len(TEXTS), TEXTS)
        await chromium.run(judge_all)
    verdicts = defaultdict(set)
    for record in await desk.read(f"{desk.prefix}.feedback", 2 * len(TEXTS)):
        feedback = Feedback.model_validate_json(record.value)
        assert feedback.verdict in {Verdict.CONFIRMED, Verdict.CORRECTION}
        assert feedback.by not in verdicts[feedback.prediction_id], "nobody is asked twice"
        verdicts[feedback.prediction_id].add(feedback.by)
    assert list(verdicts.values()) == [{"ann", "bob"}] * len(TEXTS)
