"""A redrive through the pages of the console, on the broker in process."""

import asyncio
import re

import httpx
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from test_dead_letter_index import letter

from murmura.console.assembly import assemble
from murmura.console.dead_letters.job import MOST_PREVIEWS, Plan, Redrives
from murmura.console.server import serve
from murmura.console.web.people import Refused
from murmura.runtime.kafka.embedded_broker import EmbeddedBroker
from murmura.runtime.redrive.rules import Tally
from murmura.runtime.settings.settings import Settings
from murmura.runtime.wire.dead_letter_records import Selection

TOPICS = {"murmura.deadletters": 1, "murmura.retries": 3, "requests": 1}


async def write_letters(bootstrap: str) -> None:
    async with AIOKafkaProducer(bootstrap_servers=bootstrap) as producer:
        for offset in range(3):
            record = letter(offset, agent="classification")
            await producer.send_and_wait(
                "murmura.deadletters", b'{"text": "hello"}', key=b"k", headers=list(record.headers), partition=0
            )


async def test_letters_are_listed_previewed_sent_once_and_shown_as_sent():
    with EmbeddedBroker(TOPICS) as broker:
        await write_letters(broker.bootstrap)
        settings = Settings(kafka={"bootstrap_servers": broker.bootstrap, "fetch_max_wait_ms": 200})
        stop, url = asyncio.Event(), asyncio.get_running_loop().create_future()
        console = assemble(settings)
        running = asyncio.create_task(serve(console, ("127.0.0.1", 0), stop=stop, ready=url.set_result))
        headers = {"sec-fetch-site": "same-origin"}
        async with asyncio.timeout(60), httpx.AsyncClient(base_url=await url, headers=headers, timeout=30) as browser:
            await console.follower.caught_up.wait()
            assert (await browser.get("/dead-letters")).text.count(">waits<") == 3
            assert "hello" in (await browser.get("/dead-letters/0/1")).text
            assert (await browser.get("/dead-letters/0/9")).status_code == 404
            assert "Send 1 again" in (await browser.get("/dead-letters/redrive?place=0/1")).text
            preview = (await browser.get("/dead-letters/redrive")).text
            assert "Send 3 again" in preview
            form = {name: re.search(f'name="{name}" value="([^"]+)"', preview)[1] for name in ("to", "until")}
            assert (await browser.post("/dead-letters/redrive", data=form)).headers["location"].endswith("/progress")
            while "done" not in (await browser.get("/dead-letters/redrive/progress")).text:
                await asyncio.sleep(0.05)
            while (await browser.get("/dead-letters")).text.count("sent again<") < 3:
                await asyncio.sleep(0.05)
            assert "<strong>0</strong>" in (await browser.get("/dead-letters/redrive")).text
        async with AIOKafkaConsumer(
            "murmura.retries", bootstrap_servers=broker.bootstrap, auto_offset_reset="earliest"
        ) as consumer:
            assert [(await consumer.getone()).value for _ in range(3)] == [b'{"text": "hello"}'] * 3
        stop.set()
        await running


async def test_a_third_preview_waits_for_the_first_two(monkeypatch):
    redrives, plan, may_end = Redrives(Settings(), list), Plan(Selection()), asyncio.Event()

    async def count(plan):
        await may_end.wait()
        return Tally()

    monkeypatch.setattr(redrives, "_count", count)
    counting = [asyncio.create_task(redrives.preview(plan)) for _ in range(MOST_PREVIEWS)]
    await asyncio.sleep(0)
    with pytest.raises(Refused, match="wait for them"):
        await redrives.preview(plan)
    may_end.set()
    await asyncio.gather(*counting)
    assert await redrives.preview(plan) == Tally()
