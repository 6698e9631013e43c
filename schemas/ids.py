"""Request and prediction ids, which are the same when a record is delivered again."""

from hashlib import sha256


def default_request_id(topic: str, partition: int, offset: int, timestamp_ms: int) -> str:
    """Return the id of a request without one: its coordinates, `topic/partition/offset/timestamp`."""
    return f"{topic}/{partition}/{offset}/{timestamp_ms}"


def prediction_id(agent: str, source: str, request_id: str) -> str:
    """Return the first 128 bits, in hex, of SHA-256 over the three length-prefixed strings.

    Each string is UTF-8 after its length in bytes as four big-endian bytes, so that different triples never hash the same
    bytes. `source` is the record's `ce_source`, else its input topic. It does not depend on the model's version, so that a
    consumer can drop a repeated result.
    """
    return PredictionIds(agent, source)(request_id)


class PredictionIds:
    """Computes the prediction ids of one agent and source; their common part is hashed once."""

    __slots__ = ("_common",)

    def __init__(self, agent: str, source: str) -> None:
        self._common = sha256(_with_length(agent) + _with_length(source))

    def __call__(self, request_id: str) -> str:
        digest = self._common.copy()
        digest.update(_with_length(request_id))
        return digest.hexdigest()[:32]


def _with_length(text: str) -> bytes:
    raw = text.encode()
    return len(raw).to_bytes(4, "big") + raw
