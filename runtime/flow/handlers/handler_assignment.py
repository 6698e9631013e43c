"""Prepares a handler for the partitions that it was assigned."""

import asyncio
from collections.abc import Callable, Iterable

from aiokafka.structs import TopicPartition

from ...agent.handler import Handler
from ...errors import Closed, MurmuraError, describe_origin
from ...observe.logs import get_logger
from ...output.outbox import Outbox
from ...output.result import hand_on
from ...output.suspending import Suspending
from ...wire.message import Publish

log = get_logger(__name__)


async def get_ready(
    handler: Handler,
    partitions: frozenset[TopicPartition],
    suspending: Suspending,
    outbox: Outbox,
    is_assigned: Callable[[], bool],
) -> bool:
    """Call the handler's `assigned` hook and send what it returns; True when records may be passed to the handler.

    False when the partitions were revoked meanwhile, or the process must end.
    """
    try:
        published = await _call_assigned(handler, partitions, suspending, is_assigned)
        if published:
            # Not caused by a record: they have no request id and no cause.
            messages = [hand_on(publish, handler.name, 0, None) for publish in published]
            await asyncio.shield(outbox.put(messages, handler.name))
    except Closed:
        return False
    except Exception as error:
        log.exception("a handler could not get ready", agent=handler.name)
        outbox.fail(error)
        return False
    return is_assigned()  # the hook may have swallowed the cancellation


async def _call_assigned(
    handler: Handler, partitions: frozenset[TopicPartition], suspending: Suspending, is_assigned: Callable[[], bool]
) -> Iterable[Publish] | None:
    """Call the handler's `assigned` hook. While it raises, the handler is suspended, and the hook is called again at each
    probe.

    Raises Closed when the partitions are revoked meanwhile, RecordError after `give_up_s`.
    """
    while True:
        try:
            return await handler.assigned(partitions)
        except asyncio.CancelledError:
            if not is_assigned():
                raise
            why = "it was cancelled while it got ready"
        except Exception as error:  # noqa: BLE001 - the hook is user code
            own_error = isinstance(error, MurmuraError)  # the message of any other error may quote a text
            why = f"it could not get ready: {error if own_error else describe_origin(error)}"
        await suspending.wait(handler.name, why)
