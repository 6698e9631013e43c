"""Sends a text as a request to the topic of an agent, and waits for the results of all agents that read it."""

import asyncio
import json
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from ...runtime.agent.agent import Agent
from ...runtime.agent.handler import Handler
from ...runtime.observe.logs import get_logger
from ...runtime.settings.settings import Settings
from ...schemas.request import TRIED
from ..live.index import LiveIndex
from ..live.result import LiveResult
from ..web.people import Refused
from .sending import TextSender

log = get_logger(__name__)

WAIT_S: Final = 10.0
MOST_AT_ONCE: Final = 4


@dataclass(frozen=True, slots=True)
class Tried:
    """What came of a text. `missing`: agents that did not answer in time. Times in ms, from the broker's acknowledgement on."""

    agent: str
    text: str
    topic: str
    request_id: str
    results: Sequence[LiveResult]
    missing: Sequence[str]
    sent_ms: float
    waited_ms: float


class Asking:
    """`known`: the agents whose topics may be tried. The results come through the index that is filled anyway."""

    def __init__(self, settings: Settings, known: Iterable[Agent | Handler], index: LiveIndex) -> None:
        self._settings, self._index = settings, index
        agents = [each for each in known if isinstance(each, Agent) and each.output and each.topics]
        self.topics: Mapping[str, str] = {each.name: each.topics[0] for each in agents}
        """By agent: the topic that a text is sent to."""
        self.outputs = frozenset(each.output for each in agents if each.output)
        """The topics that the results come from."""
        self._readers = {
            topic: [each.name for each in agents if topic in each.topics] for topic in self.topics.values()
        }
        self._running = 0
        self._sender = TextSender(settings)

    def others(self, agent: str) -> list[str]:
        """Return the other agents that read what is sent to an agent."""
        return [each for each in self._readers[self.topics[agent]] if each != agent]

    async def ask(self, agent: str, text: str) -> Tried:
        """Send a text, and return what came within 10 s. Raises Refused and MurmuraError."""
        topic = self.topics.get(agent)
        if topic is None:
            raise Refused(HTTPStatus.BAD_REQUEST, "There is no such agent to try.")
        if topic in self._settings.fields:
            raise Refused(
                HTTPStatus.CONFLICT, f"Requests in {topic} have their text elsewhere (`inputs`), so none is made up."
            )
        if self._running >= MOST_AT_ONCE:
            raise Refused(HTTPStatus.TOO_MANY_REQUESTS, f"{MOST_AT_ONCE} texts are being tried: wait for them.")
        self._running += 1
        request_id = f"try-{secrets.token_hex(8)}"
        try:
            return await self._ask(agent, text, request_id)
        finally:
            self._index.forget(request_id)
            self._running -= 1

    async def _ask(self, agent: str, text: str, request_id: str) -> Tried:
        topic = self.topics[agent]
        found, readers = self._index.expect(request_id), self._readers[topic]
        value = json.dumps({"id": request_id, "text": text, "metadata": TRIED}).encode()
        begun = time.monotonic()
        await self._sender.send(topic, value, request_id.encode())
        sent = time.monotonic()
        try:
            async with asyncio.timeout(WAIT_S):
                await self._index.wait_for(request_id, readers)
        except TimeoutError:
            log.info("a tried text was not answered in time", request_id=request_id)
        missing = sorted({*readers} - {each.agent for each in found})
        waited = 1000 * (time.monotonic() - sent)
        return Tried(agent, text, topic, request_id, list(found), missing, 1000 * (sent - begun), waited)

    async def close(self) -> None:
        """Close the connection that texts are sent by."""
        await self._sender.close()
