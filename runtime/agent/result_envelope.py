"""Encodes results, with everything that is the same for all records encoded once."""

from typing import Any, Literal

import msgspec

from ...schemas.envelope import CAUSE, CE_ID, CE_SUBJECT, CE_TIME, HOPS, TRACEPARENT
from ...schemas.ids import PredictionIds, prediction_id
from ..wire.request import Incoming
from .prediction import Prediction

_encode = msgspec.json.Encoder().encode

Headers = list[tuple[str, bytes]]
Variant = Literal["current", "candidate"]


class ResultEnvelope:
    """Results of one agent, input topic, model and status. The bytes equal the encoding of `schemas.result.Result`, without the
    variant of a current version.

    A result is built for every record: filling in six values takes half the time of encoding nested dicts.
    """

    __slots__ = ("_agent", "_before_partition", "_headers", "_ids", "_topic")

    def __init__(
        self,
        agent: str,
        topic: str,
        model: tuple[str, int],
        headers: tuple[tuple[str, bytes], ...],
        status: Literal["ok", "expired"] = "ok",
        variant: Variant = "current",
    ) -> None:
        self._agent, self._topic = agent, topic
        self._headers = headers
        self._ids = PredictionIds(agent, topic)
        name, version = model
        self._before_partition = (
            b'","agent":%b,"status":"%b","model":{"name":%b,"version":%d%b},"source":{"topic":%b,"partition":'
            % (
                _encode(agent),
                status.encode(),
                _encode(name),
                version,
                b"" if variant == "current" else b',"variant":"%b"' % variant.encode(),
                _encode(topic),
            )
        )

    def fill(self, request: Incoming, prediction: Prediction, outputs: Any, time: str) -> tuple[bytes, Headers]:
        """Return value and headers; `outputs` are the agent's, which may differ from the predicted ones."""
        ratio = prediction.pass_ratio
        request_id = request.request_id
        same_source = request.source == self._topic
        result_id = self._ids(request_id) if same_source else prediction_id(self._agent, request.source, request_id)
        subject, id_bytes, time_bytes = request_id.encode(), result_id.encode(), time.encode()
        value = (
            b'{"request_id":%b,"prediction_id":"%b%b%d,"offset":%d,"timestamp":%d},"outputs":%b,"truncated":%b%b%b,"metadata":%b,"time":"%b"}'
            % (
                _encode(request_id),
                id_bytes,
                self._before_partition,
                request.partition,
                request.offset,
                request.timestamp,
                _encode(outputs),
                b"true" if prediction.truncated else b"false",
                b"" if ratio is None else b',"pass_ratio":%.4g' % ratio,
                b',"candidate_failed":true' if prediction.candidate_failed else b"",
                _encode(request.metadata) if request.metadata else b"{}",
                time_bytes,
            )
        )
        headers = [
            *self._headers,
            (CE_ID, id_bytes),
            (CE_SUBJECT, subject),
            (CE_TIME, time_bytes),
            (CAUSE, subject),
            (HOPS, b"%d" % (request.hops + 1)),
        ]
        if request.traceparent is not None:
            headers.append((TRACEPARENT, request.traceparent))
        return value, headers
