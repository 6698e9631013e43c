"""Places of replies on their way to their first step: each reply holds one at most once, and few are held."""

import asyncio
import random
from contextlib import AsyncExitStack

from murmura.runtime.batching.queues.reply_places import Place, ReplyPlaces

ROWS = 8


async def test_a_reply_that_begins_again_holds_one_place_before_all_who_wait() -> None:
    places = ReplyPlaces(ROWS)
    async with AsyncExitStack() as stack:
        first, other = [await stack.enter_async_context(places.enter()) for _ in range(places.count)]
        first.leave()
        first.leave()
        first.retake()
        first.retake()
        waits = asyncio.create_task(stack.enter_async_context(places.enter()))
        await asyncio.sleep(0)
        assert waits.done()  # of the one place that was given back; the other is owed
        late = asyncio.create_task(stack.enter_async_context(places.enter()))
        other.leave()
        await asyncio.sleep(0)
        assert not late.done()
        first.leave()
        await asyncio.sleep(0)
        await late
    first.retake()  # nobody waits for it any more
    async with asyncio.timeout(1), places.enter(), places.enter():
        pass


async def test_however_often_replies_begin_again_places_and_rows_are_bounded() -> None:
    places, chance = ReplyPlaces(ROWS), random.Random(3)
    waiting: list[Place] = []
    rows: list[Place] = []
    callers: list[asyncio.Task[None]] = []

    async def ask() -> None:
        async with places.enter() as place:
            waiting.append(place)
            await asyncio.Event().wait()

    for _ in range(600):
        callers.append(asyncio.create_task(ask()))
        await asyncio.sleep(0)
        if waiting and len(rows) < ROWS:
            rows.append(waiting.pop(0))
            rows[-1].leave()
        if chance.random() < 0.1:  # the device is lost with all rows, and a new version serves
            for place in rows:
                place.retake()
            waiting, rows = [*rows, *waiting], []
        if rows and chance.random() < 0.2:
            rows.pop().close()
        assert len(waiting) + len(rows) <= ROWS + places.count
    for each in callers:
        each.cancel()
    await asyncio.gather(*callers, return_exceptions=True)
