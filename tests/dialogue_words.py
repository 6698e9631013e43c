"""A desk whose policy lets a scripted model word its replies."""

from pathlib import Path
from typing import Any

from dialogue_process import TASKS, Log, Process, answers

from murmura.runtime.model.generated import Generated
from murmura.runtime.testing.fakes import FakeModel, labelled
from murmura.schemas.manifest import GenerationSpec, TaskSpec

POLICY = """
constants: {soon: five working days}
min_reply_score: 0.5
filter: harm
stop_words: stop.yaml
handover: {filtered: [threat]}
intents:
  transfer:
    needs:
      amount: {generate: true, template: "How much?"}
    reply: {generate: true, template: "{amount} arrives in {soon}."}
    forget: [amount]
    action: {topic: bank.transfers, fields: {amount: "{amount}"}}
  complaint:
    reply: We are sorry.
"""
SIZES = GenerationSpec(context=3, acts=True, layers=1, slots=["amount", "soon"])
MODEL_TASKS = [
    *TASKS,
    TaskSpec(name="harm", kind="multi_label", labels=["insult", "threat"]),
    TaskSpec(name="reply", kind="generation", labels=["{end}", " Your", " Send", "x"], generation=SIZES),
]
ASKED, DONE = "Send how much?", "Your {amount} is there in {soon}."


class Words:
    """What the model words, in turn, and what it was asked."""

    def __init__(self, *said: str | BaseException, score: float = 0.9) -> None:
        self.said, self.score, self.truncated, self.cut = [*said], score, False, False
        self.model = "fake", 0
        self.asked: list[tuple[Any, ...]] = []

    async def generate(self, turns, acts, task, *, slots=None, is_forbidden=None, deadline=None) -> Generated:
        self.asked.append(([each.text for each in turns], [str(act.act) for act in acts], set(slots), is_forbidden))
        said = self.said.pop(0)
        if isinstance(said, BaseException):
            raise said
        return Generated(said, (), self.score, "end", self.truncated, self.cut, self.model)


def served(text: Any) -> dict[str, Any]:
    harm = {"harm": labelled(**{label: 0.9 for label in ("insult", "threat") if label in str(text)})}
    return {**answers(str(text)), **harm}


def write_policy(folder: Path) -> Path:
    (folder / "stop.yaml").write_text("insult:\n  - you idiot*\n")
    (folder / "policy.yaml").write_text(POLICY)
    return folder / "policy.yaml"


async def begin(policy: Path, *said: str | BaseException, log: Log | None = None, score=0.9, **options) -> Process:
    process = Process(policy, [] if log is None else log, served=FakeModel(MODEL_TASKS, served), **options)
    process.words = Words(*said, score=score)
    process.engine.generate = process.words.generate
    return await process.begin()
