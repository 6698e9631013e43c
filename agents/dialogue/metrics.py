"""Metrics of dialogue: turns, and the conversations that this process holds."""

from collections.abc import Callable
from typing import Final

from ...runtime.observe.metrics import Metric, Metrics

METRICS: Final = (
    Metric("murmura_turns_total", "counter", ("agent", "kind"),
           "Turns of conversations by the kind of reply; repeated (sent again), skipped (older than the last)"),
    Metric("murmura_reply_wordings_total", "counter", ("agent", "wording", "reason"),
           "New replies by where their words come from: template, generated, knowledge; and why the template was sent instead "
           "of the model's words (none: it was not to be replaced)"),
    Metric("murmura_failed_parts_total", "counter", ("agent", "part"),
           "Parts of answers that failed and were left out: people, knowledge, reply, filter"),
    Metric("murmura_conversations", "gauge", (), "Conversations whose state this process holds"),
    Metric("murmura_unreadable_states_total", "counter", (),
           "Conversation states that could not be read: those conversations start anew"),
)  # fmt: skip


class DialogueMetrics:
    """Counts turns and unreadable states, and reads the number of conversations at each scrape."""

    def __init__(self, metrics: Metrics, conversations: Callable[[], float]) -> None:
        turns, wordings, parts, held, unreadable = METRICS
        self._parts = metrics.add_counter(parts)
        self._wordings = metrics.add_counter(wordings)
        self._turns, self._unreadable = metrics.add_counter(turns), metrics.add_counter(unreadable)
        metrics.add_gauge(held).set_function(conversations)

    def count_turn(self, agent: str, kind: str) -> None:
        """Count a turn; `kind` is that of the reply, or repeated, or skipped."""
        self._turns.add((agent, kind))

    def count_wording(self, agent: str, wording: str, reason: str | None) -> None:
        """Count a new reply by the source of its words; `reason`: why it is not the model's."""
        self._wordings.add((agent, wording, reason or "none"))

    def count_failed_part(self, agent: str, part: str) -> None:
        """Count a part of an answer that failed, so that the turn was answered without it."""
        self._parts.add((agent, part))

    def count_unreadable(self, states: int) -> None:
        self._unreadable.add((), states)
