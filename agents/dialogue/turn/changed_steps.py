"""Changes the result of a turn after the policy has decided: its words, its side of an experiment, its size. Pure."""

from typing import Any

from ....runtime.errors import RecordError
from ....schemas.deadletter import DeadLetterReason as Reason
from ....schemas.dialogue import STATE_BYTES, ConversationSide, Stopped
from .draft import find_part
from .step import ReceivedTurn, Step, replay_step
from .wording import Worded


def bound_state(result: Step, turn: ReceivedTurn) -> tuple[Step, bytes]:
    """Return the result with a state of at most STATE_BYTES, and the state as a record value.

    The oldest exchanges are dropped. Raises RecordError when the last exchange and its actions alone are too large: a turn
    that could not be repeated after a crash must not be answered.
    """
    while len(value := result.state.model_dump_json().encode()) > STATE_BYTES:
        turns = result.state.turns[1:]
        if not turns:
            raise RecordError(
                Reason.TOO_LARGE, f"the state after this turn has {len(value)} bytes: its actions are too large"
            )
        result = _change_state(result, turn, {"turns": turns})
    return result, value


def put_side(result: Step, side: ConversationSide | None) -> Step:
    """Return the result with the side of an experiment in its state."""
    return result if side is None else result._replace(state=result.state.model_copy(update={"side": side}))


def put_wording(result: Step, turn: ReceivedTurn, worded: Worded, stopped: Stopped | None) -> Step:
    """Return the result with the reply as it was worded. `stopped`: what of the model's was not sent."""
    *before, last = result.state.turns
    changed = {
        "turns": [*before, last.model_copy(update={"reply": worded.text})],
        "part": find_part(result.brief, worded.words, worded.text),
        "wording": worded.wording,
        "wording_reason": worded.reason,
        "worded_by": None if worded.model == result.state.model else worded.model,
        "truncated": result.state.truncated or worded.truncated,
        "stopped": stopped,
    }
    return _change_state(result, turn, changed)._replace(brief=None, score=worded.score)


def _change_state(result: Step, turn: ReceivedTurn, changes: dict[str, Any]) -> Step:
    """Return the result with a changed state, and with the reply and hand-over of that."""
    replayed = replay_step(result.state.model_copy(update=changes), turn)
    return result._replace(state=replayed.state, reply=replayed.reply, handover=replayed.handover)
