"""Stops consumers whatever the state of the broker."""

import asyncio
from typing import Any, Final

_STOP_S: Final = 10.0
_TURNS: Final = 10
"""Iterations of the loop in which a consumer's task notices that it has no partitions any more."""


async def stop_consumer(consumer: Any) -> None:
    """Stop a consumer without a group; its errors are ignored, since it is no longer needed.

    While a fetch waits for a retry, as during an outage, aiokafka passes the cancellation of its own task on as if it were the
    caller's, whose task would end without a word. Without an assignment it ends that task cleanly.
    """
    consumer.unsubscribe()
    for _ in range(_TURNS):
        await asyncio.sleep(0)
    await wait_for_stop(consumer)


async def wait_for_stop(consumer: Any) -> None:
    """Stop a consumer, also one of a group, for at most a few seconds: what its own tasks raise stays in a separate task."""
    stopping = asyncio.ensure_future(consumer.stop())
    await asyncio.wait([stopping], timeout=_STOP_S)
    if not stopping.cancel() and not stopping.cancelled():
        stopping.exception()  # errors of a consumer that is no longer needed are ignored
