"""How the records of an agent are retried."""

from dataclasses import dataclass
from typing import Self

from ...agent.agent import Agent
from ...agent.handler import Handler
from ...settings.retry_policy import RetryPolicy
from ...settings.settings import AgentSettings, Settings


@dataclass(frozen=True, slots=True)
class AgentRetries:
    """An agent's retry policy, and the errors that it retries."""

    policy: RetryPolicy
    retry_on: tuple[type[Exception], ...] = ()

    @classmethod
    def from_settings(cls, agent: Agent | Handler, settings: Settings) -> Self:
        policy = settings.agents.get(agent.name, AgentSettings()).retries.policy
        return cls(policy, tuple(agent.retry_on))
