"""The viewer: types messages, and judges answers with a key."""

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime

from ...runtime.model.kinds.forms import AnswerForm
from ...runtime.model.kinds.registry import kind_of
from ...schemas.feedback import Feedback, Verdict
from ...schemas.manifest import TaskSpec
from .desk import Desk, Message
from .traffic import Customers, text_sample


class Person:
    """Interprets typed lines. A verdict is about the last typed message, else about the last answered one."""

    def __init__(self, desk: Desk, customers: Customers, tasks: Sequence[TaskSpec], name: str = "you") -> None:
        self._desk, self._customers, self._name = desk, customers, name
        self._task = next((task.name for task in tasks if kind_of(task).form is AnswerForm.LABEL), None)

    async def types(self, line: str) -> None:
        """Send the message or the feedback of a line."""
        match line[0], line[1:].strip():
            case "+", "":
                await self._judge(Verdict.CONFIRMED, None, "right")
            case "-", "":
                await self._judge(Verdict.DOWN, None, "wrong")
            case "=", label if label:
                await self._judge(Verdict.CORRECTION, label, f"={label}")
            case _:
                await self._customers.send(text_sample(line), typed=True)

    async def _judge(self, verdict: Verdict, label: str | None, mark: str) -> None:
        message = self._desk.to_judge()
        if message is None or self._task is None or self._task not in message.answered:
            return
        message.verdict = mark
        await self._customers.judge(feedback_on(message, self._task, verdict, label, self._name))


def feedback_on(message: Message, task: str, verdict: Verdict, value: str | None, by: str) -> Feedback:
    """Return a person's feedback on an answer, with consent to train on it."""
    answer = message.answered[task]
    return Feedback.model_validate(
        {
            "id": str(uuid.uuid4()),
            "prediction_id": answer.prediction_id,
            "agent": answer.agent,
            "task": task,
            "model": {"name": answer.model, "version": answer.version},
            "verdict": verdict,
            "value": value,
            "by": by,
            "at": datetime.now(UTC),
            "consent": True,
        }
    )
