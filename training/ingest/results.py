"""What a join reads of results and reviews: no more than it needs, and the answers of tasks only when they are asked for."""

from typing import Annotated, Any

import msgspec

from .rules import LeftOut, Unfit


class ResultSource(msgspec.Struct):
    topic: str
    partition: int
    offset: int
    timestamp: Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)]


class Result(msgspec.Struct):
    prediction_id: str
    agent: str
    source: ResultSource
    outputs: msgspec.Raw
    status: str = "ok"


class Drawn(msgspec.Struct):
    """A review, of which only those matter that were drawn at random."""

    why: str
    task: str
    prediction_id: str | None = None
    sampling_rate: float | None = None


read_result = msgspec.json.Decoder(Result).decode
read_review = msgspec.json.Decoder(Drawn).decode
read_outputs = msgspec.json.Decoder(dict[str, dict[str, Any]]).decode


def output_of(raw: bytes, task: str) -> dict[str, Any]:
    """Return a task's answer from a result's raw outputs. Unfit when it has none, or is no result."""
    try:
        return read_outputs(raw)[task]
    except KeyError:
        raise Unfit(LeftOut.UNKNOWN_TASK) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Unfit(LeftOut.WRONG_FORM) from None
