"""Sends records and their markers together: one transaction per batch, with an id that only one sender can hold."""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Protocol

from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    KafkaError,
    MessageSizeTooLargeError,
    ProducerFenced,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
)

from ....schemas.deadletter import REDRIVEN
from ...errors import MurmuraError, SetupError
from ...settings.settings import KafkaSettings, ProducerSettings
from ...wire.message import Message
from ..broker_diagnosis import diagnose
from .producer import producer_options

_STOP_S = 5.0


class Fenced(MurmuraError):
    """Another sender has taken the transactional id: nothing of the open batch is visible, and nothing more is sent."""


class BatchRefused(MurmuraError):
    """The broker refused a record of a batch; nothing of the batch is visible. `too_large`: a retry cannot succeed."""

    def __init__(self, message: str, *, too_large: bool) -> None:
        super().__init__(message)
        self.too_large = too_large


class Sender(Protocol):
    """The sender of a redrive. `send` returns when the whole batch is acknowledged and visible."""

    async def start(self) -> None: ...
    async def send(self, messages: Sequence[Message]) -> None: ...
    async def stop(self) -> None: ...


class TransactionalSender:
    """Sends in transactions: a batch is visible as a whole or not at all. A later sender fences this one (`Fenced`)."""

    def __init__(self, kafka: KafkaSettings, producer: ProducerSettings, transactional_id: str) -> None:
        self._timeout_s = producer.send_timeout_s
        self._id = transactional_id
        self._producer = make_producer(kafka, producer, transactional_id)

    async def start(self) -> None:
        """Acquire the transactional id. An open transaction of another sender is ended before this returns.

        Raises SetupError when the broker does not allow it or does not answer.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._producer.start()
        except TransactionalIdAuthorizationFailed:
            raise SetupError(
                f"this user may not write with the transactional id {self._id}: allow WRITE and DESCRIBE on it, "
                "or give --no-transactions, where a kill may repeat one batch"
            ) from None
        except (KafkaError, OSError, TimeoutError) as error:
            raise SetupError(
                f"the broker gives no transactions ({type(error).__name__}); "
                "--no-transactions sends without, where a kill may repeat one batch"
            ) from None

    async def send(self, messages: Sequence[Message]) -> None:
        """Send and commit a batch. After an error other than `Fenced`, stop this sender and start another."""
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._producer.begin_transaction()
                refused = await send_all(self._producer, messages)
                if refused is None:
                    await self._producer.commit_transaction()
                    return
            if isinstance(refused, ProducerFenced):
                raise refused
            await self._abort()
            raise refusal(refused)
        except ProducerFenced:
            raise self._fenced() from None
        except TimeoutError:
            raise MurmuraError(
                f"the broker did not decide on a batch within {self._timeout_s:g} s; start the command again: "
                "what was sent is not sent twice"
            ) from None
        except KafkaError as error:
            if isinstance(error.__cause__, ProducerFenced):
                raise self._fenced() from None
            raise refusal(error) from None

    async def stop(self) -> None:
        with contextlib.suppress(Exception):
            async with asyncio.timeout(_STOP_S):
                await self._producer.stop()

    async def _abort(self) -> None:
        with contextlib.suppress(KafkaError, AssertionError, TimeoutError):
            async with asyncio.timeout(_STOP_S):
                await self._producer.abort_transaction()

    def _fenced(self) -> Fenced:
        return Fenced(f"another redrive took over ({self._id}): this one has ended, and nothing is sent twice")


class PlainSender:
    """Sends without transactions: first the records, then the markers. A kill in between repeats one batch."""

    def __init__(self, kafka: KafkaSettings, producer: ProducerSettings) -> None:
        self._kafka, self._timeout_s = kafka, producer.send_timeout_s
        self._producer = make_producer(kafka, producer, None)

    async def start(self) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._producer.start()
        except (KafkaError, OSError, TimeoutError) as error:
            raise await diagnose(self._kafka, error) from None

    async def send(self, messages: Sequence[Message]) -> None:
        markers = [message for message in messages if message.headers and message.headers[0][0] == REDRIVEN]
        records = [message for message in messages if not message.headers or message.headers[0][0] != REDRIVEN]
        try:
            async with asyncio.timeout(self._timeout_s):
                refused = await send_all(self._producer, records) or await send_all(self._producer, markers)
        except TimeoutError:
            raise MurmuraError(f"the broker did not decide on a batch within {self._timeout_s:g} s") from None
        if refused is not None:
            raise refusal(refused)

    async def stop(self) -> None:
        with contextlib.suppress(Exception):
            async with asyncio.timeout(_STOP_S):
                await self._producer.stop()


def make_producer(kafka: KafkaSettings, producer: ProducerSettings, transactional_id: str | None) -> AIOKafkaProducer:
    return AIOKafkaProducer(**producer_options(kafka, producer), transactional_id=transactional_id)


async def send_all(producer: AIOKafkaProducer, messages: Sequence[Message]) -> BaseException | None:
    """Send every message and wait until each is decided; return the first error, None on success.

    Awaits every future: otherwise a failed send would not fail the transaction.
    """
    sent: list[asyncio.Future[object]] = []
    refused: BaseException | None = None
    for topic, value, key, headers, partition in messages:
        try:
            # Kafka accepts a record without key and value; this client requires one of them.
            bare = b"" if value is None and key is None else key
            sent.append(await producer.send(topic, value, bare, partition, headers=headers))
        except (KafkaError, AssertionError) as error:
            refused = error
            break
    decided = await asyncio.gather(*sent, return_exceptions=True)
    return refused or next((one for one in decided if isinstance(one, BaseException)), None)


def refusal(error: BaseException) -> MurmuraError:
    """Return the error of the command for a refused send."""
    if isinstance(error, TopicAuthorizationFailedError):
        return SetupError(f"this user may not write to {error.args[0] if error.args else 'one of the topics'}")
    if isinstance(error, ClusterAuthorizationFailedError | TransactionalIdAuthorizationFailed):
        return SetupError(f"the broker does not allow it: {type(error).__name__}")
    return BatchRefused(
        f"the broker did not take a batch: {type(error).__name__}",
        too_large=isinstance(error, MessageSizeTooLargeError),
    )
