"""A consumer that is stopped while its fetch waits for a retry cancels nobody."""

import asyncio

from murmura.runtime.kafka.consumer_stop import stop_consumer, wait_for_stop


class Waiting:
    """As aiokafka's consumer: the cancellation of its own fetch is passed on from `stop`, unless nothing is assigned."""

    def __init__(self) -> None:
        self.assigned, self.closed = True, False
        self._fetch = asyncio.ensure_future(self._retry())

    def unsubscribe(self) -> None:
        self.assigned = False

    async def _retry(self) -> None:
        while self.assigned:
            await asyncio.sleep(0)

    async def stop(self) -> None:
        self._fetch.cancel()
        await self._fetch
        self.closed = True


async def test_the_cancellation_of_its_own_fetch_reaches_no_caller():
    consumer = Waiting()
    await stop_consumer(consumer)
    assert consumer.closed
    await wait_for_stop(Waiting())


async def test_who_stops_it_may_be_cancelled():
    class Endless(Waiting):
        async def stop(self) -> None:
            await asyncio.sleep(60)

    stopping = asyncio.create_task(stop_consumer(Endless()))
    await asyncio.sleep(0.01)
    stopping.cancel()
    await asyncio.wait([stopping], timeout=5)
    assert stopping.cancelled()
