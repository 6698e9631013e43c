"""Request and prediction ids: who asked, and which answer this is, the same when a record is delivered again."""

from hashlib import sha256


def default_request_id(topic: str, partition: int, offset: int, timestamp_ms: int) -> str:
    """Name a request that brought no id of its own by its coordinates, `topic/partition/offset/timestamp`."""
    return f"{topic}/{partition}/{offset}/{timestamp_ms}"


def prediction_id(agent: str, source: str, request_id: str) -> str:
    """Return the first 128 bits, in hex, of SHA-256 over the three length-prefixed strings.

    Each string is UTF-8 behind its length in bytes as four big-endian bytes, so that no two different triples hash the
    same bytes. `source` is the record's `ce_source`, else its input topic. The model's version takes no part: whoever
    receives a result twice can drop one.
    """
    return PredictionIds(agent, source)(request_id)


class PredictionIds:
    """The prediction ids of one agent and source: what they have in common is hashed once."""

    __slots__ = ("_common",)

    def __init__(self, agent: str, source: str) -> None:
        self._common = sha256(_prefixed(agent) + _prefixed(source))

    def __call__(self, request_id: str) -> str:
        digest = self._common.copy()
        digest.update(_prefixed(request_id))
        return digest.hexdigest()[:32]


def _prefixed(text: str) -> bytes:
    raw = text.encode()
    return len(raw).to_bytes(4, "big") + raw
