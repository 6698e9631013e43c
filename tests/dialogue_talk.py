"""A conversation with a scripted model, turn by turn through the pure step."""

from dataclasses import dataclass, field
from typing import Any

from murmura.agents.dialogue.policy.policy import DEFAULT_MIN_SCORE, Policy
from murmura.agents.dialogue.turn.step import ReceivedTurn, Step, goes_to_person, step
from murmura.runtime.agent.prediction import Prediction
from murmura.runtime.testing.fakes import abstained, classified
from murmura.schemas.dialogue import ConversationState
from murmura.schemas.ids import prediction_id
from murmura.schemas.result import Source

HOUR = 3_600_000
POLICY = Policy.model_validate(
    {
        "greeting": "Hello.",
        "slots": {"payee": "person", "witness": "person"},
        "remember_turns": 4,
        "min_score": 0.4,
        "handover": {"below": 0.1},
        "intents": {
            "balance": {"reply": "See the app."},
            "transfer": {
                "needs": {"payee": "To whom?", "amount": "How much for {payee}?"},
                "reply": "{amount} to {payee}.",
                "forget": ["amount", "payee"],
                "action": {"topic": "bank.transfers", "fields": {"to": "{payee}", "sum": "{amount}", "said": "{text}"}},
            },
            "theft": {
                "needs": {"card": "Which card?", "witness": "Who saw it?"},
                "reply": "Your {card} is blocked.",
                "action": [{"topic": "bank.blocks", "fields": {"card": "{card}"}}],
                "to_person": True,
            },
        },
    }
)


@dataclass
class Talk:
    """A conversation with a scripted model."""

    policy: Policy = POLICY
    state: ConversationState | None = None
    now: int = 1_767_606_000_000
    offset: int = 0
    steps: list[Step] = field(default_factory=list)

    def heard(self, text: str, metadata: dict[str, str] | None = None) -> ReceivedTurn:
        source = Source(topic="turns", partition=0, offset=self.offset, timestamp=self.now)
        request_id = f"turns/0/{self.offset}/{self.now}"
        this = prediction_id("dialogue", "turns", request_id)
        return ReceivedTurn("dialogue", "c-1", text, request_id, this, source, metadata or {})

    def say(self, text: str, output: dict[str, Any] | str = "", *, metadata=None, **entities: str | list[str]) -> Step:
        self.offset += 1
        self.now += 1000
        turn = self.heard(text, metadata)
        answer = classified(output, 0.9) if isinstance(output, str) and output else output or abstained("balance", 0.3)
        prediction = None
        if not goes_to_person(self.state, turn, self.policy, self.now):
            spans = [(k, v) for k, vs in entities.items() for v in ([vs] if isinstance(vs, str) else vs)]
            tagged = [{"label": k, "text": v, "start": 0, "end": len(v), "score": 1.0} for k, v in spans]
            outputs = {"intent": answer, "entities": {"kind": "tagging", "spans": tagged}}
            prediction = Prediction(outputs, False, ("desk", 3))
        least = DEFAULT_MIN_SCORE if self.policy.min_score is None else self.policy.min_score
        self.steps.append(step(self.state, turn, prediction, self.policy, self.now, min_score=least))
        self.state = self.steps[-1].state
        return self.steps[-1]
