"""The options of the dialogue agent: `agents.dialogue.options` in the settings."""

from typing import Annotated, Literal

from pydantic import Field

from ...runtime.settings.agent_options import Options, RelativePath
from ...runtime.settings.settings import KafkaName, Seconds
from ...schemas.release import INTENT_CHARACTERS
from .knowledge.index import THRESHOLD


class DialogueOptions(Options):
    """How the agent answers and what it keeps."""

    policy: RelativePath | None = None
    """A YAML file. Required."""
    state: KafkaName | None = None
    """The changelog; default: `<prefix>.dialogue.state`. It must have as many partitions as the topic of turns."""
    handoffs: KafkaName | None = None
    """Topic of conversations for people; default: `<prefix>.handoffs`."""
    max_conversations: Annotated[int, Field(gt=0)] = 10_000
    """Maximum per partition; beyond it the least recently active conversation is deleted."""
    generated_replies_off: (
        Literal["all"] | list[Annotated[str, Field(min_length=1, max_length=INTENT_CHARACTERS)]] | None
    ) = None
    """Intents whose replies the model does not word, or all; beside what `murmura dialogue generation` switches."""
    generate_within_s: Seconds = 2.0
    """Time limit from a turn's admission to its generated reply; then its template is sent."""
    knowledge: RelativePath | None = None
    """A file of questions with reviewed answers, YAML or JSON lines: asked where the policy has no rule for a turn."""
    knowledge_threshold: Annotated[float, Field(ge=0, le=1)] = THRESHOLD
    """Least similarity of a question that answers a turn."""
    restore_timeout_s: Seconds = 300.0
    """Time limit for reading the changelog after an assignment; then the agent is suspended and tries again."""
