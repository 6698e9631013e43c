"""Conversations with the dialogue agent beside the demo's messages: one after the other, turn by turn."""

import asyncio
import itertools
import json
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from ...agents.dialogue.policy.policy_file import check_against_model, load_policy
from ...runtime.errors import SetupError
from ...runtime.settings.settings import AgentSettings, Settings
from ...runtime.wire.summary import safe
from ...schemas.manifest import ModelManifest

AGENT: Final = "dialogue"
TURNS, REPLIES, STATE, HANDOFFS = (
    "murmura.dialogue.turns",
    "murmura.dialogue.replies",
    "murmura.dialogue.state",
    "murmura.handoffs",
)
PAUSE_S: Final = 1.5
"""Between a reply and the next turn: time to read."""
PATIENCE_S: Final = 10.0
"""How long to wait for a reply; then another conversation begins."""
_KEPT: Final = 12
Send = Callable[[str, bytes, bytes], Awaitable[None]]
"""Sends to a topic a value with a key."""


@dataclass(slots=True)
class Exchange:
    """A turn and its reply."""

    turn: str
    reply: str | None = None
    wording: str = ""
    """Where the reply's words come from: `generated`, `template` or `knowledge`."""


def talk_topics(policy: Path) -> list[str]:
    """Return the topics of the dialogue agent with this policy."""
    return [TURNS, REPLIES, STATE, HANDOFFS, *load_policy(policy).value.topics]


def find_misfit(policy: Path, manifest: ModelManifest) -> str | None:
    """Return in one line why a model cannot hold the conversations of a policy, None if it can."""
    try:
        check_against_model(load_policy(policy), manifest.tasks, manifest.name)
    except SetupError as error:
        return str(error)
    return None


def with_talk(settings: Settings, policy: Path, knowledge: Mapping[str, Any]) -> Settings:
    """Return the settings with those of the dialogue agent: its policy, and its options of knowledge, if any."""
    agents = {**settings.agents, AGENT: AgentSettings(options={"policy": str(policy), **knowledge})}
    return settings.model_copy(update={"agents": agents})


def read_conversations(path: Path) -> list[list[str]]:
    """Return the turns of each conversation of a file."""
    found: list[list[str]] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found


class Talk:
    """Sends the turns of conversations, each after the reply to the one before, and keeps what was said last."""

    def __init__(self, conversations: Sequence[Sequence[str]]) -> None:
        self._conversations = conversations
        self.exchanges: deque[Exchange] = deque(maxlen=_KEPT)
        self._waits: tuple[str, Exchange] | None = None
        """Id of the turn without a reply."""
        self.on_reply: list[Callable[[Exchange], None]] = []
        self._replied = asyncio.Event()

    async def keep_talking(self, send: Send) -> None:
        """Hold one conversation after the other until cancelled."""
        for number, turns in enumerate(itertools.cycle(self._conversations), start=1):
            for place, text in enumerate(turns, start=1):
                exchange, turn_id = Exchange(text), f"talk-{number}-{place}"
                self.exchanges.append(exchange)
                self._waits = turn_id, exchange
                self._replied.clear()
                value = json.dumps({"id": turn_id, "text": text}, ensure_ascii=False).encode()
                await send(TURNS, value, f"talk-{number}".encode())
                try:
                    await asyncio.wait_for(self._replied.wait(), PATIENCE_S)
                except TimeoutError:
                    break
                await asyncio.sleep(PAUSE_S)

    def read_reply(self, value: bytes, _now: float) -> None:
        """Take a record of the topic of replies."""
        reply = json.loads(value)
        if self._waits is not None and reply["request_id"] == self._waits[0]:
            _, exchange = self._waits
            exchange.reply, exchange.wording = reply["text"], reply["wording"]
            self._waits = None
            self._replied.set()
            for notify in self.on_reply:
                notify(exchange)


def talk_lines(exchanges: Iterable[Exchange]) -> list[tuple[str, str, str]]:
    """Return who says what, line by line; the third part is where a reply's words come from."""
    lines = []
    for exchange in exchanges:
        lines.append(("customer", safe(exchange.turn, 300), ""))
        if exchange.reply is not None:
            lines.append(("desk", safe(exchange.reply, 300), exchange.wording))
    return lines
