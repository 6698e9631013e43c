"""The serving process of a demo: a broker, settings independent of the environment, and the agents."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from ...runtime.agent.discovery import find_agents
from ...runtime.kafka.embedded_broker import FETCH_MAX_WAIT_MS
from ...runtime.model.model import Model
from ...runtime.serve import Serving, serve
from ...runtime.settings.settings import Settings
from ...runtime.settings.sources import load
from .traffic import FEEDBACK

ANSWERING: Final = ("classification", "analysis")
"""The agents that answer each message."""
ANSWERS: Final = (*(f"murmura.{agent}.results" for agent in ANSWERING), "murmura.deadletters")


def topics(topic: str, *others: str) -> dict[str, int]:
    """Return the topics of a demo whose messages go to `topic`, with their partitions."""
    return dict.fromkeys((topic, FEEDBACK, *ANSWERS, *others), 4) | {"murmura.retries": 3}


def demo_settings(
    bootstrap: str,
    http: str | None,
    topic: str,
    model: dict[str, Any],
    agents: Sequence[str] = ANSWERING,
    sections: Mapping[str, Any] | None = None,
) -> Settings:
    """Return settings that ignore the environment: a production MURMURA_CONFIG must not affect a demo. `sections`: further ones."""
    flags = {
        "app": "demo",
        "kafka": {"bootstrap_servers": bootstrap, "fetch_max_wait_ms": FETCH_MAX_WAIT_MS},
        "model": model,
        "producer": {"linger_ms": 0},
        "agents": {agent: {"topics": [topic]} for agent in agents},
        "http": http or "127.0.0.1:0",
        **(sections or {}),
    }
    return load(flags=flags, environment=False)


@asynccontextmanager
async def serving(
    settings: Settings, model: Model | None = None, others: Sequence[str] = (), answering: Sequence[str] = ANSWERING
) -> AsyncIterator[tuple[Serving, asyncio.Task[None]]]:
    """Serve during the block: the agents that answer, the feedback agent and `others`. The task ends early when serving fails."""
    enough = asyncio.Event()
    started: asyncio.Future[Serving] = asyncio.get_running_loop().create_future()
    agents = find_agents([*answering, "feedback", *others], settings.prefix)
    server = asyncio.create_task(serve(settings, agents, model=model, ready=started.set_result, stop=enough))
    try:
        await asyncio.wait((server, started), return_when=asyncio.FIRST_COMPLETED)
        if server.done():
            await server  # raises why it did not start
        yield await started, server
    finally:
        enough.set()
        await server
